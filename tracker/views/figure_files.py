"""Writes the figures of a store as SVG, PNG and PDF, each with its data as CSV."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
from matplotlib.figure import Figure

from tracker.analysis.axes import AXES
from tracker.errors import StoreError
from tracker.store import Results
from tracker.views.figure_maps import draw_maps, draw_spectrograms, map_table, shown_runs, step_choice
from tracker.views.figure_order import draw_checkpoints, draw_order, largest_with_changes
from tracker.views.figure_scale import draw_scale
from tracker.views.figure_style import style
from tracker.views.figure_tables import (
    checkpoint_table,
    order_table,
    phase_table,
    scale_table,
    spectrum_table,
)
from tracker.views.figures import draw_phases
from tracker.views.runs import holes_of, runs_of

MAIN_AXIS = "params_non_embedding"
METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
    "png": {"Software": None},
}
"""No dates: the same store gives the same bytes."""
DOTS_PER_INCH = 200


def write_figures(
    results: Results, analysis: Mapping[str, Any] | None, folder: str | os.PathLike[str]
) -> list[Path]:
    """Writes every view as .svg, .png and .pdf, with what it draws as .csv.

    ``phases``, ``scale`` and ``scale-<axis>``, ``heads``, ``spectrograms``, ``lead-lag``, ``checkpoints``.

    Args:
        results: an opened store.
        analysis: content of analysis.json, or None.
        folder: where to write; made if it is not there.

    Returns:
        The paths written.

    Raises:
        StoreError: the store cannot be read, or the folder cannot be written.
    """
    folder = Path(folder)
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure, table in drawn_views(results, analysis):
            written += save_figure(figure, folder / name)
            table.write_csv(folder / f"{name}.csv")
            written.append(folder / f"{name}.csv")
    except OSError as error:
        raise StoreError(f"cannot write the figures to {folder}: {error}; free or change it") from error
    return written


def drawn_views(
    results: Results, analysis: Mapping[str, Any] | None
) -> Iterator[tuple[str, Figure, pl.DataFrame]]:
    """Name, figure and data of every view, one after the other."""
    runs = runs_of(results)
    yield "phases", draw_phases(runs, analysis), phase_table(runs)
    for axis in AXES:
        name = "scale" if axis == MAIN_AXIS else f"scale-{axis}"
        yield name, draw_scale(runs, analysis, axis), scale_table(runs, axis)
    if runs:
        run = largest_with_changes(runs, analysis) or runs[-1]
        maps = map_table(results, run, step_choice(run, analysis))
        yield "heads", draw_maps(run, maps), maps
    shown = shown_runs(runs)
    spectra = spectrum_table(results, shown)
    yield "spectrograms", draw_spectrograms(shown, spectra), spectra
    order = order_table(analysis)
    yield "lead-lag", draw_order(largest_with_changes(runs, analysis), order), order
    holes = holes_of(results)
    there = checkpoint_table(runs, holes)
    keys = there.select("suite", "model", "seed").unique(maintain_order=True).rows()
    labels = {(run.suite, run.model, run.seed): run.label for run in runs}
    labels |= {key: f"{key[1]} seed {key[2]}" for key in keys if key not in labels}
    yield "checkpoints", draw_checkpoints(there, labels), there


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Saves one figure as ``stem``.svg, .png and .pdf; returns the paths."""
    written = []
    with style():
        # The layout is worked out once, not for every format again.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for kind, metadata in METADATA.items():
            path = stem.with_name(f"{stem.name}.{kind}")
            figure.savefig(path, format=kind, dpi=DOTS_PER_INCH, metadata=metadata)
            written.append(path)
    return written
