"""Head maps at a few steps, and spectrograms over training."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tracker.views.figure_style import (
    SOFT,
    empty_figure,
    heat_map,
    literal,
    place,
    style,
    titled,
    training_axis,
)
from tracker.views.prepared import Spectrogram
from tracker.views.runs import Run

HEAD_METRIC = "spectral_entropy"
MOST_RUNS = 12
"""Spectrograms in one figure: the first seed of each model, largest models first where there are more."""


def draw_maps(run: Run, table: pl.DataFrame) -> Figure:
    """Draw layer x head maps of one run, a panel per step, on one scale.

    Args:
        run: whose heads they are; the cells of suspect checkpoints are hollow.
        table: ``map_table``.
    """
    metric = table.columns[-1]
    if table[metric].null_count() == table.height:
        return empty_figure("No measured checkpoint has this metric of heads.")
    steps = table["step"].unique(maintain_order=True).to_list()
    span = (table[metric].min(), table[metric].max())
    suspects = set(run.steps[run.suspected].tolist())
    with style():
        figure = Figure(figsize=(1.2 + 2.0 * len(steps), 2.9), layout="constrained")
        panels = figure.subplots(1, len(steps), squeeze=False, sharey=True)[0]
        image = None
        for axes, step in zip(panels, steps, strict=True):
            part = table.filter(pl.col("step") == step)
            image = draw_map(axes, part, metric, span, hollow=step in suspects)
            axes.set_title(f"step {step}" + (" (suspect)" if step in suspects else ""), fontsize=9)
        panels[0].set_ylabel("layer")
        bar = figure.colorbar(image, ax=panels, pad=0.02, fraction=0.05)  # type: ignore[arg-type]
        bar.outline.set_visible(False)  # type: ignore[operator]
        title = f"{titled(metric)} by layer and head, {literal(run.label)}"
        figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    return figure


def draw_map(
    axes: Axes,
    part: pl.DataFrame,
    metric: str,
    span: tuple[Any, Any] = (None, None),
    *,
    hollow: bool = False,
) -> Any:
    """Draw one checkpoint's heads as a layer x head map; returns what a colour bar needs.

    Args:
        axes: where to.
        part: layer, head and the metric of each head.
        metric: the column.
        span: the ends of the colour scale; of the values where they are None.
        hollow: outlines instead of filled cells.
    """
    values = np.full((int(part["layer"].max()) + 1, int(part["head"].max()) + 1), np.nan)  # type: ignore[arg-type]
    values[part["layer"], part["head"]] = part[metric].fill_null(float("nan"))
    colours, (low, high) = heat_map(), span
    image = axes.imshow(values, cmap=colours, aspect="auto", origin="lower", vmin=low, vmax=high,
                        alpha=0.0 if hollow else 1.0, interpolation="nearest")  # fmt: skip
    if hollow:
        edge = colours((part[metric].to_numpy() - low) / ((high - low) or 1.0))
        axes.scatter(part["head"], part["layer"], marker="s", s=22, facecolors="none", edgecolors=edge,
                     lw=1.2)  # fmt: skip
        # The colour bar is that of filled cells.
        image = axes.imshow(values, cmap=colours, vmin=low, vmax=high, aspect="auto", visible=False)
    axes.set_xlabel("head")
    axes.grid(False)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(8, integer=True))
    return image


def shown_runs(runs: Sequence[Run]) -> list[Run]:
    """Choose the first seed of each model, at most ``MOST_RUNS`` of the largest, smallest first."""
    firsts = {run.rank: run for run in reversed(runs)}
    return [firsts[rank] for rank in sorted(firsts)][-MOST_RUNS:]


def draw_spectrograms(views: Sequence[Spectrogram]) -> Figure:
    """Draw the mean spectrum over training, a panel per run, on one logarithmic scale.

    Columns of suspect checkpoints stay empty, with a hollow mark.
    """
    with np.errstate(divide="ignore"):
        logs = [np.log10(view.shares) for view in views]
    finite = np.concatenate([log[np.isfinite(log)] for log in logs]) if logs else np.array([])
    if not len(finite):
        return empty_figure("No measured checkpoint has a spectrum.")
    span = (float(finite.min()), float(finite.max()))
    columns = min(2, len(views))
    rows = -(-len(views) // columns)
    with style():
        figure = Figure(figsize=(4.7 * columns, 0.5 + 1.75 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        image = None
        for axes, view, log in zip(panels, views, logs, strict=False):
            known = np.asarray(np.isfinite(view.shares).any(axis=1))
            if known.any():
                image = _spectrogram(axes, view.run, known, log, span)
            axes.set_title(literal(view.run.label), fontsize=9)
        for axes in panels[len(views) :]:
            axes.set_visible(False)
        for axes in panels[max(0, len(views) - columns) : len(views)]:
            axes.set_xlabel("training step (log)")
        bar = figure.colorbar(image, ax=list(panels), pad=0.01, fraction=0.03)  # type: ignore[arg-type]
        bar.ax.yaxis.set_major_formatter(lambda power, _: f"{100 * 10**power:.2g} %")
        bar.outline.set_visible(False)  # type: ignore[operator]
        bar.set_label("share of power in each of 16 bands", fontsize=8, color=SOFT)
    return figure


def _spectrogram(axes: Axes, run: Run, known: np.ndarray, log: np.ndarray, span: tuple[float, float]) -> Any:
    steps, hollow = run.steps[known], run.suspected[known]
    values = log[known].T.copy()
    values[:, hollow] = np.nan
    places = place(steps)
    inner = (places[1:] + places[:-1]) / 2
    first = 2 * places[0] - inner[0] if len(inner) else places[0] - 0.5
    last = 2 * places[-1] - inner[-1] if len(inner) else places[0] + 0.5
    edges = np.concatenate([[first], inner, [last]])
    image = axes.pcolormesh(edges, np.linspace(0, 1, len(values) + 1), values, cmap=heat_map(),
                            vmin=span[0], vmax=span[1], rasterized=True)  # fmt: skip
    if hollow.any():
        axes.plot(places[hollow], [0.5] * int(hollow.sum()), "o", mfc="none", color=SOFT, ms=4)
    training_axis(axes, int(steps.max()), zero=0 in steps, label=False)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylabel("frequency (1 = Nyquist)", fontsize=7.5)
    axes.grid(False)
    return image
