"""Models beside the paper's trained models: where each value lies among them."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from tracker.analysis.paper_ranges import Placed

CELL = 9
"""Least width of a column of values."""
PAPER_WIDTH = 68
"""What the columns of the paper take."""
PLACES = {"middle half": " **", "range": " * ", "below": "   ", "above": "   "}
"""How a table marks where a value lies among the paper's models."""


def paper_tables(placed: "Sequence[Placed]", width: int) -> Iterator[Table]:
    """Tabulate models beside the paper's trained models, both signals: where each value lies among them.

    Args:
        placed: ``among_paper`` of a comparison.
        width: of the terminal; models that do not fit beside each other come in further tables.
    """
    models = list(dict.fromkeys(each.model for each in placed))
    at_once = max(1, (width - PAPER_WIDTH) // (CELL + 1))
    title = "Beside the paper. **: in the middle half of 410M and more, *: in their range"
    for first in range(0, len(models), at_once):
        shown = models[first : first + at_once]
        yield _paper_table([each for each in placed if each.model in shown], shown, "" if first else title)


def _paper_table(placed: "Sequence[Placed]", models: Sequence[str], title: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), title_justify="left", title=title or None)
    table.add_column("metric", no_wrap=True)
    for heading in ("under 410M", "410M and more"):
        table.add_column(heading, justify="right", no_wrap=True)
    for model in models:
        table.add_column(Text(model), justify="right", overflow="fold", min_width=CELL, max_width=2 * CELL)
    for signal, averaged in (("averaged attention", True), ("attention rows", False)):
        table.add_row(Text(signal, style="italic"))
        those = [each for each in placed if each.metric.startswith("averaged_") == averaged]
        for metric in dict.fromkeys(each.metric for each in those):
            mine = {each.model: each for each in those if each.metric == metric}
            paper = next(iter(mine.values())).paper
            ours = [mine.get(model) for model in models]
            cells = ("" if each is None else f"{each.ours:.3g}{PLACES[each.place]}" for each in ours)
            name = metric.removeprefix("averaged_")
            table.add_row(name, _between(paper.small), _between((paper.least, paper.largest)), *cells)
    return table


def _between(ends: tuple[float, float] | None) -> str:
    return "" if ends is None else f"{ends[0]:.3g} to {ends[1]:.3g}"
