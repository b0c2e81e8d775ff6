"""Tables in the terminal: the plan, an audit, models side by side, position encodings side by side."""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table
from rich.text import Text

from tracker.checkpoints.audit.findings import FAULTS
from tracker.metrics.registry import title_of
from tracker.planning.plan import Plan
from tracker.records import PlannedUnit

if TYPE_CHECKING:
    from tracker.analysis.comparison import Column
    from tracker.analysis.paper_ranges import Placed
    from tracker.analysis.schema import EncodedModel, EncodingComparison
    from tracker.checkpoints.audit.file import RepoAudit

SHOWN_STEPS = 6
CELL = 9
"""Least width of a column of values."""
PAPER_WIDTH = 68
"""What the columns of the paper take."""
PLACES = {"middle half": " **", "range": " * ", "below": "   ", "above": "   "}
"""How a table marks where a value lies among the paper's models."""


def by_model(units: tuple[PlannedUnit, ...]) -> dict[str, list[PlannedUnit]]:
    """Group planned units by model and seed, in plan order."""
    groups: dict[str, list[PlannedUnit]] = {}
    for planned in units:
        checkpoint = planned.unit.checkpoint
        groups.setdefault(f"{checkpoint.model} seed {checkpoint.seed}", []).append(planned)
    return groups


def plan_table(plan: Plan, rows: dict[str, tuple[str, str, str, str]]) -> Table:
    """Tabulate the plan by model: how many units are in each state, how it is run, bytes to fetch and time.

    Args:
        plan: the units.
        rows: per ``model seed s`` four texts: how many are suspect, how it is run, bytes to fetch,
            expected time.
    """
    table = Table(box=None, pad_edge=False)
    for heading in ("model", "steps"):
        table.add_column(heading, no_wrap=True)
    for heading in ("units", "done", "to do", "failed", "missing", "suspect", "run", "to fetch", "expected"):
        table.add_column(heading, no_wrap=True, justify="right")
    for name, units in by_model(plan.units).items():
        part = Plan(tuple(units))
        steps = [planned.unit.checkpoint.step for planned in units]
        cells = [
            f"{min(steps)} to {max(steps)}",
            len(units),
            part.count("done"),
            part.count("to do"),
            part.count("retry"),
            part.count("missing", "known missing"),
            *rows.get(name, ("", "", "", "")),
        ]
        table.add_row(name, *map(str, cells))
    return table


def audit_table(entries: "Sequence[RepoAudit]") -> Table:
    """Tabulate an audit, a row per repository or folder: how many steps have each fault.

    Args:
        entries: ``repos`` of audit.json.
    """
    table = Table(box=None, pad_edge=False)
    table.add_column("repository", overflow="fold", min_width=24)
    for heading in ("checked", *(fault.replace("-", "\n", 1) for fault in FAULTS)):
        table.add_column(heading, overflow="fold", justify="right")
    for entry in entries:
        counts = Counter(finding.fault for finding in entry.findings)
        table.add_row(Text(entry.repo), str(len(entry.checked)), *(str(counts[each]) for each in FAULTS))
    return table


def comparison_table(found: "Sequence[Column]") -> Table:
    """Tabulate models as columns, metrics as rows: mean and half width of its 95 % interval."""
    table = Table(box=None, pad_edge=False)
    table.add_column("at its checkpoint", no_wrap=True)
    for column in found:
        seeds = f" ({len(column.seeds)} seeds)" if len(column.seeds) > 1 else ""
        table.add_column(Text(f"{column.model}{seeds}"), justify="right")
    table.add_row("step", *(str(column.step) for column in found))
    for name in dict.fromkeys(name for column in found for name in column.samples):
        samples = [column.samples.get(name) for column in found]
        table.add_row(name, *(_interval(each.value, each.half) if each else "" for each in samples))
    return table


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


def shown_steps(steps: list[int], most: int = SHOWN_STEPS) -> list[int]:
    """Choose at most so many steps: the first, the last, and between them about evenly on a log axis."""
    if len(steps) <= most:
        return steps
    wanted = np.linspace(0, np.log1p(steps[-1]), most)
    places = np.log1p(np.array(steps))
    return sorted({steps[int(np.abs(places - place).argmin())] for place in wanted})


def encoding_table(entry: "EncodingComparison") -> Table:
    """Tabulate position encodings, as the paper's table 4 over training.

    Rows: metrics at some steps of training; columns: encodings; cells: mean and half width of the 95 %
    interval over seeds; a star where the end differs from the reference.

    Args:
        entry: one of the comparisons in analysis.json.
    """
    models = entry.models
    table = Table(box=None, pad_edge=False, title=_title(entry), title_justify="left")
    table.add_column("metric", no_wrap=True)
    table.add_column("step", justify="right")
    for model in models:
        own = " (own architecture)" if model.own_body else ""
        table.add_column(Text(f"{_short(model.model)}{own}"), justify="right", overflow="fold")
    shared = set.intersection(*(set(model.steps) for model in models))
    stars = {(each.model, each.metric) for each in entry.differences if each.matters}
    for metric in dict.fromkeys(name for model in models for name in model.metrics):
        for number, step in enumerate(shown_steps(sorted(shared))):
            last = step == max(shared)
            cells = [_encoding_cell(model, metric, step, stars if last else ()) for model in models]
            table.add_row("" if number else title_of(metric), str(step), *cells, end_section=last)
    for label in ("exploratory", "specialisation"):
        counts = [f"{model.phases[label]} of {len(model.seeds)}" for model in models]
        table.add_row(f"Runs with phase {label}", "", *counts)
    return table


def _title(entry: "EncodingComparison") -> str:
    seeds = sorted({len(model.seeds) for model in entry.models})
    return (
        f"{entry.suite}, {entry.reference}: {' or '.join(map(str, seeds))} seeds, mean and half width "
        "of the 95% interval over seeds; *: differs from the first column at the end"
    )


def _short(model: str) -> str:
    size, _, encoding = model.partition("-")
    return encoding or f"{size} (rotary)"


def _encoding_cell(model: "EncodedModel", metric: str, step: int, marked: Collection[tuple[str, str]]) -> str:
    band = model.metrics.get(metric)
    if band is None:
        return ""
    at = model.steps.index(step)
    star = "*" if (model.model, metric) in marked else ""
    return _interval(band.mean[at], band.half[at]) + star


def _interval(mean: float | None, half: float | None) -> str:
    """``3.61 ± 0.02``; empty where there is no mean."""
    if mean is None or math.isnan(mean):
        return ""
    return f"{mean:.3g}" + ("" if half is None else f" ± {half:.1g}")
