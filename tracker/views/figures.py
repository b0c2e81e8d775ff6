"""Metrics over training with phases, for papers and the README; figures are returned, never shown."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tracker.analysis.schema import RunPhases
from tracker.store import Results
from tracker.views.figure_style import (
    SOFT,
    empty_figure,
    end_labels,
    literal,
    name_phases,
    name_rows,
    place,
    shade_phases,
    style,
    titled,
    training_axis,
)
from tracker.views.figure_tints import tint_transitions
from tracker.views.palette import PHASES, line_colours
from tracker.views.prepared import Trajectories, read_report
from tracker.views.runs import Run, model_names, runs_of

DASHES = ("-", "--", ":", "-.")
MOST_MARKERS = 60
"""Runs of more checkpoints are drawn as lines without markers."""


def phase_figure(results: Results, analysis: Mapping[str, Any] | None) -> Figure:
    """Draw four metrics over training, a line per model and seed, with the phases of each below.

    Args:
        results: an opened store.
        analysis: content of analysis.json, or None.

    Returns:
        A matplotlib figure. The shading behind the curves is of one model, named in the title: the largest
        whose phases carry labels. A store without measurements gives a figure that says so.
    """
    return draw_trajectories(Trajectories.of(runs_of(results), read_report(analysis)))


def draw_trajectories(view: Trajectories) -> Figure:
    """``phase_figure`` of prepared data."""
    if not view.metrics:
        return empty_figure("This store holds no measured checkpoint.")
    strip = view.labelled
    shaded = view.shown if view.shown and strip else None
    with style():
        height = 0.45 + 0.17 * len(strip) if strip else 0.0
        figure = Figure(figsize=(9.2, 5.4 + height), layout="constrained")
        rows = 3 if strip else 2
        figure.get_layout_engine().set(h_pad=0.08, hspace=0.03)  # type: ignore[union-attr]
        grid = figure.add_gridspec(rows, 2, height_ratios=[2.45, 2.45, height][:rows])
        for index, name in enumerate(view.metrics):
            axes = figure.add_subplot(grid[index // 2, index % 2])
            _metric_panel(axes, view, name, shaded)
            axes.set_xlabel("" if index + 2 < len(view.metrics) else "training step (log)")
        if view.shown and strip:
            _strip(figure.add_subplot(grid[2, :]), view, strip)
            named = (
                f"Behind the curves: the transition of {literal(view.shown.label)}, fading over the 90 % "
                "intervals of its onset and end; line: half way. Around them: 95 % interval over sequences."
            )
            figure.supxlabel(named, fontsize=8, color=SOFT)
    return figure


def _metric_panel(axes: Axes, view: Trajectories, name: str, shaded: Run | None) -> None:
    runs = view.runs
    colours = line_colours(len(model_names(runs)))
    last = max(int(run.steps[-1]) for run in runs)
    training_axis(axes, last, zero=any(0 in run.steps for run in runs))
    ends: dict[str, tuple[str, list[float]]] = {}
    for run in runs:
        if name not in run.series:
            continue
        colour = colours[run.rank]
        _curve(axes, run, name, colour)
        mean = run.series[name].mean
        finite = mean[np.isfinite(mean)]
        if len(finite):
            ends.setdefault(run.model, (colour, []))[1].append(float(finite[-1]))
    axes.set_title(titled(name), pad=16 if shaded else 6)
    if shaded:
        if shaded.name in view.transitions:
            tint_transitions(axes, view.transitions[shaded.name])
        else:
            shade_phases(axes, view.phases[shaded.name])
        name_phases(axes, view.phases[shaded.name])
    end_labels(axes, [(model, colour, float(np.mean(ys))) for model, (colour, ys) in ends.items()])


def _curve(axes: Axes, run: Run, name: str, colour: str) -> None:
    """One run's line and interval; suspect checkpoints are hollow, and no part of the line."""
    series, suspected = run.series[name], run.suspected
    x, mean = place(run.steps), series.mean
    low, high = mean - series.half, mean + series.half
    if suspected.any():
        axes.plot(x[suspected], mean[suspected], "o", color=colour, mfc="none", ms=4.5, mew=0.9)
        x, mean, low, high = (each[~suspected] for each in (x, mean, low, high))
    if len(x) > 1:
        axes.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
    else:
        axes.vlines(x, low, high, color=colour, lw=1)
    marker = "o" if len(run.steps) <= MOST_MARKERS else None
    axes.plot(x, mean, DASHES[run.order % len(DASHES)], color=colour, marker=marker, ms=2.6)


def _strip(axes: Axes, view: Trajectories, strip: Sequence[tuple[Run, RunPhases]]) -> None:
    """A row per run: its transitions; its phases where the report is of before."""
    for row, (run, entry) in enumerate(strip):
        if run.name in view.transitions:
            tint_transitions(axes, view.transitions[run.name], row, strongest=0.85)
            continue
        for phase in entry.phases:
            if phase.label in PHASES:
                first, last = map(float, place([phase.first_step, phase.last_step]))
                alpha = 0.3 if phase.label == "initial" else 0.75
                colour = PHASES[phase.label]["light"]
                axes.barh(row, last - first, left=first, height=0.6, color=colour, alpha=alpha)
    training_axis(axes, max(int(run.steps[-1]) for run, _ in strip))
    name_rows(axes, [run.label for run, _ in strip])
    axes.grid(False)
    axes.spines["left"].set_visible(False)
    axes.set_title("Transitions by model (line: half way; diamond: turning point)")
