"""The data of each view, made once from runs and report: page, figures and tables all draw these."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import polars as pl

from tracker.analysis.axes import size_on
from tracker.analysis.order import COVARIATES, USUAL
from tracker.analysis.schema import (
    AnalysisReport,
    ChangeContext,
    Phase,
    RunPhases,
    ThresholdEntry,
    to_dict,
)
from tracker.analysis.transition_types import CurveTransitions, Move
from tracker.store import SPECTRUM_BANDS, Results
from tracker.views.head_maps import HeadRows
from tracker.views.runs import Run, common_steps, records_of

PANELS = ("spectral_entropy", "frequency_selectivity", "band_power_low")
FOURTH = ("loss", "prefix_matching_score", "previous_token_score")
"""The fourth panel shows the first of these that was measured."""
LAST_COMMON = "last common step"
"""How a report may name the last step that all runs share."""
TEXTS = ("suite", "model", "metric", "state", "why", "covariate", "verdict")
WHOLE = ("seed", "step", "step_low", "step_high", "lag", "lag_low", "lag_high", "bracket_low", "bracket_high")
"""Columns that are no measured numbers."""
RunName = tuple[str, str, int]
"""Suite, model and seed."""


def read_report(analysis: Mapping[str, Any] | None) -> AnalysisReport:
    """Read the content of analysis.json, of any version; an empty report where there is none."""
    return AnalysisReport.from_dict(to_dict(analysis or {}))


def unread_sections(analysis: Mapping[str, Any] | None, report: AnalysisReport) -> list[str]:
    """Name the sections with entries that could not be read: another version wrote them."""
    sections = ("phases", "lead_lag", "thresholds", "roles", "encodings")
    stored = {name: (analysis or {}).get(name) or () for name in sections}
    read = {name: len(getattr(report, name)) for name in sections}
    return [
        name
        for name, found in stored.items()
        if not isinstance(found, list | tuple) or len(found) > read[name]
    ]


def name_of(entry: Any) -> RunName:
    """Return suite, model and seed of a run's entry."""
    return entry.suite, entry.model, entry.seed


def is_labelled(entry: RunPhases) -> bool:
    """Return whether any phase has a name."""
    return any(phase.label for phase in entry.phases)


def spans(phases: Sequence[Phase]) -> list[Phase]:
    """Return the labelled phases, neighbours of one label (with a change between them) as one."""
    groups = [list(group) for _, group in groupby(phases, key=lambda phase: phase.label)]
    return [
        Phase(group[0].label, group[0].first_step, group[-1].last_step) for group in groups if group[0].label
    ]


def move_role(found: CurveTransitions, move: Move) -> str:
    """Return what a move of the joint curve is: exploratory (the main one, where it rises), specialisation
    (the way back right after it), or nothing that has a name."""
    main = found.main
    if move is main:
        return "exploratory" if move.direction == "up" else ""
    number = found.moves.index(move)
    if main is None or number == 0 or found.moves[number - 1] is not main:
        return ""
    return "specialisation" if found.ending_at(main) is not None else ""


@dataclass(frozen=True)
class Trajectories:
    """Metrics over training with the phases of each run."""

    runs: Sequence[Run]
    metrics: list[str]
    """Of the four panels, as far as any run has them."""
    phases: dict[RunName, RunPhases]
    shown: Run | None
    """Whose phases are shaded: the largest model with labelled phases, else with change points."""
    transitions: dict[RunName, CurveTransitions] = field(default_factory=dict)
    """The joint curves; none in a report of before."""

    @classmethod
    def of(cls, runs: Sequence[Run], report: AnalysisReport) -> "Trajectories":
        """Prepare the trajectories of a store."""
        present = {name for run in runs for name in run.series}
        metrics = [name for name in PANELS if name in present]
        metrics += [name for name in FOURTH if name in present][:1]
        phases = {name_of(entry): entry for entry in report.phases}
        labelled = [run for run in runs if run.name in phases and is_labelled(phases[run.name])]
        changing = [run for run in runs if run.name in phases and phases[run.name].change_points]
        shown = max(labelled or changing, key=lambda run: run.rank, default=None)
        moves = {name_of(entry): entry.structure for entry in report.transitions if entry.steps}
        return cls(runs, metrics, phases, shown, moves)

    @property
    def labelled(self) -> list[tuple[Run, RunPhases]]:
        """The runs whose phases carry labels, with them."""
        pairs = [(run, self.phases[run.name]) for run in self.runs if run.name in self.phases]
        return [(run, entry) for run, entry in pairs if is_labelled(entry)]

    def table(self) -> pl.DataFrame:
        """suite, model, seed, step, metric, mean, low, high (95 % over sequences), q25, q75 (over heads)."""
        rows = [
            (*run.name, int(step), name, *values)
            for run in self.runs for name in self.metrics if (series := run.series.get(name)) is not None
            for step, *values in zip(run.steps, series.mean, series.mean - series.half,
                                     series.mean + series.half, series.q25, series.q75, strict=True)
        ]  # fmt: skip
        return _frame(["suite", "model", "seed", "step", "metric", "mean", "low", "high", "q25", "q75"], rows)


@dataclass(frozen=True)
class Scale:
    """The panel metrics against one axis of model size."""

    axis: str
    step: int | None
    """The last step that all runs share; None: each run stands at its own last one."""
    table: pl.DataFrame
    """suite, model, seed, the size (named as the axis), step, metric, mean, low, high, suspect."""
    thresholds: dict[str, ThresholdEntry]
    """Per metric what is claimed at this step."""

    @classmethod
    def of(cls, trajectories: Trajectories, report: AnalysisReport, axis: str) -> "Scale":
        """Prepare one axis of size; models of unknown size are left out."""
        runs = trajectories.runs
        shared = common_steps(runs)
        step = shared[-1] if shared else None
        rows: list[tuple[Any, ...]] = []
        for run in runs:
            at = len(run.steps) - 1 if step is None else int(np.searchsorted(run.steps, step))
            size = size_on(run.facts, axis)
            for name in trajectories.metrics if size else ():
                if (series := run.series.get(name)) is not None:
                    mean, half = series.mean[at], series.half[at]
                    rows.append((*run.name, size, int(run.steps[at]), name, mean, mean - half, mean + half,
                                 run.suspects[at] is not None))  # fmt: skip
        names = ["suite", "model", "seed", axis, "step", "metric", "mean", "low", "high", "suspect"]
        claimed = {
            each.metric: each
            for each in report.thresholds
            if each.axis == axis and each.low is not None and each.high is not None
            if step is not None and each.step in (step, LAST_COMMON)
        }
        return cls(axis, step, _frame(names, rows), claimed)


@dataclass(frozen=True)
class Spectrogram:
    """The mean attention spectrum of one run over training."""

    run: Run
    shares: np.ndarray
    """(T, bands) share of power, mean over heads and layers; NaN where a checkpoint has none."""

    @classmethod
    def of(cls, results: Results, run: Run) -> "Spectrogram":
        """Prepare the spectrogram of a run."""
        heads = records_of(results, run).heads(["step", "layer", "head", "spectrum"])
        means = HeadRows.of(run, heads).layer_means("spectrum")
        if means is None:
            return cls(run, np.full((len(run.steps), SPECTRUM_BANDS), np.nan))
        return cls(run, np.ma.masked_invalid(means).mean(axis=1).filled(np.nan))


def spectrum_table(spectrograms: Sequence[Spectrogram]) -> pl.DataFrame:
    """suite, model, seed, step, band_low, band_high (1 is Nyquist), share."""
    rows = [
        (*view.run.name, int(step), band / SPECTRUM_BANDS, (band + 1) / SPECTRUM_BANDS, float(share))
        for view in spectrograms for step, shares in zip(view.run.steps, view.shares, strict=True)
        for band, share in enumerate(shares) if np.isfinite(share)
    ]  # fmt: skip
    return _frame(["suite", "model", "seed", "step", "band_low", "band_high", "share"], rows)


@dataclass(frozen=True)
class LeadLag:
    """What else changes around each change of the spectrum."""

    changes: tuple[ChangeContext, ...]
    covariates: list[str]
    """The usual ones, and those of weights and states that move in any run."""
    shown: Run | None
    """The run shown first: that of the shaded phases where it changes, else the largest that does."""

    @classmethod
    def of(cls, trajectories: Trajectories, report: AnalysisReport) -> "LeadLag":
        """Prepare the changes of all runs."""
        changes = report.lead_lag
        there = {name for change in changes for name in change.covariates if name in USUAL}
        there |= {name for each in changes for name, lag in each.covariates.items() if lag.interval}
        covariates = [name for name in COVARIATES if name in there]
        changing = {name_of(change) for change in changes}
        runs = [run for run in trajectories.runs if run.name in changing]
        largest = max(runs, key=lambda run: (run.rank, -run.seed), default=None)
        preferred = trajectories.shown
        shown = preferred if preferred and preferred.name in changing else largest
        return cls(changes, covariates, shown)

    def of_run(self, run: Run) -> list[ChangeContext]:
        """The changes of one run."""
        return [change for change in self.changes if name_of(change) == run.name]

    def table(self) -> pl.DataFrame:
        """One row per change and covariate: verdict, lag in octaves, its 90 % interval, and the
        covariate's own change (bracket_low, bracket_high]."""
        rows = [
            (*name_of(change), change.step_low, change.step_high, name, each.verdict, each.lag,
             *(each.interval or (None, None)), *(each.bracket or (None, None)))
            for change in self.changes for name, each in change.covariates.items()
        ]  # fmt: skip
        names = ["suite", "model", "seed", "step_low", "step_high", "covariate", "verdict", "lag", "lag_low",
                 "lag_high", "bracket_low", "bracket_high"]  # fmt: skip
        return _frame(names, rows)


@dataclass(frozen=True)
class Checkpoints:
    """Every planned checkpoint and its state."""

    labels: dict[RunName, str]
    """How each run is named, in the order of the figure's rows."""
    table: pl.DataFrame
    """suite, model, seed, step, state (measured, suspect, failed, missing, damaged), why."""

    @classmethod
    def of(cls, runs: Sequence[Run], holes: Sequence[dict[str, Any]]) -> "Checkpoints":
        """Prepare the states of a store's checkpoints."""
        rows: list[tuple[Any, ...]] = [
            (*run.name, int(step), "suspect" if why else "measured", why)
            for run in runs for step, why in zip(run.steps, run.suspects, strict=True)
        ]  # fmt: skip
        keys = ("suite", "model", "seed", "step", "status", "reason")
        rows += [tuple(hole[key] for key in keys) for hole in holes]
        table = _frame(
            ["suite", "model", "seed", "step", "state", "why"], sorted(rows, key=lambda row: row[:4])
        )
        labels = {run.name: run.label for run in runs}
        for suite, model, seed, *_ in rows:
            labels.setdefault((suite, model, seed), f"{model} seed {seed}")
        return cls(labels, table)


def map_table(results: Results, run: Run, steps: list[int], metric: str) -> pl.DataFrame:
    """suite, model, seed, step, layer, head and the metric of every head of a run at some steps."""
    names = ["suite", "model", "seed", "step", "layer", "head", metric]
    heads = records_of(results, run).heads(names)
    return heads.filter(pl.col("step").is_in(steps)).sort("step", "layer", "head")


def map_steps(run: Run, entry: RunPhases | None, most: int = 4) -> list[int]:
    """At most so many steps of a run for its maps: the first, the last, its minimum, its phases' starts."""
    phases = entry.phases if entry else ()
    peaks = [phase.peak_step for phase in phases if phase.peak_step]
    steps = [int(step) for step in run.steps]
    chosen = [steps[0], steps[-1], *peaks[:1], *(phase.first_step for phase in phases)]
    return sorted(list(dict.fromkeys(step for step in chosen if step in steps))[:most])


def _frame(names: list[str], rows: Sequence[tuple[Any, ...]]) -> pl.DataFrame:
    kinds: dict[str, Any] = {**dict.fromkeys(TEXTS, pl.String()), **dict.fromkeys(WHOLE, pl.Int64())}
    kinds["suspect"] = pl.Boolean()
    schema = {name: kinds.get(name, pl.Float64()) for name in names}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.with_columns(pl.selectors.float().fill_nan(None))
