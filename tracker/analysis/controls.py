"""Controls: what the same analysis reports where nothing can have changed.

T: checkpoints; D: metrics; S: sequences of the probe.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tracker.analysis.changes import SHORTEST, judge_changes
from tracker.analysis.curves import Curves, gather_curves
from tracker.analysis.noise import bend_variance, sample_variance
from tracker.analysis.phase_report import phase_curves
from tracker.analysis.schema import RunPhases, Twin
from tracker.analysis.segments import Segments
from tracker.analysis.smooth import best_drift
from tracker.analysis.trajectories import Trajectory

TWIN_STEPS = (0, 1)
"""Weights that are the same by design: Pythia's learning rate is 0 at iteration 0."""
TWIN_SUITES = ("pythia", "pythia-deduped")
"""Suites that start from the same weights."""
ALIKE = 1e-5
"""Relative difference up to which two measurements of the same weights count as the same."""
EFFORT = 1500
"""Checkpoints that the null curves of one run have in all, so that long runs get fewer curves."""
FEWEST, MOST = 8, 50
"""Null curves of each kind per run."""
FEWEST_CHECKPOINTS = 5
"""Checkpoints below which a run has no phases that could be claimed."""


def _difference(one: Trajectory, at: int, other: Trajectory, other_at: int) -> tuple[str, float] | None:
    """The metric that differs most between two checkpoints, relative to its size."""
    differences = {}
    for name in one.metrics.keys() & other.metrics.keys():
        a, b = float(one.metrics[name][at]), float(other.metrics[name][other_at])
        if np.isfinite(a) and np.isfinite(b):
            differences[name] = abs(a - b) / max(abs(a), abs(b), 1e-9)
    return max(differences.items(), key=lambda pair: pair[1]) if differences else None


def _twin(one: Trajectory, step: int, other: Trajectory, other_step: int) -> Twin | None:
    at, other_at = np.flatnonzero(one.steps == step), np.flatnonzero(other.steps == other_step)
    if not len(at) or not len(other_at):
        return None
    found = _difference(one, int(at[0]), other, int(other_at[0]))
    if found is None:
        return None
    metric, difference = found
    return Twin(
        one.model,
        one.seed,
        (one.suite, other.suite),
        (step, other_step),
        metric,
        difference,
        same=difference <= ALIKE,
    )


def find_twins(runs: Sequence[Trajectory]) -> list[Twin]:
    """Compare pairs of checkpoints that hold the same weights by design.

    Steps 0 and 1 of Pythia's suites, and step 0 of a model trained on the standard and on the deduplicated
    text.

    Args:
        runs: every trajectory of the store.
    """
    pairs = []
    for run in runs:
        if any(run.suite.startswith(name) for name in (*TWIN_SUITES, "polypythias")):
            pairs.append(_twin(run, TWIN_STEPS[0], run, TWIN_STEPS[1]))
        if run.suite == TWIN_SUITES[0]:
            pairs += [
                _twin(run, 0, other, 0)
                for other in runs
                if other.suite == TWIN_SUITES[1] and (other.model, other.seed) == (run.model, run.seed)
            ]
    return [pair for pair in pairs if pair is not None]


def _scatter(position: np.ndarray, values_TD: np.ndarray, breaks: list[int]) -> np.ndarray:
    if not breaks:
        return values_TD - best_drift(values_TD, position)
    return values_TD - Segments(position, values_TD, 0.0, SHORTEST).fitted(tuple(breaks))


@dataclass(frozen=True)
class AlarmRate:
    """How many null curves there were, and in how many of them a change was claimed."""

    curves: int = 0
    claimed: int = 0

    def counting(self, claimed: bool) -> "AlarmRate":
        """One curve more."""
        return AlarmRate(self.curves + 1, self.claimed + claimed)


@dataclass(frozen=True)
class AlarmRates:
    """Alarm rates of both kinds of null curve."""

    permuted: AlarmRate = AlarmRate()
    """The runs' own scatter about their phases, its checkpoints in random order."""
    resampled: AlarmRate = AlarmRate()
    """Flat curves with Gaussian noise as large as sequences and bends between checkpoints show."""


def alarm_rates(runs: Sequence[Trajectory], phases: Sequence[RunPhases], seed: int = 0) -> AlarmRates:
    """Count how often the analysis claims a change on curves like the store's in which there is none.

    Null curves pass the very test of the analysis, with the noise that the run's sequences show as its floor.
    Runs with fewer than five checkpoints, or where nothing varies, are left out.

    Args:
        runs: every trajectory of the store.
        phases: their entries, in the same order.
        seed: of the null curves.
    """
    rng = np.random.default_rng(seed)
    rates = AlarmRates()
    for run, entry in zip(runs, phases, strict=True):
        given = phase_curves(run)
        curves = gather_curves(run.steps, given) if len(run.steps) and given else None
        if curves is not None and len(curves.steps) >= FEWEST_CHECKPOINTS and curves.names:
            rates = _count_alarms(curves, entry, rates, rng, seed)
    return rates


def _count_alarms(
    curves: Curves, entry: RunPhases, rates: AlarmRates, rng: np.random.Generator, seed: int
) -> AlarmRates:
    position = np.log2(curves.steps + 1.0)
    values = (curves.values - curves.values.mean(axis=0)) / curves.values.std(axis=0)
    noise, floor = bend_variance(values), None
    if curves.samples is not None:
        known = np.array([sample_variance(each) for each in curves.samples])
        floor = known / curves.values.var(axis=0)
        noise = np.maximum(noise, floor)
    breaks = [int(np.searchsorted(curves.steps, point.step_high)) for point in entry.change_points]
    scatter = _scatter(position, values, breaks)

    def claims(curve: np.ndarray) -> bool:
        spread = curve.std(axis=0)
        scaled = (curve - curve.mean(axis=0)) / spread
        return judge_changes(position, scaled, None if floor is None else floor / spread**2, seed).shown

    permuted, resampled = rates.permuted, rates.resampled
    for _ in range(int(np.clip(EFFORT // len(position), FEWEST, MOST))):
        permuted = permuted.counting(claims(scatter[rng.permutation(len(values))]))
        resampled = resampled.counting(claims(np.sqrt(noise) * rng.normal(size=values.shape)))
    return AlarmRates(permuted, resampled)
