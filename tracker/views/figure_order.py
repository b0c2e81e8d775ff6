"""What moves before, with or after each change, and which checkpoints there are, for papers."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from tracker.metrics.registry import title_of
from tracker.views.figure_style import INK, SOFT, empty_figure, literal, place, style, training_axis
from tracker.views.palette import PHASES
from tracker.views.runs import Run

VERDICTS = {
    "before": ("<", "#2a69a3"),
    "with": ("o", "#58606e"),
    "after": (">", "#b06a00"),
    "cannot tell": ("o", "#c9cbd0"),
    "still": ("_", "#e4e5e7"),
}
"""Marker and colour of each verdict; shapes tell them apart without colour."""
STATES = {
    "measured": ("o", "#2f93a6"),
    "suspect": ("o", "#b06a00"),
    "failed": ("x", INK),
    "missing": ("|", SOFT),
}


def draw_order(run: Run | None, table: pl.DataFrame) -> Figure:
    """Covariates of one run around its changes, and the verdicts over all changes counted.

    Args:
        run: whose changes the left panel shows; None where no run has any.
        table: ``order_table``.
    """
    if run is None or table.is_empty():
        return empty_figure("No change was found, so nothing moves before, with or after it.")
    names = table["covariate"].unique(maintain_order=True).to_list()
    with style():
        figure = Figure(figsize=(9.2, 1.3 + 0.42 * len(names)), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[1.7, 1], sharey=True)
        _changes(left, run, table.filter(suite=run.suite, model=run.model, seed=run.seed), names)
        _counts(right, table, names)
        handles = [Line2D([], [], marker=marker, color=colour, ls="", ms=6, label=verdict,
                          mfc="none" if verdict == "cannot tell" else colour,
                          mec=SOFT if verdict in ("cannot tell", "still") else colour)
                   for verdict, (marker, colour) in VERDICTS.items()]  # fmt: skip
        figure.legend(
            handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8
        )
    return figure


def _changes(axes: Axes, run: Run, table: pl.DataFrame, names: list[str]) -> None:
    changes = table.select("step_low", "step_high").unique(maintain_order=True).rows()
    for low, high in changes:
        axes.axvspan(*map(float, place([low, high])), color=PHASES["exploratory"]["light"], alpha=0.2, lw=0)
    for row in table.to_dicts():
        if row["verdict"] not in VERDICTS:
            continue
        turn = changes.index((row["step_low"], row["step_high"]))
        y = names.index(row["covariate"]) + (turn - (len(changes) - 1) / 2) * 0.2
        marker, colour = VERDICTS[row["verdict"]]
        moved = row["bracket_low"] is not None
        ends = place(
            [row["bracket_low"], row["bracket_high"]] if moved else [row["step_low"], row["step_high"]]
        )
        if moved:
            axes.plot(ends, [y, y], color=colour, lw=2.2, solid_capstyle="butt")
        hollow = row["verdict"] == "cannot tell"
        axes.plot(ends.mean(), y, marker, color=SOFT if hollow or not moved else colour, ms=5.5,
                  mfc="none" if hollow else colour)  # fmt: skip
    training_axis(axes, int(run.steps[-1]), zero=0 in run.steps)
    axes.set_yticks(range(len(names)), [title_of(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_title(f"{literal(run.label)}: {len(changes)} changes (shaded)")


def _counts(axes: Axes, table: pl.DataFrame, names: list[str]) -> None:
    counts = Counter(table.select("covariate", "verdict").iter_rows())
    for row, name in enumerate(names):
        left = 0
        for verdict, (_, colour) in VERDICTS.items():
            number = counts[name, verdict]
            if not number:
                continue
            axes.barh(row, number, left=left, height=0.62, color=colour, edgecolor="white", lw=0.6)
            ink = INK if verdict in ("cannot tell", "still") else "white"
            axes.text(left + number / 2, row, str(number), ha="center", va="center", fontsize=7.5, color=ink)
            left += number
    changes = table.select("suite", "model", "seed", "step_low").n_unique()
    axes.grid(False)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("changes")
    axes.set_title(f"All {changes} changes")


def largest_with_changes(runs: list[Run], analysis: Mapping[str, Any] | None) -> Run | None:
    """The run of the largest model, its first seed, that has a change with covariates."""
    changing = {(e["suite"], e["model"], e["seed"]) for e in (analysis or {}).get("lead_lag", [])}
    there = [run for run in runs if (run.suite, run.model, run.seed) in changing]
    return max(there, key=lambda run: (run.rank, -run.seed), default=None)


def draw_checkpoints(table: pl.DataFrame, labels: Mapping[tuple[str, str, int], str]) -> Figure:
    """Every checkpoint that was planned, by run and step: measured, suspect (hollow), failed or missing.

    Args:
        table: ``checkpoint_table``.
        labels: suite, model and seed -> how the run is named, in the order of the rows from the top.
    """
    if table.is_empty():
        return empty_figure("This store holds no checkpoint.")
    rows = {key: row for row, key in enumerate(labels)}
    with style():
        figure = Figure(figsize=(9.2, 1.2 + 0.24 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for state, (marker, colour) in STATES.items():
            part = table.filter(state=state)
            if part.is_empty():
                continue
            y = [rows[row] for row in part.select("suite", "model", "seed").iter_rows()]
            size, fill = (3.6 if state == "measured" else 5.5), ("none" if state == "suspect" else colour)
            told = f"{state}: {part.height}"
            axes.plot(place(part["step"]), y, marker, color=colour, ms=size, ls="", mfc=fill, label=told)
        training_axis(axes, int(table["step"].max()), zero=0 in table["step"])  # type: ignore[arg-type]
        axes.set_yticks(range(len(rows)), [literal(label) for label in labels.values()])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(False)
        figure.legend(loc="outside upper right", ncols=4, frameon=False, fontsize=8)
    return figure
