"""Curves that rise and fall in turn: the best fit, where it turns, and how well each other place would do.

B: bins of checkpoints; R: draws.
"""

from collections.abc import Sequence

import numpy as np
from scipy import optimize


def rising(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Fit the best curve that never falls to ``values`` (B,)."""
    return np.asarray(optimize.isotonic_regression(values, weights=weights).x)


def rising_many(values_RB: np.ndarray, weights_B: np.ndarray) -> np.ndarray:
    """Fit many curves at once, (R, B): the largest over starts of the least mean over ends."""
    draws, bins = values_RB.shape
    sums = np.concatenate([np.zeros((draws, 1)), np.cumsum(values_RB * weights_B, axis=1)], axis=1)
    weights = np.concatenate([[0.0], np.cumsum(weights_B)])
    before = np.tri(bins, k=-1, dtype=bool)
    spans = np.where(before, 1.0, weights[None, 1:] - weights[:-1, None])
    means = np.where(before, np.inf, (sums[:, None, 1:] - sums[:, :-1, None]) / spans)
    least = np.minimum.accumulate(means[:, :, ::-1], axis=2)[:, :, ::-1]
    return np.where(before, -np.inf, least).max(axis=1)


def rising_costs(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted squares that the best rising fit leaves of bins i to j, (B, B), by pooling violators."""
    bins = len(values)
    costs = np.full((bins, bins), np.inf)
    for first in range(bins):
        blocks: list[tuple[float, float, float]] = []
        total = 0.0
        for last in range(first, bins):
            weight, mean, cost = float(weights[last]), float(values[last]), 0.0
            while blocks and blocks[-1][1] >= mean:
                other, level, left = blocks.pop()
                total -= left
                cost += left + weight * other / (weight + other) * (mean - level) ** 2
                mean = (weight * mean + other * level) / (weight + other)
                weight += other
            blocks.append((weight, mean, cost))
            total += cost
            costs[first, last] = total
    return costs


def turning_places(
    values: np.ndarray, weights: np.ndarray, signs: Sequence[int]
) -> tuple[list[int], list[np.ndarray]]:
    """Find where a curve that rises and falls as ``signs`` say turns.

    Args:
        values: (B,).
        weights: (B,) inverse variances.
        signs: 1 or -1 of every move, in turn.

    Returns:
        The last bin of every move but the last, and for each of these the least cost of all places, (B - 1,).
    """
    if len(signs) == 1:
        return [], []
    costs = {sign: rising_costs(sign * values, weights) for sign in set(signs)}
    ahead, picks, behind = [costs[signs[0]][0]], [], [costs[signs[-1]][:, -1]]
    for sign in signs[1:]:
        table = ahead[-1][:-1, None] + costs[sign][1:]
        picks.append(table.argmin(axis=0))
        ahead.append(table.min(axis=0))
    for sign in signs[-2:0:-1]:
        behind.insert(0, (costs[sign][:, :-1] + behind[0][None, 1:]).min(axis=1))
    places, at = [], len(values) - 1
    for pick in picks[::-1]:
        at = int(pick[at])
        places.insert(0, at)
    return places, [a[:-1] + b[1:] for a, b in zip(ahead[:-1], behind, strict=True)]
