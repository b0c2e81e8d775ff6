"""Figures for papers and the README, drawn with matplotlib and returned, never shown."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tracker.metrics.registry import metric_of, title_of
from tracker.records import Measurement
from tracker.store import SPECTRUM_BANDS, Results
from tracker.views.figure_style import (
    SOFT,
    empty_figure,
    end_labels,
    heat_map,
    literal,
    place,
    shade_phases,
    style,
    training_axis,
)
from tracker.views.figure_tables import head_table, panel_metrics
from tracker.views.palette import PHASES, line_colours
from tracker.views.runs import Run, model_names, runs_of

MEASURED = ("spectral_entropy", "frequency_selectivity", "band_power_low", "previous_token_score")
DASHES = ("-", "--", ":", "-.")


def phase_figure(results: Results, analysis: Mapping[str, Any] | None) -> Figure:
    """Four metrics over training, a line per model and seed, with the phases of each below.

    Args:
        results: an opened store.
        analysis: content of analysis.json, or None.

    Returns:
        A matplotlib figure. The tint behind the curves is of one model, named in the title: the largest
        whose phases carry labels. A store without measurements gives a figure that says so.
    """
    return draw_phases(runs_of(results), analysis)


def draw_phases(runs: list[Run], analysis: Mapping[str, Any] | None) -> Figure:
    """``phase_figure`` of runs that are already read."""
    metrics = panel_metrics(runs)
    if not metrics:
        return empty_figure("This store holds no measured checkpoint.")
    found = [entry for entry in (analysis or {}).get("phases", []) if _labelled(entry)]
    entries = {(entry["suite"], entry["model"], entry["seed"]): entry for entry in found}
    strip = [run for run in runs if (run.suite, run.model, run.seed) in entries]
    tinted = max(strip, key=lambda run: run.rank, default=None)
    with style():
        height = 0.45 + 0.17 * len(strip) if strip else 0.0
        figure = Figure(figsize=(9.2, 5.4 + height), layout="constrained")
        rows = 3 if strip else 2
        figure.get_layout_engine().set(h_pad=0.08, hspace=0.03)  # type: ignore[union-attr]
        grid = figure.add_gridspec(rows, 2, height_ratios=[2.45, 2.45, height][:rows])
        for index, name in enumerate(metrics):
            axes = figure.add_subplot(grid[index // 2, index % 2])
            shaded = entries[tinted.suite, tinted.model, tinted.seed] if tinted else None
            _metric_panel(axes, runs, name, shaded)
            axes.set_xlabel("" if index + 2 < len(metrics) else "training step (log)")
        if tinted:
            _phase_strip(figure.add_subplot(grid[2, :]), strip, entries)
            reading = "Bands: 95 % over sequences. Brackets: where the change lies."
            named = f"Tint behind the curves: phases of {literal(tinted.label)}. {reading}"
            figure.supxlabel(named, fontsize=8, color=SOFT)
    return figure


def _labelled(entry: Mapping[str, Any]) -> bool:
    return any(phase["label"] for phase in entry["phases"])


def _metric_panel(axes: Axes, runs: list[Run], name: str, shaded: Mapping[str, Any] | None) -> None:
    colours = line_colours(len(model_names(runs)))
    seeds = _seed_orders(runs)
    last = max(int(run.steps[-1]) for run in runs)
    training_axis(axes, last, zero=any(0 in run.steps for run in runs))
    ends: dict[str, tuple[str, list[float]]] = {}
    for run in runs:
        series = run.series.get(name)
        if series is None:
            continue
        x, colour = place(run.steps), colours[run.rank]
        doubted = np.array([why is not None for why in run.suspects])
        marker = "o" if len(run.steps) <= 60 else None
        low, high = series.mean - series.half, series.mean + series.half
        if doubted.any():  # hollow, and no part of the line
            axes.plot(x[doubted], series.mean[doubted], "o", color=colour, mfc="none", ms=4.5, mew=0.9)
            x, low, high = x[~doubted], low[~doubted], high[~doubted]
        if len(x) > 1:
            axes.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
        else:
            axes.vlines(x, low, high, color=colour, lw=1)
        style_of_seed = DASHES[seeds[run.key] % len(DASHES)]
        axes.plot(x, series.mean[~doubted], style_of_seed, color=colour, marker=marker, ms=2.6)
        finite = series.mean[np.isfinite(series.mean)]
        if len(finite):
            ends.setdefault(run.model, (colour, []))[1].append(float(finite[-1]))
    title, unit = title_of(name), metric_of(name).unit
    axes.set_title(f"{title} ({unit})" if unit else title, pad=16 if shaded else 6)
    if shaded:
        shade_phases(axes, dict(shaded))
    end_labels(axes, [(name, colour, float(np.mean(values))) for name, (colour, values) in ends.items()])


def _seed_orders(runs: list[Run]) -> dict[str, int]:
    seeds: dict[tuple[str, str], list[int]] = {}
    for run in runs:
        seeds.setdefault((run.suite, run.model), []).append(run.seed)
    return {run.key: seeds[run.suite, run.model].index(run.seed) for run in runs}


def _phase_strip(axes: Axes, runs: list[Run], entries: Mapping[tuple[str, str, int], Any]) -> None:
    for row, run in enumerate(runs):
        entry = entries[run.suite, run.model, run.seed]
        for point in entry["change_points"]:
            ends = place([point["step_low"], point["step_high"]])
            axes.plot(ends, [row, row], color=SOFT, lw=0.9, zorder=1)
        for phase in entry["phases"]:
            if phase["label"] not in PHASES:
                continue
            first, last = float(place(phase["first_step"])), float(place(phase["last_step"]))
            alpha = 0.3 if phase["label"] == "initial" else 0.75
            colour = PHASES[phase["label"]]["light"]
            axes.barh(row, last - first, left=first, height=0.6, color=colour, alpha=alpha)
            if phase.get("peak_step") is not None:
                axes.plot(place(phase["peak_step"]), row, "D", color="#1b2230", ms=3.2, zorder=3)
    training_axis(axes, max(int(run.steps[-1]) for run in runs))
    axes.set_yticks(range(len(runs)), [literal(run.label) for run in runs])
    axes.tick_params(axis="y", length=0)
    axes.grid(False)
    axes.set_ylim(-0.6, len(runs) - 0.4)
    axes.spines["left"].set_visible(False)
    axes.set_title("Phases of every model (diamond: extremum)")


def measurement_figure(measurement: Measurement) -> Figure:
    """Layer x head maps of four metrics and the mean spectrum per layer, of one checkpoint.

    Args:
        measurement: the four tables of one measured checkpoint.

    Returns:
        A matplotlib figure.
    """
    heads = measurement.heads
    metrics = [name for name in MEASURED if name in heads.columns and heads[name].null_count() < heads.height]
    if not metrics:
        return empty_figure("This measurement holds no head.")
    table = head_table(heads, metrics)
    with style():
        figure = Figure(figsize=(9.2, 5.6), layout="constrained")
        grid = figure.add_gridspec(2, 3, width_ratios=[1, 1, 1.15])
        for index, name in enumerate(metrics):
            _map_panel(figure, figure.add_subplot(grid[index // 2, index % 2]), table, name)
        if "band_0" in table.columns:
            _spectrum_panel(figure.add_subplot(grid[:, 2]), table)
        figure.suptitle(literal(_name_of(heads.row(0, named=True))), x=0.01, ha="left", fontsize=11)
    return figure


def _name_of(row: Mapping[str, Any]) -> str:
    named = [str(row[key]) for key in ("suite", "model") if row.get(key) is not None]
    return ", ".join([*named, f"step {row['step']}"] if row.get("step") is not None else named)


def _map_panel(figure: Figure, axes: Axes, table: pl.DataFrame, name: str) -> None:
    layers, heads = int(table["layer"].max()) + 1, int(table["head"].max()) + 1  # type: ignore[arg-type]
    values = np.full((layers, heads), np.nan)
    values[table["layer"], table["head"]] = table[name].fill_null(float("nan"))
    image = axes.imshow(values, cmap=heat_map(), aspect="auto", origin="lower", interpolation="nearest")
    figure.colorbar(image, ax=axes, pad=0.02, fraction=0.06).outline.set_visible(False)  # type: ignore[operator]
    axes.set_title(title_of(name))
    axes.set_xlabel("head")
    axes.set_ylabel("layer")
    axes.grid(False)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(8, integer=True))


def _spectrum_panel(axes: Axes, table: pl.DataFrame) -> None:
    bands = [f"band_{band}" for band in range(SPECTRUM_BANDS)]
    means = table.group_by("layer").agg(pl.col(bands).mean()).sort("layer")
    middle = (np.arange(SPECTRUM_BANDS) + 0.5) / SPECTRUM_BANDS
    for colour, row in zip(line_colours(means.height), means.iter_rows(), strict=True):
        outer = row[0] in (means["layer"][0], means["layer"][-1])
        shares = 100 * np.array(row[1:], dtype=float)
        axes.plot(middle, shares, color=colour, label=f"layer {row[0]}" if outer else None)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:g} %")
    axes.yaxis.set_minor_formatter(lambda share, _: f"{share:g}" if f"{share:e}"[0] in "25" else "")
    axes.set_title("Mean spectrum per layer")
    axes.set_xlabel("frequency / Nyquist")
    axes.set_ylabel("share of power in each sixteenth")
    axes.legend(frameon=False, loc="best")
