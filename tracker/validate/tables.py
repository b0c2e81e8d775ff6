"""Validation as tables for people; names from outside are never read as markup."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from tracker.analysis.assumptions import Condition
from tracker.validate.finding import Finding

VERDICTS = {True: Text("pass", "green"), False: Text("FAIL", "bold red"), None: Text("not judged", "dim")}
BY_CHANCE = Text("chance", "yellow")
SHOWN_STEPS = 3


def findings_table(title: str, findings: Sequence[Finding]) -> Table:
    """One row per experiment: what was expected, what was found, how far off it may be."""
    table = _table(title, ("experiment",), ("expected", "found", "tolerance"))
    for each in findings:
        cells = (each.experiment, each.expected, each.found, each.tolerance)
        table.add_row(*map(Text, cells), BY_CHANCE if each.by_chance else VERDICTS[each.passed])
    return table


def conditions_table(title: str, conditions: Sequence[Condition]) -> Table:
    """One row per model, seed and condition: where, how much, and the limit."""
    table = _table(title, ("suite", "model", "seed", "condition"), ("step", "value", "limit"))
    for each in conditions:
        value = "" if each.value is None else f"{each.value:.3g}"
        cells = (each.suite, each.model, str(each.seed), each.condition, _steps(each.steps), value,
                 f"{each.limit:.3g}")  # fmt: skip
        table.add_row(*map(Text, cells), VERDICTS[each.passed])
    return table


def _table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
    for heading in left:
        table.add_column(heading)
    for heading in right:
        table.add_column(heading, justify="right")
    table.add_column("verdict", no_wrap=True)
    return table


def _steps(steps: Sequence[int]) -> str:
    shown = ", ".join(map(str, steps[:SHOWN_STEPS]))
    return shown + (f" and {len(steps) - SHOWN_STEPS} more" if len(steps) > SHOWN_STEPS else "")
