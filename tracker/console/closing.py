"""What a sweep ends with: a heading, a row per model, findings of one line each, and where to look."""

import textwrap
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tracker.analysis.schema import AnalysisReport
from tracker.analysis.text.closing import ModelRow, findings, model_rows
from tracker.console.output import print_line, print_table

Line = tuple[str, str]
"""A heading, empty where the line goes on with the one before, and its text."""
MOST_LINES = 25
WIDTH = 100
"""Columns where no terminal gives its own."""
LABEL = 11
"""Columns of a line's heading."""
NAME = 24
"""Columns of a model's name at most."""
GAP = 2
COLUMNS = {
    "model": "model",
    "transition": "transition",
    "onset": "onset",
    "half": "half",
    "end": "end",
    "interval": "onset-end, 90 %",
    "selectivity": "selectivity",
    "entropy": "entropy",
}
"""Fields of a row and their headings."""
DROPPED = ("end", "onset", "interval", "half", "entropy")
"""Columns that go, in this order, where the terminal is narrow."""


def print_closing(
    console: Console, heading: str, report: AnalysisReport, more: Sequence[Line], places: Sequence[Line]
) -> None:
    """Print the end of a sweep in at most ``MOST_LINES`` lines of the usual length.

    Args:
        console: where to.
        heading: what was swept.
        report: what was found.
        more: lines behind the findings, such as what is not measured.
        places: where to look, and what to do next.
    """
    lines = [*findings(report), *more]
    blocks = [_wrapped(console, block) for block in (lines, places)]
    spare = MOST_LINES - 3 - sum(len(block) + 1 for block in blocks)
    console.print()
    print_line(console, heading)
    print_models(console, report, max(spare, 3))
    for block in blocks:
        console.print()
        for line in block:
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_models(console: Console, report: AnalysisReport, most: int | None = None) -> None:
    """Print the table of models, in at most so many lines; nothing where there is no model."""
    rows = model_rows(report)
    if not rows:
        return
    cut = rows if most is None or len(rows) < most else rows[: most - 2]  # a heading, and how many more
    console.print()
    print_table(console, model_table(cut, console.width if console.is_terminal else WIDTH))
    if len(cut) < len(rows):
        print_line(console, f"... and {len(rows) - len(cut)} more models: tracker analyse lists them")


def model_table(rows: Sequence[ModelRow], width: int) -> Table:
    """Tabulate models, in as many columns as fit; a column without a value is left out."""
    texts = {name: [getattr(row, name) for row in rows] for name in COLUMNS}
    shown = {name: column for name, column in texts.items() if any(column)}
    for name in DROPPED:
        if _needed(shown) > width:
            shown.pop(name, None)
    table = Table(box=None, pad_edge=False)
    for name in shown:
        most = NAME if name == "model" else None
        table.add_column(COLUMNS[name], no_wrap=True, max_width=most, overflow="ellipsis")
    for row in rows:
        table.add_row(*(Text(getattr(row, name)) for name in shown))
    return table


def _needed(columns: dict[str, list[str]]) -> int:
    """The columns of a terminal that a table takes."""
    widths = [max(map(len, [COLUMNS[name], *texts])) for name, texts in columns.items()]
    widths[0] = min(widths[0], NAME)
    return sum(widths) + GAP * (len(widths) - 1)


def _wrapped(console: Console, lines: Sequence[Line]) -> list[str]:
    """Lines behind their headings; in a terminal what goes on stands below the text."""
    out = []
    for heading, text in lines:
        width = console.width - LABEL if console.is_terminal else len(text) + 1
        parts = textwrap.wrap(text, max(width, 20), break_long_words=False, break_on_hyphens=False)
        heads = [heading, *[""] * len(parts)]
        out += [f"{head:<{LABEL}}{part}" for head, part in zip(heads, parts, strict=False)]
    return out
