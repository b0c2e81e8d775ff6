"""Locate a change at 90 %: by bootstrap over sequences, and by inverting a likelihood-ratio test.

T: checkpoints; n: those of the two segments around a change; D: metrics; S: sequences of the probe;
R: resamples, or draws of noise.
Source: inversion of the likelihood-ratio test for a change point (Worsley 1986, Biometrika 73:91;
Siegmund 1988, Ann. Inst. Statist. Math. 40:1), with the null distribution drawn, not asymptotic.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from tracker.analysis.noise import persistence, persistent
from tracker.analysis.segments import Breaks, Segments

LEVEL = 0.9
"""Coverage of the intervals."""
PRUNE = 1.5
"""Places that cost this many penalties more than the best are ruled out without a test."""
FEWEST_LEFT = 4
"""Checkpoints beyond the fitted parameters below which scatter is no estimate of noise."""


def resampled_means(samples: Sequence[np.ndarray], resamples: int, seed: int = 0) -> np.ndarray:
    """Draw means over sequences with replacement, shape (R, T, D).

    Args:
        samples: D arrays (T, S); metrics with as many sequences share each draw, since they are the
            same sequences, and so do the checkpoints.
        resamples: R.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    sizes = sorted({array.shape[1] for array in samples})
    weights = {size: rng.multinomial(size, np.full(size, 1 / size), resamples).T / size for size in sizes}
    return np.stack([array @ weights[array.shape[1]] for array in samples], axis=-1).transpose(1, 0, 2)


def bracket_confidence(found: Sequence[tuple[int, ...]], breaks: tuple[int, ...]) -> tuple[float, ...]:
    """Compute the share of resampled curves that have each break at exactly the same place."""
    return tuple(sum(place in each for each in found) / len(found) for place in breaks)


def bootstrap_spans(found: Sequence[tuple[int, ...]], breaks: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Find, for each break, the narrowest range of places that holds it in 90 % of the resampled curves.

    The break of a resampled curve is the nearest one between the neighbours of ``breaks``; curves that
    have none there are not counted.
    """
    spans = []
    for number, place in enumerate(breaks):
        low = breaks[number - 1] if number else 0
        high = breaks[number + 1] if number + 1 < len(breaks) else np.inf
        near = [
            min(there, key=lambda at, p=place: abs(at - p))
            for each in found
            if (there := [at for at in each if low < at < high])
        ]
        spans.append(_narrowest(np.sort(near), place))
    return tuple(spans)


def _narrowest(places: np.ndarray, best: int) -> tuple[int, int]:
    """The shortest segment of sorted ``places`` with LEVEL of them; of several the one around ``best``."""
    count = int(np.ceil(LEVEL * len(places)))
    if not count:
        return best, best
    starts, ends = places[: len(places) - count + 1], places[count - 1 :]
    number = int(np.lexsort((abs(starts + ends - 2 * best), ends - starts))[0])
    return int(starts[number]), int(ends[number])


def noise_draws(
    residual_TD: np.ndarray, parameters: int, sampled_RTD: np.ndarray, seed: int = 0
) -> np.ndarray:
    """Draw curves of noise alone, (R, T, D): what sequences do, and the scatter about the phases beyond it.

    Sequences do not show how far training itself wobbles from checkpoint to checkpoint. Where checkpoints
    scatter more about their phases than sequences explain, the excess is added as Gaussian noise with the
    residuals' own correlation between metrics and from checkpoint to checkpoint.

    Args:
        residual_TD: (T, D) values less the fitted phases.
        parameters: what the phases took from them, per metric.
        sampled_RTD: (R, T, D) bootstrap curves less the values.
        seed: of the Gaussian part.

    Returns:
        (R, T, D); of sequences alone where too few checkpoints are left to estimate the scatter.
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
    """Compute the cost of one change at each place from ``shortest`` on, (R, n - 2 shortest + 1).

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
    pair = Segments(position, values_nD, penalty, shortest)
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
    """Find the first and last place that each break may have, as numbers of the checkpoint after it.

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
