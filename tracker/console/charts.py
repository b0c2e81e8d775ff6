"""Small charts in the terminal: selectivity and entropy of every run over log steps, phases marked."""

import math
from collections.abc import Sequence
from typing import Any

import polars as pl
from rich.console import Console, Group
from rich.text import Text

from tracker.metrics.registry import title_of

CURVES = {"frequency_selectivity": "cyan", "spectral_entropy": "magenta"}
"""The metrics that are drawn, and their colours; the names alone distinguish them too."""
ROWS = 2
"""Height of a curve in lines; a line has four dots."""
MOST_RUNS = 6
LABELS, NUMBERS = 24, 8
"""Columns that names and values take."""
NARROWEST, WIDEST = 24, 72
BLANK = 0x2800
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Braille: the bit of the dot at each row and column of a character."""


def places(steps: Sequence[int], width: int) -> list[int]:
    """Place steps on a log axis of ``width`` columns, from the first to the last, step 0 included."""
    logs = [math.log1p(step) for step in steps]
    low, high = min(logs), max(logs)
    span = high - low or 1.0
    return [round((each - low) / span * (width - 1)) for each in logs]


def braille(steps: Sequence[int], values: Sequence[float], width: int, rows: int = ROWS) -> list[str]:
    """Draw a curve as lines of braille characters, the largest value on top.

    Args:
        steps: increasing, at least one.
        values: as many, finite.
        width: characters in a line; each holds two dots side by side and four above one another.
        rows: lines.
    """
    dots = [[BLANK] * width for _ in range(rows)]
    low, high = min(values), max(values)
    span = high - low or 1.0
    xs = places(steps, 2 * width)
    ys = [round((high - value) / span * (4 * rows - 1)) for value in values]
    points = list(zip(xs, ys, strict=True))
    for (x0, y0), (x1, y1) in zip(points, points[1:] or points, strict=False):
        for x in range(x0, x1 + 1):
            y = y0 if x1 == x0 else round(y0 + (y1 - y0) * (x - x0) / (x1 - x0))
            dots[y // 4][x // 2] |= DOTS[y % 4][x % 2]
    return ["".join(map(chr, row)) for row in dots]


def phase_line(steps: Sequence[int], phases: Sequence[dict[str, Any]], width: int) -> str:
    """Return the phases of a run as one line: ``|initial   |exploratory  |specialisation``."""
    line = [" "] * width
    begins = [
        min(width - 1, places([*steps, phase["first_step"]], width)[-1])
        for phase in phases
        if steps[0] <= phase["first_step"] <= steps[-1]
    ]
    for begin, end, phase in zip(begins, [*begins[1:], width], phases, strict=False):
        text = f"|{phase.get('label') or ''}"[: max(1, end - begin)]
        line[begin : begin + len(text)] = text
    return "".join(line).rstrip()


def axis_line(steps: Sequence[int], width: int) -> str:
    """Return the first, the middle and the last step below the axis, which is logarithmic."""
    middle = min(steps, key=lambda step: abs(places([*steps, step], width)[-1] - width // 2))
    line = f"{steps[0]:<{width}}"
    ends = str(steps[-1])
    at = places([*steps, middle], width)[-1]
    if len(str(steps[0])) < at and at + len(str(middle)) < width - len(ends):
        line = line[:at] + str(middle) + line[at + len(str(middle)) :]
    return line[: width - len(ends)] + ends if len(steps) > 1 else line.rstrip()


def run_chart(run: pl.DataFrame, phases: Sequence[dict[str, Any]], width: int) -> Group:
    """Draw the chart of one model and seed.

    Args:
        run: its rows of the checkpoint table that are ok, in step order.
        phases: its entry's ``phases`` in ``analysis.json``.
        width: columns of the whole.
    """
    room = max(NARROWEST, min(WIDEST, width - LABELS - NUMBERS - 2))
    lines = [Text(f"{run['model'][0]} seed {run['seed'][0]}", style="bold")]
    steps: list[int] = run["step"].to_list()
    for metric, colour in CURVES.items():
        known = run.filter(pl.col(metric).is_finite())
        if known.is_empty():
            continue
        values = known[metric].to_list()
        curve = braille([*known["step"].to_list()], values, room)
        ends = [
            f"{max(values):{NUMBERS}.3g} ",
            *[" " * (NUMBERS + 1)] * (ROWS - 2),
            f"{min(values):{NUMBERS}.3g} ",
        ]
        for row, (end, dots) in enumerate(zip(ends, curve, strict=True)):
            name = title_of(metric) if row == 0 else ""
            lines.append(Text.assemble(f"  {name:<{LABELS - 2}.{LABELS - 2}}", end, (dots, colour)))
    blank = " " * (NUMBERS + 1)
    if len(phases) > 1:
        lines.append(Text(f"  {'phase':<{LABELS - 2}}{blank}{phase_line(steps, phases, room)}"))
    lines.append(Text(f"  {'step (log)':<{LABELS - 2}}{blank}{axis_line(steps, room)}", style="dim"))
    return Group(*lines)


def show_charts(console: Console, checkpoints: pl.DataFrame, phases: Sequence[dict[str, Any]]) -> None:
    """Draw every run that has at least three checkpoints; nothing where there is no terminal for it.

    Args:
        console: where to.
        checkpoints: the store's checkpoint table.
        phases: ``phases`` of ``analysis.json``.
    """
    if not console.is_terminal or not console.encoding.lower().startswith("utf"):
        return
    found = {(entry["suite"], entry["model"], entry["seed"]): entry["phases"] for entry in phases}
    measured = checkpoints.filter(pl.col("status") == "ok").sort("step")
    runs = [run for run in measured.partition_by("suite", "model", "seed") if run.height > 2]
    runs.sort(key=lambda run: (run["params_total"][0] or 0, run["model"][0], run["seed"][0]))
    for run in runs[:MOST_RUNS]:
        name = (run["suite"][0], run["model"][0], run["seed"][0])
        console.print(run_chart(run, found.get(name, []), console.width))
    if len(runs) > MOST_RUNS:
        console.print(Text(f"  ... and {len(runs) - MOST_RUNS} more runs: the dashboard draws them all"))
