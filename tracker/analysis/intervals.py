"""Where a change lies at 90 %: every place between its neighbours that a likelihood-ratio test keeps.

T: checkpoints; n: those of the two stretches that a change parts; D: metrics; R: draws of noise.
Source: inversion of the likelihood-ratio test for a change point (Worsley 1986, Biometrika 73:91;
Siegmund 1988, Ann. Inst. Statist. Math. 40:1), with the null distribution drawn, not asymptotic.
"""

from itertools import pairwise

import numpy as np

from tracker.analysis.noise import persistence, persistent
from tracker.analysis.segments import Breaks, Stretches

LEVEL = 0.9
"""Chance with which an interval is to hold the change."""
PRUNE = 1.5
"""Places that cost this many penalties more than the best are ruled out without a test."""
FEWEST_LEFT = 4
"""Checkpoints beyond the fitted parameters below which scatter says nothing about noise."""


def noise_draws(
    residual_TD: np.ndarray, parameters: int, sampled_RTD: np.ndarray, seed: int = 0
) -> np.ndarray:
    """Curves of noise alone, (R, T, D): what sequences do, and the scatter about the phases beyond it.

    Sequences cannot tell how far training itself wobbles from checkpoint to checkpoint. Where checkpoints
    scatter more about their phases than sequences explain, the excess is added as Gaussian noise with the
    residuals' own correlation between metrics and from checkpoint to checkpoint.

    Args:
        residual_TD: (T, D) values less the fitted phases.
        parameters: what the phases took from them, per metric.
        sampled_RTD: (R, T, D) bootstrap curves less the values.
        seed: of the Gaussian part.

    Returns:
        (R, T, D); of sequences alone where too few checkpoints are left to tell the scatter.
    """
    points = len(residual_TD)
    left = points - parameters
    if left < FEWEST_LEFT:
        return sampled_RTD
    rng = np.random.default_rng(seed)
    number = len(sampled_RTD)
    scatter = (residual_TD**2).sum(axis=0) / left
    known = sampled_RTD.var(axis=0).mean(axis=0)
    share = np.sqrt(np.clip(1 - known / np.maximum(scatter, 1e-300), 0, 1))
    mixing = np.linalg.qr(residual_TD / np.sqrt(left), mode="r")
    unsure = np.sqrt(left / rng.chisquare(left, size=(number, 1, 1)))  # as Student's t: scatter is estimated
    white = rng.normal(size=(number, points, len(mixing))) * unsure
    return sampled_RTD + persistent(white, persistence(residual_TD, known)) @ mixing * share


def _prefix_costs(position: np.ndarray, values_RnD: np.ndarray, penalty: float, shortest: int) -> np.ndarray:
    """Cost of the better of a level and a drift through the first k checkpoints, (R, n + 1)."""
    place = position - position.mean()
    count = np.arange(1, len(place) + 1.0)
    sums, squares = np.cumsum(values_RnD, axis=1), np.cumsum((values_RnD**2).sum(axis=2), axis=1)
    level = squares - (sums**2).sum(axis=2) / count
    along = np.cumsum(place[:, None] * values_RnD, axis=1) - (np.cumsum(place) / count)[:, None] * sums
    width = np.cumsum(place**2) - np.cumsum(place) ** 2 / count
    drift = level - (along**2).sum(axis=2) / np.maximum(width, 1e-300) + penalty
    cost = np.where(count > shortest, np.minimum(level, drift), level)
    return np.concatenate([np.zeros((len(cost), 1)), cost], axis=1)


def profile(position: np.ndarray, values_RnD: np.ndarray, penalty: float, shortest: int) -> np.ndarray:
    """Cost of one change at each place, (R, n - 2 shortest + 1): before checkpoint shortest, and on.

    Args:
        position: (n,) rising places.
        values_RnD: (R, n, D) z-scored curves.
        penalty: what a drift has to save.
        shortest: checkpoints on either side at least.
    """
    before = _prefix_costs(position, values_RnD, penalty, shortest)
    after = _prefix_costs(-position[::-1], values_RnD[:, ::-1], penalty, shortest)[:, ::-1]
    return (before + after)[:, shortest : len(position) - shortest + 1]


def _kept(
    position: np.ndarray, values_nD: np.ndarray, noise_RnD: np.ndarray, penalty: float, shortest: int
) -> list[int]:
    """Places that the test keeps: there the data cost no more above the best than 90 % of draws do."""
    observed = profile(position, values_nD[None], penalty, shortest)[0]
    above = observed - observed.min()
    pair = Stretches(position, values_nD, penalty, shortest)
    kept = []
    for at in np.flatnonzero(above <= PRUNE * penalty):
        curves = pair.fitted((int(at) + shortest,)) + noise_RnD
        costs = profile(position, curves, penalty, shortest)
        if above[at] <= np.quantile(costs[:, at] - costs.min(axis=1), LEVEL, method="higher") + 1e-12:
            kept.append(int(at) + shortest)
    return kept


def change_intervals(
    position: np.ndarray,
    values_TD: np.ndarray,
    breaks: Breaks,
    noise_RTD: np.ndarray,
    penalty: float,
    shortest: int,
) -> tuple[tuple[int, int], ...]:
    """For each break the first and the last place that it may have, as numbers of the checkpoint after it.

    Args:
        position: (T,) rising places.
        values_TD: (T, D) z-scored metrics.
        breaks: numbers of the first checkpoint after each change.
        noise_RTD: (R, T, D) draws of noise, in the same units.
        penalty: what a drift has to save.
        shortest: checkpoints of a phase at least.
    """
    edges = (0, *breaks, len(values_TD))
    spans = []
    for (low, at), (_, high) in pairwise(pairwise(edges)):
        part = slice(low, high)
        kept = _kept(position[part], values_TD[part], noise_RTD[:, part], penalty, shortest)
        places = [low + each for each in kept] + [at]
        spans.append((min(places), max(places)))
    return tuple(spans)
