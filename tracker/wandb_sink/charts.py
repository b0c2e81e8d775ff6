"""Custom charts of the W&B workspace, in Vega-Lite: each draws a table in the summary of every run."""

from dataclasses import dataclass
from math import sqrt
from typing import Any

import polars as pl

from tracker.analysis.schema import RunTransitions
from tracker.analysis.transition_types import Passing
from tracker.wandb_sink.rows import Scalar

SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
HEAD_METRICS = (
    "spectral_entropy", "frequency_selectivity", "band_power_low", "previous_token_score",
    "prefix_matching_score",
)  # fmt: skip
"""Metrics of every head at the last checkpoint; a head map shows one of them."""
HEAD_COLUMNS = ("run", "params", "step", "layer", "head")
PHASE_COLUMNS = ("run", "params", "move", "pace", "earliest", "onset", "half", "end", "latest")
MOVES = {"exploratory": "#d98a00", "specialisation": "#3d8f63", "other move": "#8a8f98"}
"""Colours as on the dashboard's page."""


@dataclass(frozen=True)
class Table:
    """A table that a run carries, as W&B keeps them."""

    columns: tuple[str, ...]
    rows: list[list[Scalar | None]]


@dataclass(frozen=True)
class Chart:
    """One chart of the user's W&B entity, and the table that it draws."""

    name: str
    """Ends in a version: a chart that was made is never changed."""
    title: str
    table: str
    """The table's name in the summary of a run."""
    spec: dict[str, Any]


def phase_table(entry: RunTransitions, name: str, size: Scalar | None) -> Table:
    """Tabulate the moves of a run's attention spectrum, a row each, or one of nulls; steps are step + 1.

    Args:
        entry: the run's transitions.
        name: the run's.
        size: its non-embedding parameters.
    """
    structure = entry.structure
    if not structure.moves:
        return Table(PHASE_COLUMNS, [[name, size, *[None] * (len(PHASE_COLUMNS) - 2)]])
    rows: list[list[Scalar | None]] = [
        [
            *(name, size, structure.role_of(move) or "other move", move.pace, move.onset.interval[0] + 1),
            *(_middle(move.onset), _middle(move.half), _middle(move.end), move.end.interval[1] + 1),
        ]
        for move in structure.moves
    ]
    return Table(PHASE_COLUMNS, rows)


def _middle(passing: Passing) -> float:
    """The middle of the enclosing checkpoints on the log axis of step + 1."""
    return round(sqrt((passing.step_low + 1) * (passing.step_high + 1)), 4)


def head_table(heads: pl.DataFrame, name: str, size: Scalar | None, step: int) -> Table:
    """Tabulate every head of a run's last checkpoint, a row each.

    Args:
        heads: layer, head and ``HEAD_METRICS``.
        name: the run's.
        size: its non-embedding parameters.
        step: of the checkpoint.
    """
    shown = heads.select("layer", "head", pl.col(HEAD_METRICS).fill_nan(None)).sort("layer", "head")
    rows: list[list[Scalar | None]] = [[name, size, step, *row] for row in shown.iter_rows()]
    return Table((*HEAD_COLUMNS, *HEAD_METRICS), rows)


def _field(name: str, kind: str, **more: Any) -> dict[str, Any]:
    return {"field": f"${{field:{name}}}", "type": kind, **more}


def _by_size(name: str) -> dict[str, Any]:
    return _field(name, "nominal", sort={"field": "${field:params}", "op": "min"}, title=None)


def _phase_spec() -> dict[str, Any]:
    """A row per run: pale over the 90 % interval, full from onset to end, a tick at the half."""
    colour = _field(
        "move",
        "nominal",
        title=None,
        scale={"domain": list(MOVES), "range": list(MOVES.values())},
        legend={"symbolOpacity": 1},
    )
    tooltip = [
        _field(name, "nominal" if name in ("run", "move", "pace") else "quantitative", title=title)
        for name, title in (
            ("run", "run"), ("move", "move"), ("pace", "pace"), ("earliest", "earliest (step + 1)"),
            ("onset", "onset"), ("half", "half"), ("end", "end"), ("latest", "latest"),
        )
    ]  # fmt: skip

    scale, axis = {"type": "log", "nice": False}, {"format": "~s", "labelOverlap": True, "grid": False}

    def band(start: str, end: str, opacity: float) -> dict[str, Any]:
        x = _field(start, "quantitative", scale=scale, axis=axis, title="training step + 1 (log)")
        encoding = {"x": x, "x2": {"field": f"${{field:{end}}}"}, "color": colour, "tooltip": tooltip}
        return {"mark": {"type": "bar", "size": 13, "opacity": opacity}, "encoding": encoding}

    tick = {
        "mark": {"type": "tick", "thickness": 2, "size": 19, "color": "#1b2230"},
        "encoding": {"x": _field("half", "quantitative"), "tooltip": tooltip},
    }
    none = {
        "transform": [{"filter": "!isValid(datum['${field:onset}'])"}],
        "mark": {"type": "text", "align": "left", "color": "#8a8f98"},
        "encoding": {"x": {"value": 6}, "text": {"value": "no transition beyond noise"}},
    }
    return {
        "$schema": SCHEMA,
        "description": "When the attention spectrum of each run changes: from onset to end, tick half way, "
        "pale over the 90 % interval.",
        "data": {"name": "wandb"},
        "encoding": {"y": _by_size("run")},
        "layer": [band("earliest", "latest", 0.28), band("onset", "end", 0.75), tick, none],
    }


def _head_spec() -> dict[str, Any]:
    """A map per run: layers from the bottom, heads from the left, one colour scale for all."""
    names = ("run", "step", "layer", "head", "value")
    return {
        "$schema": SCHEMA,
        "description": "One metric of every head at the last checkpoint of each run; grey: no value.",
        "data": {"name": "wandb"},
        "facet": _by_size("run"),
        "columns": 3,
        "resolve": {"scale": {"x": "independent", "y": "independent"}},
        "spec": {
            "width": 230,
            "height": 180,
            "mark": {"type": "rect", "invalid": None},
            "encoding": {
                "x": _field("head", "ordinal", title="head", axis={"labelAngle": 0, "labelOverlap": True}),
                "y": _field("layer", "ordinal", title="layer", sort="descending"),
                "color": {
                    "condition": {"test": "!isValid(datum['${field:value}'])", "value": "#9a9a9a"},
                    **_field("value", "quantitative", title="${string:metric}", scale={"scheme": "viridis"}),
                },
                "tooltip": [_field(name, "nominal" if name == "run" else "quantitative") for name in names],
            },
        },
    }


PHASES = Chart("tracker-phases-v1", "Transitions by model", "charts/phases", _phase_spec())
HEADS = Chart("tracker-head-map-v1", "Head map", "charts/heads", _head_spec())
"""Its field ``value`` is one of ``HEAD_METRICS``."""
