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
    """``found`` lies within ``tolerance`` of ``expected``; equal infinities are near, NaN never is."""
    passed = found == expected or abs(found - expected) <= tolerance
    return Finding(experiment, _told(expected), _told(found), f"± {tolerance:g}", passed)


def at_most(experiment: str, found: float, limit: float, expected: str = "0") -> Finding:
    """``found`` is no larger than ``limit``; NaN is."""
    return Finding(experiment, expected, _told(found), f"at most {limit:g}", found <= limit)


def at_least(experiment: str, found: float, limit: float, expected: str = "1") -> Finding:
    """``found`` is no smaller than ``limit``; NaN is."""
    return Finding(experiment, expected, _told(found), f"at least {limit:g}", found >= limit)


def _told(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else str(value)
