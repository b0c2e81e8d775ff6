"""Writes the figures of a store as SVG, PNG and PDF, each with its data as CSV."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from tracker.errors import StoreError
from tracker.store import Results
from tracker.views.figure_style import style
from tracker.views.figure_tables import phase_table, scale_table
from tracker.views.figures import draw_phases, draw_scale
from tracker.views.runs import runs_of

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
    """Writes ``phases`` and ``scale`` as .svg, .png, .pdf and .csv.

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
    runs = runs_of(results)
    made = (
        ("phases", draw_phases(runs, analysis), phase_table(runs)),
        ("scale", draw_scale(runs, analysis), scale_table(runs)),
    )
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure, table in made:
            written += save_figure(figure, folder / name)
            table.write_csv(folder / f"{name}.csv")
            written.append(folder / f"{name}.csv")
    except OSError as error:
        raise StoreError(f"cannot write the figures to {folder}: {error}; free or change it") from error
    return written


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Saves one figure as ``stem``.svg, .png and .pdf; returns the paths."""
    written = []
    with style():
        for kind, metadata in METADATA.items():
            path = stem.with_name(f"{stem.name}.{kind}")
            figure.savefig(path, format=kind, dpi=DOTS_PER_INCH, metadata=metadata)
            written.append(path)
    return written
