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
from tracker.views.figure_maps import HEAD_METRIC, draw_maps, draw_spectrograms, shown_runs
from tracker.views.figure_order import draw_checkpoints, draw_lead_lag
from tracker.views.figure_scale import draw_scale
from tracker.views.figure_style import style
from tracker.views.figures import draw_trajectories
from tracker.views.prepared import (
    Checkpoints,
    LeadLag,
    Scale,
    Spectrogram,
    Trajectories,
    map_steps,
    map_table,
    read_report,
    spectrum_table,
)
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
    """Write every view as .svg, .png and .pdf, with what it draws as .csv.

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
    """Draw every view: its name, figure and data, one after the other."""
    runs, report = runs_of(results), read_report(analysis)
    trajectories = Trajectories.of(runs, report)
    yield "phases", draw_trajectories(trajectories), trajectories.table()
    for axis in AXES:
        name = "scale" if axis == MAIN_AXIS else f"scale-{axis}"
        scale = Scale.of(trajectories, report, axis)
        yield name, draw_scale(scale, runs), scale.table
    lead_lag = LeadLag.of(trajectories, report)
    if runs:
        run = lead_lag.shown or runs[-1]
        maps = map_table(results, run, map_steps(run, trajectories.phases.get(run.name)), HEAD_METRIC)
        yield "heads", draw_maps(run, maps), maps
    spectrograms = [Spectrogram.of(results, run) for run in shown_runs(runs)]
    yield "spectrograms", draw_spectrograms(spectrograms), spectrum_table(spectrograms)
    yield "lead-lag", draw_lead_lag(lead_lag), lead_lag.table()
    checkpoints = Checkpoints.of(runs, holes_of(results))
    yield "checkpoints", draw_checkpoints(checkpoints), checkpoints.table


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Save one figure as ``stem``.svg, .png and .pdf; returns the paths."""
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
