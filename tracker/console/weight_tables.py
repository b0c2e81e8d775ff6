"""The table of ``tracker weights``: a run's matrices and circuits, at its first and its last checkpoint."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from tracker.analysis.text import number
from tracker.metrics.table import CIRCUITS, MATRICES

MEASURES = ("stable_rank", "effective_rank", "spectral_norm", "outlier_ratio")
ROTARY = {"rotary_place": "mean place", "rotary_high": "highest quarter", "rotary_low": "lowest quarter"}


def weights_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Make the table of one run.

    Args:
        title: names the run.
        rows: its checkpoint rows in order of steps; the first and the last are shown.
    """
    first, last = rows[0], rows[-1]
    steps = f"step {first['step']} -> {last['step']}" if len(rows) > 1 else f"step {first['step']}"
    table = Table(box=None, pad_edge=False, title=f"{title}, {steps}", title_justify="left")
    table.add_column("mean over layers", no_wrap=True)
    for measure in MEASURES:
        table.add_column(measure.replace("_", " "), justify="right", no_wrap=True)
    for part, name in (
        *MATRICES.items(),
        *((part, f"{name}, heads") for part, (name, _) in CIRCUITS.items()),
    ):
        cells = [_moved(first, last, f"{measure}_{part}") for measure in MEASURES]
        if any(cells):
            table.add_row(name, *cells)
    return table


def rotary_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say which rotary frequencies the heads of a run use; nothing where they do not rotate."""
    lines = []
    for part in ("q", "k"):
        found = {name: _moved(rows[0], rows[-1], f"{column}_{part}") for column, name in ROTARY.items()}
        if any(found.values()):
            said = ", ".join(f"{name} {moved}" for name, moved in found.items() if moved)
            lines.append(f"Norm of {MATRICES[part]} by rotary frequency (0 highest, 1 lowest): {said}")
    return lines


def _moved(first: Mapping[str, Any], last: Mapping[str, Any], column: str) -> str:
    values = [row.get(column) for row in (first, last)]
    if all(value is None for value in values):
        return ""
    before, after = ("?" if value is None else number(value) for value in values)
    return before if first is last else f"{before} -> {after}"
