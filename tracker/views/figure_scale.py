"""Models side by side: metrics against model size, and uniform against specialised heads."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tracker.analysis.axes import AXES
from tracker.analysis.schema import ThresholdEntry
from tracker.store import Results
from tracker.views.figure_style import SOFT, empty_figure, literal, size_axis, style, titled
from tracker.views.palette import PHASES, line_colours
from tracker.views.prepared import Scale, Trajectories, read_report
from tracker.views.runs import Run, model_names, runs_of


def scale_figure(
    results: Results, analysis: Mapping[str, Any] | None, axis: str = "params_non_embedding"
) -> Figure:
    """Draw the main metrics against model size at the last step that all runs share.

    Args:
        results: an opened store.
        analysis: content of analysis.json, or None; a threshold that it claims is shaded, its 90 %
            interval dotted.
        axis: what size is measured by, one of ``tracker.analysis.axes.AXES``.

    Returns:
        A matplotlib figure: points per model and seed with 95 % intervals over sequences.
    """
    runs, report = runs_of(results), read_report(analysis)
    return draw_scale(Scale.of(Trajectories.of(runs, report), report, axis), runs)


def draw_scale(view: Scale, runs: list[Run]) -> Figure:
    """``scale_figure`` of prepared data; ``runs`` give the colours."""
    table = view.table
    if table.is_empty():
        return empty_figure("No measured checkpoint of a model whose size is known.")
    colours = {run.name: line_colours(len(model_names(runs)))[run.rank] for run in runs}
    with style():
        figure = Figure(figsize=(9.2, 5.2), layout="constrained")
        for index, name in enumerate(table["metric"].unique(maintain_order=True)):
            panel = figure.add_subplot(2, 2, index + 1)
            _scale_panel(panel, table.filter(pl.col("metric") == name), view.axis, colours)
            if name in view.thresholds:
                _shade_threshold(panel, view.thresholds[name])
        at = f"step {view.step}" if view.step is not None else "the last step of each model"
        figure.supxlabel(f"At {at}. Bars: 95 % interval over sequences.", fontsize=8, color=SOFT)
    return figure


def _scale_panel(
    axes: Axes, table: pl.DataFrame, axis: str, colours: Mapping[tuple[str, str, int], str]
) -> None:
    means = table.group_by(axis).agg(pl.col("mean").mean()).sort(axis)
    axes.plot(means[axis], means["mean"], color=SOFT, alpha=0.4, lw=1.2, zorder=1)
    tops: dict[float, tuple[float, list[str]]] = {}
    for row in table.drop_nulls("mean").to_dicts():
        colour = colours[row["suite"], row["model"], row["seed"]]
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
    axes.set_title(titled(table["metric"][0]))


def _shade_threshold(axes: Axes, threshold: ThresholdEntry) -> None:
    colour = PHASES["exploratory"]["light"]
    axes.axvspan(threshold.low or 0.0, threshold.high or 0.0, color=colour, alpha=0.15, lw=0)
    for bound in threshold.interval or ():
        axes.axvline(bound, color=colour, lw=0.9, ls=":")


def compare_figure(comparison: Mapping[str, Any]) -> Figure:
    """Draw each model's mean spectral entropy of averaged attention against its spread over heads.

    Args:
        comparison: content of compare.json.

    Returns:
        A matplotlib figure; horizontal bars: 95 % over sequences and seeds. The dotted line separates
        uniform from specialised heads.
    """
    kinds = [each for each in comparison["archetypes"] if each["kind"]]
    halves = {
        each["model"]: each["metrics"]["averaged_spectral_entropy"]["half"] or 0.0
        for each in comparison["models"]
        if "averaged_spectral_entropy" in each["metrics"]
    }
    with style():
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for colour, each in zip(line_colours(len(kinds)), kinds, strict=True):
            point = (each["entropy"], each["entropy_over_heads"])
            axes.errorbar(*point, xerr=halves[each["model"]], fmt="o", color=colour, ecolor=SOFT,
                          capsize=2, ms=7)  # fmt: skip
            axes.annotate(literal(each["model"]), point, xytext=(6, 6), textcoords="offset points",
                          fontsize=8)  # fmt: skip
        if kinds:
            limit = kinds[0]["limits"]["entropy_over_heads"]
            axes.axhline(limit, color=SOFT, lw=0.9, ls=":")
            axes.annotate("specialised above, uniform below", (1, limit),
                          xycoords=("axes fraction", "data"), xytext=(-2, 3), textcoords="offset points",
                          ha="right", fontsize=7.5, color=SOFT)  # fmt: skip
            axes.set_ylim(0, 1.2 * max(limit, *(each["entropy_over_heads"] for each in kinds)))
        axes.margins(x=0.15)
        axes.set_xlabel("spectral entropy of averaged attention (nats)")
        axes.set_ylabel("standard deviation over heads (nats)")
        axes.set_title("Uniform or specialised heads")
    return figure
