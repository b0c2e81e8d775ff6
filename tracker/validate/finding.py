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
    """Expect ``found`` no larger than ``limit``, or by ``chance`` alone; NaN fails."""
    allowed = f"at most {limit:g}" + (f" + {chance:.2g}" if chance else "")
    return Finding(experiment, expected, _shown(found), allowed, found <= limit + chance)


def at_least(
    experiment: str, found: float, limit: float, expected: str = "1", *, chance: float = 0.0
) -> Finding:
    """Expect ``found`` no smaller than ``limit``, or by ``chance`` alone; NaN fails."""
    allowed = f"at least {limit:g}" + (f" - {chance:.2g}" if chance else "")
    return Finding(experiment, expected, _shown(found), allowed, found >= limit - chance)


def _shown(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else str(value)
