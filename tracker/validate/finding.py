"""One row of a validation table: what was expected, what was found, and whether that is near enough."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One experiment with its number."""

    experiment: str
    expected: str
    found: str
    tolerance: str
    passed: bool
    by_chance: bool = False
    """Whether what it is beyond its limit by is no more than chance does to so many runs."""


def near(experiment: str, expected: float, found: float, tolerance: float) -> Finding:
    """Expect ``found`` within ``tolerance`` of ``expected``; equal infinities pass, NaN fails."""
    passed = found == expected or abs(found - expected) <= tolerance
    return Finding(experiment, _shown(expected), _shown(found), f"± {tolerance:g}", passed)


def is_undefined(experiment: str, found: float) -> Finding:
    """Expect that ``found`` is NaN: a sweep records no value."""
    return Finding(experiment, "undefined", _shown(found), "exact", math.isnan(found))


def at_most(
    experiment: str, found: float, limit: float, expected: str = "0", *, chance: float = 0.0
) -> Finding:
    """Expect ``found`` no larger than ``limit``, beyond which ``chance`` may lie; NaN fails."""
    allowed = f"at most {limit:g}" + (f" + {chance:.2g}" if chance else "")
    passed, near_it = found <= limit, found <= limit + chance
    return Finding(experiment, expected, _shown(found), allowed, passed, near_it and not passed)


def at_least(
    experiment: str, found: float, limit: float, expected: str = "1", *, chance: float = 0.0
) -> Finding:
    """Expect ``found`` no smaller than ``limit``, beyond which ``chance`` may lie; NaN fails."""
    allowed = f"at least {limit:g}" + (f" - {chance:.2g}" if chance else "")
    passed, near_it = found >= limit, found >= limit - chance
    return Finding(experiment, expected, _shown(found), allowed, passed, near_it and not passed)


def _shown(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else str(value)
