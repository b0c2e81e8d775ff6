"""Phases of every run, and of the seeds of a model together, for analysis.json."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
import polars as pl

from tracker.analysis.labels import ENTROPY, SELECTIVITY
from tracker.analysis.phases import CRITERION, find_phases
from tracker.analysis.schema import LeftOut, RunPhases, SeedChanges, SharedChange
from tracker.analysis.text.phases import phase_sentence
from tracker.analysis.trajectories import Suspects, Trajectory, trajectories

PHASE_METRICS = (
    ENTROPY,
    SELECTIVITY,
    "band_power_low",
    "scale_sensitivity_0.5",
    "scale_sensitivity_0.25",
    "averaged_scale_sensitivity_0.5",
    "averaged_scale_sensitivity_0.25",
)
"""Curves that phases are read from, as far as they are measured."""


def _measured(run: Trajectory, name: str) -> bool:
    return bool(np.isfinite(run.metrics.get(name, np.nan)).any())


def phase_curves(run: Trajectory) -> dict[str, np.ndarray]:
    """Return the run's phase metrics: samples (T, S) where every one has some, else means (T,)."""
    names = [name for name in PHASE_METRICS if _measured(run, name)]
    if all(name in run.samples for name in names):
        return {name: run.samples[name] for name in names}
    return {name: run.metrics[name] for name in names}


def run_phases(run: Trajectory) -> RunPhases:
    """Find the phases of one run and say what they show."""
    curves = phase_curves(run)
    left_out = tuple(LeftOut(step, reason) for step, reason in run.left_out)
    entry = RunPhases(
        run.suite, run.model, run.seed, tuple(map(int, run.steps)), criterion=CRITERION, left_out=left_out
    )
    if len(run.steps) and curves:
        found = find_phases(run.steps, curves)
        entry = replace(
            entry,
            steps=found.steps,
            metrics=found.metrics,
            change_points=found.change_points,
            phases=found.phases,
            p_value=found.p_value,
            note=found.note,
        )
    return replace(entry, sentence=phase_sentence(entry))


def analyse_phases(
    checkpoints: pl.DataFrame, sequences: pl.DataFrame | None = None, suspects: Suspects | None = None
) -> list[tuple[Trajectory, RunPhases]]:
    """Find the phases of every run, and nothing else.

    Args:
        checkpoints, sequences, suspects: as for ``tracker.analysis.analyse``.
    """
    return [(run, run_phases(run)) for run in trajectories(checkpoints, sequences, suspects)]


def seed_changes(runs: Sequence[Trajectory], phases: Sequence[RunPhases]) -> list[SeedChanges]:
    """Find the changes of the mean over seeds, for every model with two measured seeds or more.

    Args:
        runs: the trajectories, sorted by suite and model.
        phases: their own entries, in the same order.
    """
    together = []
    pairs = zip(runs, phases, strict=True)
    for _, members in groupby(pairs, key=lambda pair: (pair[0].suite, pair[0].model)):
        measured = [(run, entry) for run, entry in members if len(run.steps)]
        if len(measured) > 1:
            together.append(_mean_changes(*map(list, zip(*measured, strict=True))))
    return together


def _mean_changes(runs: list[Trajectory], entries: list[RunPhases]) -> SeedChanges:
    """Changes of the mean over the seeds of one model, and how many seeds share each."""
    common = sorted(set.intersection(*(set(map(int, run.steps)) for run in runs)))
    rows = [np.searchsorted(run.steps, common) for run in runs]
    names = [name for name in PHASE_METRICS if all(_measured(run, name) for run in runs)]
    curves = {
        name: np.stack([run.metrics[name][at] for run, at in zip(runs, rows, strict=True)], axis=1)
        for name in names
    }
    report = SeedChanges(runs[0].suite, runs[0].model, tuple(run.seed for run in runs), tuple(common))
    if not common or not names:
        return replace(report, note="the seeds share no measured checkpoint")
    found = find_phases(common, curves)
    points = tuple(
        SharedChange(
            point.step_low,
            point.step_high,
            point.confidence,
            point.interval,
            sum(any(point.overlaps(other) for other in entry.change_points) for entry in entries),
        )
        for point in found.change_points
    )
    return replace(report, change_points=points, p_value=found.p_value, note=found.note)
