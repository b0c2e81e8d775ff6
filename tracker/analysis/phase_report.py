"""Transitions and phases of every run, and of the seeds of a model together, for analysis.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import polars as pl

from tracker.analysis.labels import ENTROPY, SELECTIVITY
from tracker.analysis.order import COVARIATES, lags_of
from tracker.analysis.phases import CRITERION, Phases, phases_of
from tracker.analysis.schema import LeftOut, RunPhases, RunTransitions, SeedChanges, SharedChange
from tracker.analysis.text.phases import phase_sentence
from tracker.analysis.trajectories import Suspects, Trajectory, trajectories
from tracker.analysis.transitions import find_transitions

PHASE_METRICS = (
    ENTROPY,
    SELECTIVITY,
    "band_power_low",
    "scale_sensitivity_0.5",
    "scale_sensitivity_0.25",
    "averaged_scale_sensitivity_0.5",
    "averaged_scale_sensitivity_0.25",
)
"""Curves of the frequency structure, as far as they are measured."""


@dataclass(frozen=True)
class RunFindings:
    """What one run shows."""

    run: Trajectory
    phases: RunPhases
    transitions: RunTransitions

    def open_dates(self) -> list[tuple[int, int]]:
        """Return the intervals of every change point and of the half of every move: what more checkpoints
        would narrow."""
        halves = [move.half.interval for move in self.transitions.structure.moves]
        return [*(point.reach for point in self.phases.change_points), *halves]


def _measured(run: Trajectory, name: str) -> bool:
    return bool(np.isfinite(run.metrics.get(name, np.nan)).any())


def run_curves(
    run: Trajectory, names: Sequence[str], best: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the run's curves: of the best head where there is one, else samples (T, S), else means (T,).

    Args:
        run: the trajectory.
        names: the metrics wanted; those without a value are left out.
        best: name -> (T,) the score of the best head.
    """
    curves = {name: best[name] for name in names if name in best}
    wanted = [name for name in names if name not in best and _measured(run, name)]
    return curves | {name: run.samples.get(name, run.metrics[name]) for name in wanted}


def find_run(run: Trajectory, best: Mapping[str, np.ndarray] | None = None) -> RunFindings:
    """Find the transitions and phases of one run and say what they show.

    Args:
        run: the trajectory.
        best: name -> (T,) scores of the best head, in place of means over heads.
    """
    structure = run_curves(run, PHASE_METRICS, {})
    left_out = tuple(LeftOut(step, reason) for step, reason in run.left_out)
    entry = RunPhases(
        run.suite, run.model, run.seed, tuple(map(int, run.steps)), criterion=CRITERION, left_out=left_out
    )
    moves = RunTransitions(run.suite, run.model, run.seed, entry.steps)
    if len(run.steps) and structure:
        found = find_transitions(run.steps, structure | run_curves(run, COVARIATES, best or {}))
        entry = _with_phases(entry, phases_of(found, structure))
        moves = replace(moves, curves=found.curves, structure=found.structure)
    return RunFindings(run, replace(entry, sentence=phase_sentence(entry, moves)), moves)


def _with_phases(entry: RunPhases, found: Phases) -> RunPhases:
    return replace(
        entry,
        steps=found.steps,
        metrics=found.metrics,
        change_points=found.change_points,
        phases=found.phases,
        p_value=found.p_value,
        note=found.note,
    )


def analyse_phases(
    checkpoints: pl.DataFrame, sequences: pl.DataFrame | None = None, suspects: Suspects | None = None
) -> list[tuple[Trajectory, RunPhases]]:
    """Find the phases of every run, and nothing else.

    Args:
        checkpoints, sequences, suspects: as for ``tracker.analysis.analyse``.
    """
    runs = trajectories(checkpoints, sequences, suspects)
    return [(run, find_run(run).phases) for run in runs]


def seed_changes(found: Sequence[RunFindings]) -> list[SeedChanges]:
    """Find the moves of the mean over seeds, for every model with two measured seeds or more.

    Args:
        found: what its runs show, sorted by suite and model.
    """
    together = []
    for _, members in groupby(found, key=lambda each: (each.run.suite, each.run.model)):
        measured = [each for each in members if len(each.run.steps)]
        if len(measured) > 1:
            together.append(_seeds_together(measured))
    return together


def _seeds_together(found: Sequence[RunFindings]) -> SeedChanges:
    """Moves of the mean over the seeds of one model, and how many seeds share each change."""
    runs = [each.run for each in found]
    common = sorted(set.intersection(*(set(map(int, run.steps)) for run in runs)))
    report = SeedChanges(runs[0].suite, runs[0].model, tuple(run.seed for run in runs), tuple(common))
    curves, others = (_seed_curves(runs, common, names) for names in (PHASE_METRICS, COVARIATES))
    if not common or not curves:
        return replace(report, note="the seeds share no measured checkpoint")
    moves = find_transitions(common, curves | others)
    phases = phases_of(moves, curves)
    points = tuple(
        SharedChange(
            point.step_low, point.step_high, point.confidence, point.interval,
            sum(any(point.overlaps(other) for other in each.phases.change_points) for each in found),
        )
        for point in phases.change_points
    )  # fmt: skip
    main = moves.structure.main
    return replace(
        report,
        change_points=points,
        p_value=phases.p_value,
        note=phases.note,
        curves=moves.curves,
        structure=moves.structure,
        covariates=lags_of(main, {name: moves.curves[name] for name in others}) if main else {},
    )


def _seed_curves(runs: Sequence[Trajectory], steps: list[int], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Metrics that every seed has, (T, 1, K)."""
    rows = [np.searchsorted(run.steps, steps) for run in runs]
    return {
        name: np.stack([run.metrics[name][at] for run, at in zip(runs, rows, strict=True)], axis=1)[:, None]
        for name in names
        if all(_measured(run, name) for run in runs)
    }
