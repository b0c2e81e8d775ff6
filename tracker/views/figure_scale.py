"""Metrics against model size, over any axis of size."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tracker.analysis.axes import AXES
from tracker.metrics.registry import metric_of, title_of
from tracker.store import Results
from tracker.views.figure_style import SOFT, empty_figure, literal, size_axis, style
from tracker.views.figure_tables import scale_table
from tracker.views.palette import PHASES, line_colours
from tracker.views.runs import Run, model_names, runs_of


def scale_figure(
    results: Results, analysis: Mapping[str, Any] | None, axis: str = "params_non_embedding"
) -> Figure:
    """The main metrics against model size at the last step that all runs share.

    Args:
        results: an opened store.
        analysis: content of analysis.json, or None; a threshold that it claims is tinted, its 90 % interval
            dotted.
        axis: what size is measured by, one of ``tracker.analysis.axes.AXES``.

    Returns:
        A matplotlib figure: points per model and seed with 95 % intervals over sequences.
    """
    return draw_scale(runs_of(results), analysis, axis)


def draw_scale(
    runs: list[Run], analysis: Mapping[str, Any] | None, axis: str = "params_non_embedding"
) -> Figure:
    """``scale_figure`` of runs that are already read."""
    table = scale_table(runs, axis)
    if table.is_empty():
        return empty_figure("No measured checkpoint of a model whose size is known.")
    found = (analysis or {}).get("thresholds", [])
    thresholds = {entry["metric"]: entry for entry in found if entry["axis"] == axis}
    colours = {run.key: line_colours(len(model_names(runs)))[run.rank] for run in runs}
    metrics = table["metric"].unique(maintain_order=True).to_list()
    steps = table["step"].unique().to_list()
    with style():
        figure = Figure(figsize=(9.2, 5.2), layout="constrained")
        for index, name in enumerate(metrics):
            panel = figure.add_subplot(2, 2, index + 1)
            _scale_panel(panel, table.filter(pl.col("metric") == name), axis, colours, steps)
            _threshold(panel, thresholds.get(name), steps)
        at = f"step {steps[0]}" if len(steps) == 1 else "the last step of each model"
        figure.supxlabel(f"At {at}. Bars: 95 % over sequences.", fontsize=8, color=SOFT)
    return figure


def _scale_panel(
    axes: Axes, table: pl.DataFrame, axis: str, colours: Mapping[str, str], steps: list[int]
) -> None:
    name = table["metric"][0]
    means = table.group_by(axis).agg(pl.col("mean").mean()).sort(axis)
    axes.plot(means[axis], means["mean"], color=SOFT, alpha=0.4, lw=1.2, zorder=1)
    tops: dict[float, tuple[float, list[str]]] = {}
    for row in table.drop_nulls("mean").to_dicts():
        colour = colours[f"{row['suite']}/{row['model']}/{row['seed']}"]
        half = 0.0 if row["high"] is None else row["high"] - row["mean"]
        fill = "none" if row["suspect"] else colour
        axes.errorbar(row[axis], row["mean"], half, fmt="o", color=colour, mfc=fill, ecolor=SOFT,
                      capsize=2, elinewidth=0.9, ms=6)  # fmt: skip
        top, models = tops.get(row[axis], (-np.inf, []))
        tops[row[axis]] = max(row["mean"] + half, top), list(dict.fromkeys([*models, row["model"]]))
    for size, (top, models) in tops.items():  # the largest of equal sizes stands on top
        axes.annotate(literal("\n".join(reversed(models))), (size, top), xytext=(0, 4),
                      textcoords="offset points", ha="center", fontsize=7.5, linespacing=0.95)  # fmt: skip
    highest = max((len(models) for _, models in tops.values()), default=1)
    axes.margins(x=0.12, y=0.12 + 0.07 * highest)
    size_axis(axes, table[axis].to_list())
    axes.set_xlabel(AXES[axis])
    title, unit = title_of(name), metric_of(name).unit
    axes.set_title(f"{title} ({unit})" if unit else title)


def _threshold(axes: Axes, threshold: Mapping[str, Any] | None, steps: list[int]) -> None:
    """Tints a threshold that is claimed at the step drawn; dotted lines bound its 90 % interval."""
    if threshold is None or threshold["low"] is None or len(steps) != 1:
        return
    if threshold["step"] not in (steps[0], "last common step"):
        return
    colour = PHASES["exploratory"]["light"]
    axes.axvspan(threshold["low"], threshold["high"], color=colour, alpha=0.15, lw=0)
    for bound in threshold.get("interval") or ():
        axes.axvline(bound, color=colour, lw=0.9, ls=":")
