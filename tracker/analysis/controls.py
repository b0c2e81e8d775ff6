"""Controls: what the same analysis says where nothing can have changed.

T: checkpoints; D: metrics; S: sequences of the probe.
"""

from typing import Any

import numpy as np

from tracker.analysis.changes import SHORTEST, judge_changes
from tracker.analysis.curves import gather_curves
from tracker.analysis.noise import bend_variance, sample_variance
from tracker.analysis.phase_report import phase_curves
from tracker.analysis.segments import Stretches
from tracker.analysis.smooth import best_drift
from tracker.analysis.trajectories import Trajectory

Entry = dict[str, Any]
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


def _difference(one: Trajectory, at: int, other: Trajectory, other_at: int) -> tuple[str, float] | None:
    """The metric that differs most between two checkpoints, relative to its size."""
    differences = {}
    for name in one.metrics.keys() & other.metrics.keys():
        a, b = float(one.metrics[name][at]), float(other.metrics[name][other_at])
        if np.isfinite(a) and np.isfinite(b):
            differences[name] = abs(a - b) / max(abs(a), abs(b), 1e-9)
    return max(differences.items(), key=lambda pair: pair[1]) if differences else None


def _twin(one: Trajectory, step: int, other: Trajectory, other_step: int) -> Entry | None:
    at, other_at = np.flatnonzero(one.steps == step), np.flatnonzero(other.steps == other_step)
    if not len(at) or not len(other_at):
        return None
    found = _difference(one, int(at[0]), other, int(other_at[0]))
    if found is None:
        return None
    return {
        "model": one.model,
        "seed": one.seed,
        "suites": [one.suite, other.suite],
        "steps": [step, other_step],
        "metric": found[0],
        "difference": found[1],
        "same": found[1] <= ALIKE,
    }


def twins(runs: list[Trajectory]) -> list[Entry]:
    """Pairs of checkpoints that hold the same weights by design, and how far their metrics differ.

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
    return values_TD - Stretches(position, values_TD, 0.0, SHORTEST).fitted(tuple(breaks))


def alarm_rates(runs: list[Trajectory], phases: list[Entry], seed: int = 0) -> Entry:
    """How often the analysis claims a change on curves like the store's in which there is none.

    ``permuted``: the run's own scatter about its phases (about the best smooth drift where it has none), its
    checkpoints in random order. ``resampled``: a flat curve with Gaussian noise as large as sequences and
    the bends from checkpoint to checkpoint tell. Runs with fewer than five checkpoints, or where nothing
    varies, are left out.

    Args:
        runs: every trajectory of the store.
        phases: their entries, in the same order.
        seed: of the null curves.

    Returns:
        For either kind the number of curves and of those in which a change was claimed.
    """
    rng = np.random.default_rng(seed)
    counts = {kind: {"curves": 0, "claimed": 0} for kind in ("permuted", "resampled")}
    for run, entry in zip(runs, phases, strict=True):
        given = phase_curves(run)
        curves = gather_curves(run.steps, given) if len(run.steps) and given else None
        if curves is None or len(curves.steps) < 5 or not curves.names:
            continue
        position = np.log2(curves.steps + 1.0)
        values = (curves.values - curves.values.mean(axis=0)) / curves.values.std(axis=0)
        noise = bend_variance(values)
        if curves.samples is not None:
            known = np.array([sample_variance(each) for each in curves.samples])
            noise = np.maximum(noise, known / curves.values.var(axis=0))
        scatter = _scatter(
            position,
            values,
            [int(np.searchsorted(curves.steps, point["step_high"])) for point in entry["change_points"]],
        )
        for _ in range(int(np.clip(EFFORT // len(position), FEWEST, MOST))):
            shuffled = scatter[rng.permutation(len(values))]
            flat = np.sqrt(noise) * rng.normal(size=values.shape)
            for kind, curve in (("permuted", shuffled), ("resampled", flat)):
                scaled = (curve - curve.mean(axis=0)) / curve.std(axis=0)
                counts[kind]["curves"] += 1
                counts[kind]["claimed"] += judge_changes(position, scaled, None, seed).shown
    return counts
