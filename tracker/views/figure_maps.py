"""What the page shows in colours, for papers: head maps at a few steps, and spectrograms over training."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tracker.metrics.registry import metric_of, title_of
from tracker.store import Results
from tracker.views.figure_style import SOFT, empty_figure, heat_map, literal, place, style, training_axis
from tracker.views.runs import Run, records_of

HEAD_METRIC = "spectral_entropy"
MOST_STEPS = 4
POINTS_WIDE, POINTS_HIGH = 115.0, 145.0
"""About the size of one panel of maps."""
MOST_RUNS = 12
"""Spectrograms in one figure: the first seed of each model, largest models first where there are more."""


def step_choice(run: Run, analysis: Mapping[str, Any] | None) -> list[int]:
    """Up to four steps that tell the story of a run: first, around its changes, extremum, last."""
    name = (run.suite, run.model, run.seed)
    found = (analysis or {}).get("phases", [])
    entry = next((each for each in found if (each["suite"], each["model"], each["seed"]) == name), None)
    peaks = [phase["peak_step"] for phase in entry["phases"] if phase.get("peak_step")] if entry else []
    starts = [phase["first_step"] for phase in entry["phases"]] if entry else []
    steps = [int(step) for step in run.steps]
    chosen = [steps[0], steps[-1], *peaks[:1], *starts]
    kept = list(dict.fromkeys(step for step in chosen if step in steps))[:MOST_STEPS]
    return sorted(kept)


def map_table(results: Results, run: Run, steps: list[int], metric: str = HEAD_METRIC) -> pl.DataFrame:
    """suite, model, seed, step, layer, head and the metric of every head of a run at some steps."""
    names = ["suite", "model", "seed", "step", "layer", "head", metric]
    heads = records_of(results, run).heads(names)
    return heads.filter(pl.col("step").is_in(steps)).sort("step", "layer", "head")


def draw_maps(run: Run, table: pl.DataFrame) -> Figure:
    """Layer x head maps of one run, a panel per step, on one scale.

    Args:
        run: whose heads they are; the cells of suspect checkpoints are hollow.
        table: ``map_table``.
    """
    metric = table.columns[-1]
    if table[metric].null_count() == table.height:
        return empty_figure("No measured checkpoint has this metric of heads.")
    steps = table["step"].unique(maintain_order=True).to_list()
    low, high = table[metric].min(), table[metric].max()
    suspects = {int(step) for step, why in zip(run.steps, run.suspects, strict=True) if why}
    with style():
        figure = Figure(figsize=(1.2 + 2.0 * len(steps), 2.9), layout="constrained")
        panels = figure.subplots(1, len(steps), squeeze=False, sharey=True)[0]
        image = None
        for axes, step in zip(panels, steps, strict=True):
            part = table.filter(pl.col("step") == step)
            image = _map(axes, part, metric, (low, high), hollow=step in suspects)
            axes.set_title(f"step {step}" + (" (suspect)" if step in suspects else ""), fontsize=9)
        panels[0].set_ylabel("layer")
        bar = figure.colorbar(image, ax=panels, pad=0.02, fraction=0.05)  # type: ignore[arg-type]
        bar.outline.set_visible(False)  # type: ignore[operator]
        unit = metric_of(metric).unit
        named = f"{title_of(metric)} ({unit})" if unit else title_of(metric)
        figure.suptitle(f"{named} of every head, {literal(run.label)}", x=0.01, ha="left", fontsize=10)
    return figure


def _map(axes: Axes, part: pl.DataFrame, metric: str, span: tuple[Any, Any], *, hollow: bool) -> Any:
    values = np.full((int(part["layer"].max()) + 1, int(part["head"].max()) + 1), np.nan)  # type: ignore[arg-type]
    values[part["layer"], part["head"]] = part[metric].fill_null(float("nan"))
    colours, (low, high) = heat_map(), span
    image = axes.imshow(values, cmap=colours, aspect="auto", origin="lower", vmin=low, vmax=high,
                        alpha=0.0 if hollow else 1.0, interpolation="nearest")  # fmt: skip
    if hollow:
        edge = colours((part[metric].to_numpy() - low) / ((high - low) or 1.0))
        axes.scatter(
            part["head"], part["layer"], marker="s", s=22, facecolors="none", edgecolors=edge, lw=1.2
        )
    axes.set_xlabel("head")
    axes.grid(False)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(8, integer=True))
    # One colour bar serves every panel, also where the cells themselves are not filled.
    return (
        axes.imshow(values, cmap=colours, vmin=low, vmax=high, aspect="auto", visible=False)
        if hollow
        else image
    )


def shown_runs(runs: list[Run]) -> list[Run]:
    """The first seed of each model, at most ``MOST_RUNS`` of the largest, smallest first."""
    firsts = {run.rank: run for run in reversed(runs)}
    return [firsts[rank] for rank in sorted(firsts)][-MOST_RUNS:]


def draw_spectrograms(runs: list[Run], table: pl.DataFrame) -> Figure:
    """The mean spectrum over training, a panel per model, on one logarithmic scale.

    Args:
        runs: what is shown; columns of suspect checkpoints stay empty, with a hollow mark.
        table: ``spectrum_table`` of them.
    """
    if table.is_empty():
        return empty_figure("No measured checkpoint has a spectrum.")
    logs = table.with_columns(pl.col("share").log10().alias("log"))
    finite = logs.filter(pl.col("log").is_finite())["log"]
    span = (finite.min(), finite.max())
    columns = min(2, len(runs))
    rows = -(-len(runs) // columns)
    with style():
        figure = Figure(figsize=(4.7 * columns, 0.5 + 1.75 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        image = None
        for axes, run in zip(panels, runs, strict=False):
            part = logs.filter(suite=run.suite, model=run.model, seed=run.seed)
            if not part.is_empty():
                image = _spectrogram(axes, run, part, span)
            axes.set_title(literal(run.label), fontsize=9)
        for axes in panels[len(runs) :]:
            axes.set_visible(False)
        for axes in panels[max(0, len(runs) - columns) : len(runs)]:
            axes.set_xlabel("training step (log)")
        bar = figure.colorbar(image, ax=list(panels), pad=0.01, fraction=0.03)  # type: ignore[arg-type]
        bar.ax.yaxis.set_major_formatter(lambda power, _: f"{100 * 10**power:.2g} %")
        bar.outline.set_visible(False)  # type: ignore[operator]
        bar.set_label("share of power in a sixteenth", fontsize=8, color=SOFT)
    return figure


def _spectrogram(axes: Axes, run: Run, part: pl.DataFrame, span: tuple[Any, Any]) -> Any:
    steps = part["step"].unique().sort().to_list()
    values = part.sort("step", "band_low")["log"].to_numpy().reshape(len(steps), -1).T.copy()
    doubted = {int(step) for step, why in zip(run.steps, run.suspects, strict=True) if why}
    hollow = [index for index, step in enumerate(steps) if step in doubted]
    values[:, hollow] = np.nan
    places = place(steps)
    inner = (places[1:] + places[:-1]) / 2
    first = 2 * places[0] - inner[0] if len(inner) else places[0] - 0.5
    last = 2 * places[-1] - inner[-1] if len(inner) else places[0] + 0.5
    edges = np.concatenate([[first], inner, [last]])
    image = axes.pcolormesh(edges, np.linspace(0, 1, len(values) + 1), values, cmap=heat_map(),
                            vmin=span[0], vmax=span[1], rasterized=True)  # fmt: skip
    if hollow:
        axes.plot(places[hollow], [0.5] * len(hollow), "o", mfc="none", color=SOFT, ms=4)
    training_axis(axes, max(steps), zero=0 in steps, label=False)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylabel("frequency / Nyquist", fontsize=7.5)
    axes.grid(False)
    return image
