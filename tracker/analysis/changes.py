"""Changes in several curves at once, and whether a smooth drift would look the same.

T: checkpoints; D: metrics; J: smooth shapes. Values are z-scored per metric.
"""

import functools
from dataclasses import dataclass

import numpy as np
import ruptures
from scipy import stats

from tracker.analysis.noise import noise_covariance, persistence, persistent
from tracker.analysis.segments import Segments
from tracker.analysis.smooth import best_drift, drift_residual, drift_shapes

SHORTEST = 2
"""Checkpoints a phase has at least."""
ALARM = 0.05
"""Chance that noise alone pays for a change; sets the penalty."""
LEVEL = 0.04
"""Changes are claimed where at most this share of simulated smooth drifts fits phases as well."""
SIMULATIONS = 199
NOTHING = 1e-9
"""Squares below which a fit is perfect."""
DRIFT_PARAMETERS = 3
"""Level, height and the choice of shape: what a fitted drift takes from the residuals."""


@dataclass(frozen=True)
class Judgement:
    """Whether there are changes, the share of smooth drifts that look so, and the price of a break."""

    shown: bool
    p_value: float
    penalty: float


@functools.lru_cache(maxsize=4096)
def _tail(freedom: float, points: int) -> float:
    return float(stats.chi2.isf(ALARM / points, freedom)) / freedom


def noise_penalty(covariance_DD: np.ndarray, points: int) -> float:
    """What one more change must save in squares: the gain that noise exceeds once in 1 / ALARM curves.

    Under noise the gain of a split is a weighted chi-square over the metrics, approximated by its first
    two moments (Satterthwaite); the number of places a split can be is paid for by Bonferroni.
    """
    total = float(np.trace(covariance_DD))
    freedom = total**2 / float((covariance_DD**2).sum())
    return total * _tail(round(freedom, 1), points)


def long_run(persistence: float) -> float:
    """Variance of a segment's mean, times its length, over half that of a difference: AR(1) noise.

    Differences between neighbours show little of noise that persists: its variance is theirs over
    (1 - r), and the mean of a segment has (1 + r) / (1 - r) of that (Anderson 1971, section 8.4).
    """
    return (1 + persistence) / (1 - persistence) ** 2


def segment(values_TD: np.ndarray, penalty: float) -> tuple[tuple[int, ...], float]:
    """The breaks that minimise squares plus ``penalty`` per break, and the sum of squares they leave."""
    search = ruptures.KernelCPD(kernel="linear", min_size=SHORTEST, jump=1)
    ends = search.fit(values_TD).predict(pen=penalty) or [len(values_TD)]
    breaks = [int(end) for end in ends[:-1]]
    starts = np.array([0, *breaks])
    counts = np.diff(np.array([*starts, len(values_TD)]))
    sums = np.add.reduceat(values_TD, starts, axis=0)
    return tuple(breaks), float((values_TD**2).sum() - (sums**2 / counts[:, None]).sum())


def phase_breaks(position: np.ndarray, values_TD: np.ndarray, penalty: float) -> tuple[int, ...]:
    """Breaks between phases that are levels or, where that pays for itself, straight drifts.

    The search is for levels; of a drift it makes a staircase, whose steps are then merged.
    """
    segments = Segments(position, values_TD, penalty, SHORTEST)
    merged = segments.merged(segment(values_TD, penalty)[0])
    return segments.moved(merged)


def phase_penalty(position: np.ndarray, values_TD: np.ndarray, floor_D: np.ndarray | None) -> float:
    """What a break between phases has to save, the scatter about the phases kept from becoming stairs.

    First as if noise were white; the persistence of what those phases leave then says how much more.
    """
    white = noise_penalty(noise_covariance(values_TD, floor_D, straight=True), len(values_TD))
    segments = Segments(position, values_TD, white, SHORTEST)
    left = values_TD - segments.fitted(phase_breaks(position, values_TD, white))
    return white * long_run(persistence(left, floor_D))


@dataclass(frozen=True)
class _Rivals:
    """How much better phases fit than one smooth drift, by two measures: one each for jumps and bends."""

    position: np.ndarray
    shapes: np.ndarray
    floor: np.ndarray | None
    persistence: float

    def ratios(self, values_TD: np.ndarray) -> np.ndarray:
        """Squares left by the best drift over those left by levels, and by levels or drifts; 0: no break."""
        points = len(values_TD)
        drift = drift_residual(values_TD - values_TD.mean(axis=0), self.shapes)
        levels = noise_penalty(noise_covariance(values_TD, self.floor), points)
        breaks, left = segment(values_TD, levels)
        jumps = drift / max(left, NOTHING) if breaks else 0.0
        penalty = self.penalty(values_TD)
        segments = Segments(self.position, values_TD, penalty, SHORTEST)
        breaks = segments.merged(segment(values_TD, penalty)[0])
        bends = drift / max(segments.residual(breaks), NOTHING) if breaks else 0.0
        return np.array([jumps, bends])

    def penalty(self, values_TD: np.ndarray) -> float:
        """What a break has to save where straight drift is no noise."""
        return noise_penalty(noise_covariance(values_TD, self.floor, straight=True), len(values_TD))


def _drift_p_value(
    centred: np.ndarray, fitted: np.ndarray, rivals: _Rivals, observed: np.ndarray, seed: int
) -> float:
    """Share of drawn drifts, with the data's own scatter, that fit phases as well; Bonferroni for two.

    The scatter is drawn in two ways, and the larger share counts: as Gaussian noise that persists from
    checkpoint to checkpoint as far as the data's does, since such noise makes levels of its own; and as the
    scatter itself in random order, since a few large deviations side by side look like a level.
    """
    rng = np.random.default_rng(seed)
    points = len(centred)
    left = (centred - fitted) * np.sqrt(points / max(points - DRIFT_PARAMETERS, 1))
    mixing = np.linalg.qr(left / np.sqrt(points), mode="r")
    enough = LEVEL / 2 * (SIMULATIONS + 1)
    beyond = np.tile(np.where(observed > 1, 0, SIMULATIONS), (2, 1))
    drawn = 0
    while drawn < SIMULATIONS and beyond.min(axis=1).max() < enough:
        noise = persistent(rng.normal(size=(points, len(mixing))), rivals.persistence) @ mixing
        for kind, scatter in enumerate((noise, left[rng.permutation(points)])):
            beyond[kind] += rivals.ratios(fitted + scatter) >= observed
        drawn += 1
    return min(1.0, 2 * float(beyond.min(axis=1).max() + 1) / (drawn + 1))


def judge_changes(
    position: np.ndarray, values_TD: np.ndarray, floor_D: np.ndarray | None = None, seed: int = 0
) -> Judgement:
    """Whether something changes in a way that neither noise nor a smooth drift explains.

    Args:
        position: (T,) rising places of the checkpoints, log2(step + 1).
        values_TD: (T, D) z-scored metrics.
        floor_D: (D,) smallest noise variance in the same units, where sequences show it.
        seed: of the simulated drifts.

    Returns:
        Judgement; its p_value is 1 where not even noise, or the best drift itself, is beaten.
    """
    centred = values_TD - values_TD.mean(axis=0)
    fitted = best_drift(centred, position)
    kept = persistence(centred - fitted, floor_D)
    rivals = _Rivals(position, drift_shapes(position), floor_D, kept)
    observed, penalty = rivals.ratios(values_TD), phase_penalty(position, values_TD, floor_D)
    if observed.max() <= 1.0:
        return Judgement(False, 1.0, penalty)
    p_value = _drift_p_value(centred, fitted, rivals, observed, seed)
    return Judgement(p_value <= LEVEL, p_value, penalty)
