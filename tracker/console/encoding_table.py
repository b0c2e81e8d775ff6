"""Position encodings side by side in the terminal: the paper's table 4 over training."""

from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table
from rich.text import Text

from tracker.metrics.registry import title_of

if TYPE_CHECKING:
    from tracker.analysis.schema import EncodedModel, EncodingComparison

SHOWN_STEPS = 6


def shown_steps(steps: list[int], most: int = SHOWN_STEPS) -> list[int]:
    """At most so many of the steps: the first, the last, and between them about evenly on a log axis."""
    if len(steps) <= most:
        return steps
    wanted = np.linspace(0, np.log1p(steps[-1]), most)
    places = np.log1p(np.array(steps))
    return sorted({steps[int(np.abs(places - place).argmin())] for place in wanted})


def encoding_table(entry: "EncodingComparison") -> Table:
    """Rows: metrics at some steps of training; columns: encodings; cells: mean and half width of the 95 %
    interval over seeds; a star where the end differs from the reference.

    Args:
        entry: one of the comparisons in analysis.json.
    """
    models = entry.models
    table = Table(box=None, pad_edge=False, title=_title(entry), title_justify="left")
    table.add_column("metric", no_wrap=True)
    table.add_column("step", justify="right")
    for model in models:
        own = " (own body)" if model.own_body else ""
        table.add_column(Text(f"{_short(model.model)}{own}"), justify="right", overflow="fold")
    shared = set.intersection(*(set(model.steps) for model in models))
    stars = {(each.model, each.metric) for each in entry.differences if each.matters}
    for metric in dict.fromkeys(name for model in models for name in model.metrics):
        for number, step in enumerate(shown_steps(sorted(shared))):
            last = step == max(shared)
            cells = [
                _cell(model, metric, step, last and (model.model, metric) in stars) for model in models
            ]
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


def _cell(model: "EncodedModel", metric: str, step: int, star: bool) -> str:
    band = model.metrics.get(metric)
    if band is None:
        return ""
    at = model.steps.index(step)
    mean, half = band.mean[at], band.half[at]
    if mean is None or mean != mean:
        return ""
    return f"{mean:.3g}" + ("" if half is None else f" ± {half:.1g}") + ("*" if star else "")
