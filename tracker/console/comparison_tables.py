"""Models side by side, over training beside the paper, and position encodings side by side, as tables."""

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table
from rich.text import Text

from tracker.analysis.paper_tables import TRAINING_TABLE
from tracker.analysis.text.transitions import dated
from tracker.metrics.registry import title_of

if TYPE_CHECKING:
    from tracker.analysis.comparison import Archetype, Column, Sample
    from tracker.analysis.comparison_timing import ModelTransition
    from tracker.analysis.paper_tables import PaperRow
    from tracker.analysis.schema import EncodedModel, EncodingComparison

SHOWN_STEPS = 6
MOST_COLUMNS = 6
"""Models that stand side by side; more stand below one another."""
SHORT = {
    "spectral_entropy": "entropy",
    "frequency_selectivity": "selectivity",
    "band_power_low": "low band",
    "scale_sensitivity_0.5": "S(0.5)",
    "scale_sensitivity_0.25": "S(0.25)",
}
"""Metrics of attention rows as headings of a wide table."""
ROWS = ("step", *SHORT)
AVERAGED = tuple(f"averaged_{name}" for name in SHORT)
SHORT |= {f"averaged_{name}": text for name, text in SHORT.items()}


def comparison_tables(
    found: "Sequence[Column]",
    kinds: "Sequence[Archetype]" = (),
    paper: "Sequence[PaperRow]" = (),
    transitions: "Sequence[ModelTransition]" = (),
) -> list[Table]:
    """Tabulate models side by side: mean and half width of its 95 % interval, the paper's value in brackets.

    Up to six models are columns; more are rows, in a table for each signal.

    Args:
        found: the models.
        kinds: what their heads are.
        paper: what the paper has for them.
        transitions: when each of them changes.
    """
    theirs = {(row.model, row.metric): row.paper for row in paper if row.table != TRAINING_TABLE}
    cells: dict[str, list[str]] = {"step": [str(column.step) for column in found]}
    for name in dict.fromkeys(name for column in found for name in column.samples):
        samples = [(column.samples.get(name), theirs.get((column.model, name))) for column in found]
        cells[name] = [_beside(sample, value) for sample, value in samples]
    if transitions:
        halves = [None if each.structure is None else each.structure.half for each in transitions]
        cells["transition half way"] = ["" if each is None else dated(each) for each in halves]
    if any(each.kind for each in kinds):
        cells["heads"] = [each.kind or "" for each in kinds]
    names = [
        f"{column.model} ({len(column.seeds)} seeds)" if len(column.seeds) > 1 else column.model
        for column in found
    ]
    if len(found) <= MOST_COLUMNS:
        return [_columns("", names, [(_label(name), row) for name, row in cells.items()])]
    signals = {"attention rows": ROWS, "averaged attention": AVERAGED}
    signals["others"] = tuple(name for name in cells if name not in ROWS + AVERAGED)
    tables = []
    for signal, metrics in signals.items():
        shown = [name for name in metrics if name in cells]
        rows = [(name, [cells[each][at] for each in shown]) for at, name in enumerate(names)]
        tables.append(_columns(signal, [SHORT.get(each) or _label(each) for each in shown], rows))
    return tables


def _columns(title: str, headings: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(title, no_wrap=True)
    for heading in headings:
        table.add_column(Text(heading), justify="right")
    for name, cells in rows:
        table.add_row(Text(name), *cells)
    return table


def _beside(sample: "Sample | None", theirs: float | None) -> str:
    """``0.151 ± 0.003 (0.152)``: ours, and the paper's value where it has one."""
    ours = _interval(sample.value, sample.half) if sample else ""
    return ours if theirs is None or not ours else f"{ours} ({theirs:.3g})"


def _label(name: str) -> str:
    """A metric's title; other rows are called as they are."""
    try:
        return title_of(name)
    except KeyError:
        return name


def training_table(paper: "Sequence[PaperRow]") -> Table | None:
    """Tabulate a model over training beside the paper's table 5; None where it is not in the store."""
    rows = [row for row in paper if row.table == TRAINING_TABLE]
    if not rows:
        return None
    texts = {(row.metric, row.step): f"{_interval(row.ours, row.half)} ({row.paper:.3g})" for row in rows}
    metrics = list(dict.fromkeys(row.metric for row in rows))
    steps = sorted({row.step for row in rows})
    return _columns(
        f"{rows[0].model}, step",
        [SHORT.get(each) or _label(each) for each in metrics],
        [(str(step), [texts.get((metric, step), "") for metric in metrics]) for step in steps],
    )


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
