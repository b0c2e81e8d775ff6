"""Moves that go on in stages: where one stands still between two parts of its way.

B: bins of checkpoints.
"""

import numpy as np

from tracker.analysis.transitions.binned import Curve

PLATEAU = 0.1
"""At most this share of a move may lie on a plateau between two of its stages,"""
SIDE = 0.2
"""at least this share before and after it,"""
REST = 1.0
"""and it lasts for so many octaves."""
SLOWER = 3.0
"""It is slower than what lies before and after it by so many times,"""

STILL = 0.6
"""and beyond this share of the score from which on moves are claimed."""


def stages(
    curve: Curve, fitted: np.ndarray, part: slice, sign: int, critical: float
) -> list[tuple[int, int]]:
    """Cut a monotone stretch where it stands still.

    Args:
        curve: in bins.
        fitted: (B,) its fit.
        part: the stretch.
        sign: 1 where it rises.
        critical: the score from which on moves are claimed.

    Returns:
        First and last bin of each stage, counted within the stretch; the plateaus belong to neither.
    """
    size = abs(float(fitted[part.stop - 1] - fitted[part.start]))
    if size == 0:
        return [(0, part.stop - part.start - 1)]
    way = sign * (fitted[part] - fitted[part.start]) / size
    return _cut(curve.axis.places[part], way, curve.variance[part] / size**2, critical)


def _cut(places: np.ndarray, way: np.ndarray, variance: np.ndarray, critical: float) -> list[tuple[int, int]]:
    best = _longest_plateau(places, way, variance, critical)
    if best is None:
        return [(0, len(way) - 1)]
    low, high = best
    before = _cut(places[: low + 1], way[: low + 1], variance[: low + 1], critical)
    after = _cut(places[high:], way[high:], variance[high:], critical)
    return before + [(high + a, high + b) for a, b in after]


def _longest_plateau(
    places: np.ndarray, way: np.ndarray, variance: np.ndarray, critical: float
) -> tuple[int, int] | None:
    """First and last bin of the longest plateau inside a rising curve; None where it has none."""
    whole = max(float(way[-1] - way[0]), 1e-300)
    way, variance = (way - way[0]) / whole, variance / whole**2
    longest, found = REST, None
    for low in range(1, len(way) - 2):
        for high in range(low + 1, len(way) - 1):
            if way[high] - way[low] > PLATEAU:
                break
            if (
                places[high] - places[low] >= longest
                and _stands_still(places, way, variance, low, high) > STILL * critical
            ):
                longest, found = float(places[high] - places[low]), (low, high)
    return found


def _stands_still(places: np.ndarray, way: np.ndarray, variance: np.ndarray, low: int, high: int) -> float:
    """How much less the curve gains from ``low`` to ``high`` than on its way from before to after.

    In standard errors, with the start before and the end after that show it most clearly.
    """
    before = np.flatnonzero(way[:low] <= way[low] - SIDE)[:, None]
    after = (high + 1 + np.flatnonzero(way[high + 1 :] >= way[high] + SIDE))[None]
    if not before.size or not after.size:
        return 0.0
    length, gain = places[high] - places[low], way[high] - way[low]
    slower = (way[low] - way[before]) / (places[low] - places[before]) >= SLOWER * gain / length
    slower = slower & ((way[after] - way[high]) / (places[after] - places[high]) >= SLOWER * gain / length)
    share = length / (places[after] - places[before])
    lacking = share * (way[after] - way[before]) - gain
    error = np.sqrt(variance[low] + variance[high] + share**2 * (variance[before] + variance[after]))
    return float(np.where(slower, lacking / error, 0).max())
