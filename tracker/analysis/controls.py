"""Controls: checkpoints that hold the same weights by design must measure alike."""

from collections.abc import Sequence

import numpy as np

from tracker.analysis.schema import Twin
from tracker.analysis.trajectories import Trajectory

TWIN_STEPS = (0, 1)
"""Weights that are the same by design: Pythia's learning rate is 0 at iteration 0."""
TWIN_SUITES = ("pythia", "pythia-deduped")
"""Suites that start from the same weights."""
ALIKE = 1e-5
"""Relative difference up to which two measurements of the same weights count as the same."""


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
