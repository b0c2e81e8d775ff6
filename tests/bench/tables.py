"""What the benchmark prints, and the machine it ran on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch
from rich.table import Table

from .race import Lane
from .shapes import Shape

Row = dict[str, str | float | None]


def machine(device: str) -> str:
    """Processor or GPU, cores, versions: in one line."""
    name = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        models = [line for line in information.read_text().splitlines() if line.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    if device == "cuda":
        name = f"{torch.cuda.get_device_name()}; {name}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores, torch {torch.__version__}, transformers {version('transformers')}"


def described(shape: Shape) -> str:
    """The shape in one line."""
    return (
        f"{shape.layers} layers, d {shape.d_model}, {shape.heads} heads, n {shape.n}, batch {shape.batch}, "
        f"{shape.dtype} on {shape.device}"
    )


def race_rows(lanes: dict[str, Lane]) -> list[Row]:
    """One row per contender; the first of them is the unit of ``times bare``, ``tracker`` of the other."""
    first = next(iter(lanes.values())).best
    unit = {name: lanes[name].best for name in ("tracker", "tracker, no scale variants") if name in lanes}
    rows: list[Row] = []
    for name, lane in lanes.items():
        against = unit.get("tracker, no scale variants" if name == "TransformerLens" else "tracker")
        rows.append(
            {
                "contender": name,
                "seconds": lane.best,
                "times bare": lane.best / first if lane.best and first else None,
                "times tracker": lane.best / against if lane.best and against else None,
                "peak MB": lane.peak / 1e6 if lane.peak is not None else None,
                "note": lane.not_run or (f"timed on {lane.share:.1%}, scaled up" if lane.share < 1 else ""),
            }
        )
    return rows


def sweep_row(axis: str, shape: Shape, lanes: dict[str, Lane]) -> Row:
    """One shape of the sweep: bare forward and tracker side by side."""
    bare, full = lanes["bare forward"], lanes["tracker"]
    known = bare.best and full.best
    return {
        "varied": axis,
        "shape": f"L {shape.layers}, H {shape.heads}, n {shape.n}, batch {shape.batch}",
        "bare s": bare.best,
        "tracker s": full.best,
        "times bare": full.best / bare.best if known and bare.best and full.best else None,
        "bare MB": bare.peak / 1e6 if bare.peak is not None else None,
        "tracker MB": full.peak / 1e6 if full.peak is not None else None,
        "note": bare.not_run or full.not_run or "",
    }


def table(title: str, rows: list[Row]) -> Table:
    """Rows as rich prints them."""
    drawn = Table(title=title, title_justify="left")
    for name in rows[0]:
        drawn.add_column(name, justify="left" if isinstance(rows[0][name], str) else "right", overflow="fold")
    for row in rows:
        drawn.add_row(*(_text(value) for value in row.values()))
    return drawn


def markdown(rows: list[Row]) -> str:
    """Rows as a table for the README."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + " --- |" * len(rows[0])]
    return "\n".join([*lines, *("| " + " | ".join(map(_text, row.values())) + " |" for row in rows)])


def _text(value: str | float | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
