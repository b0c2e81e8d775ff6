"""The paper's figures beside measured ones: its models as points over size, and a table of differences."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tracker import facts
from tracker.analysis.axes import AXES, size_on
from tracker.analysis.comparison import Column, Sample
from tracker.analysis.paper_ranges import among_paper, paper_columns
from tracker.analysis.paper_tables import TRAINED, TRAINING, TRAINING_TABLE, against_paper
from tracker.analysis.text import number
from tracker.analysis.trajectories import Trajectory
from tracker.metrics.registry import title_of
from tracker.views.runs import Run

ROWS, AVERAGED = "attention rows", "averaged attention"
SCALING_TABLE = "paper_table6_scaling"
LAST_STEP = 143_000
"""Of Pythia, where table 6 stands."""
THRESHOLD_MODEL = "410m"
"""The size at which the paper places its threshold."""
TRAINING_MODEL = "6.9b"
"""The model of table 5."""


def paper_points() -> list[dict[str, Any]]:
    """List points of tables 5 and 6: model, step, metric (without its signal), value, signal, table, sizes.

    The signal is the one that a table is nearest to; the paper names none.
    """
    sizes = {model: _sizes(row) for model, row in _suite().items()}
    scaling = [
        (row["model"], LAST_STEP, name, row[name], AVERAGED, 6)
        for row in facts.table(SCALING_TABLE).to_dicts()
        for name in (column.removeprefix("averaged_") for column in TRAINED)
    ]
    training = [
        (TRAINING_MODEL, row["step"], "band_power_low" if name == "low_band_power_pct" else name,
         row[name] * factor, ROWS, 5)
        for row in facts.table(TRAINING_TABLE).to_dicts() for name, factor in TRAINING.items()
    ]  # fmt: skip
    names = ("model", "step", "metric", "value", "signal", "table")
    return [
        dict(zip(names, point, strict=True)) | {"sizes": sizes[str(point[0])]}
        for point in [*scaling, *training]
    ]


def paper_threshold() -> dict[str, Any]:
    """Return the model at whose size the paper places its threshold, and its size on every axis."""
    return {"model": "410M", "sizes": _sizes(_suite()[THRESHOLD_MODEL])}


def _suite() -> dict[str, dict[str, Any]]:
    return {row["size"]: row for row in facts.table("pythia_suite").to_dicts()}


def _sizes(row: dict[str, Any]) -> dict[str, float | None]:
    known = row | {"n_layers": row["layers"], "n_heads": row["heads"]}
    return {axis: size_on(known, axis) for axis in AXES}


def beside_paper(runs: Sequence[Run]) -> dict[str, Any]:
    """Set every model's last checkpoint beside the paper's of its name, else those of 410M and more.

    Args:
        runs: of a store; seeds of a model are averaged.

    Returns:
        ``models``: names; ``rows``: title, signal and, per model, ours, theirs, among (range of theirs, where
        it is of several models), difference and how it reads, None where the paper or the store has nothing;
        ``shared``: whether theirs are the same for all models. No rows where they share no metric.
    """
    columns = list(_columns(runs))
    named = against_paper(columns, [_trajectory(run) for run in runs])
    placed = among_paper(columns, [row.model for row in named])
    training = {(row.metric, row.step) for row in named if row.table == TRAINING_TABLE}
    found: dict[tuple[str, int | None], dict[str, Any]] = {}
    for row in named:
        step = row.step if (row.metric, row.step) in training and row.table == TRAINING_TABLE else None
        found.setdefault((row.metric, step), {})[row.model] = _cell(row.ours, row.paper, row.words, "")
    for each in placed:
        paper = each.paper
        among = f"{number(paper.least)} to {number(paper.largest)}, {paper.models} models"
        words = f"{each.place} theirs" if each.place in ("below", "above") else f"in their {each.place}"
        found.setdefault((each.metric, None), {})[each.model] = _cell(each.ours, paper.median, words, among)
    models = [column.model for column in columns]
    rows = [_row(key, cells, models) for key, cells in found.items()]
    return {"models": models, "rows": rows, "shared": bool(placed) and not named}


def _row(key: tuple[str, int | None], cells: dict[str, Any], models: list[str]) -> dict[str, Any]:
    metric, step = key
    bare = metric.removeprefix("averaged_")
    title = title_of(bare.removesuffix("_std")) + (", spread over heads" if bare.endswith("_std") else "")
    title += "" if step is None else f" at step {step}"
    signal = AVERAGED if metric.startswith("averaged_") else ROWS
    return {"title": title, "signal": signal, "cells": [cells.get(model) for model in models]}


def _cell(ours: float, theirs: float, words: str, among: str) -> dict[str, str]:
    return {
        "ours": number(ours), "theirs": number(theirs), "among": among,
        "difference": f"{ours - theirs:+.3g}", "words": words,
    }  # fmt: skip


def _columns(runs: Sequence[Run]) -> Iterator[Column]:
    """One column per model, at its last checkpoint that is not suspect, seeds averaged."""
    for rank in sorted({run.rank for run in runs}):
        members = [run for run in runs if run.rank == rank and not run.suspected.all()]
        if not members:
            continue
        last = [int(np.flatnonzero(~run.suspected)[-1]) for run in members]
        samples = {
            name: sample
            for name in paper_columns() if (sample := _sample(members, last, name)) is not None
        }  # fmt: skip
        first = members[0]
        step = int(first.steps[last[0]])
        yield Column(first.suite, first.model, tuple(run.seed for run in members), step,
                     float(first.tokens[last[0]]), samples)  # fmt: skip


def _sample(runs: Sequence[Run], at: Sequence[int], name: str) -> Sample | None:
    found = [
        (run.series[name].mean[i], run.series[name].half[i])
        for run, i in zip(runs, at, strict=True) if name in run.series
    ]  # fmt: skip
    values = np.array(found).reshape(-1, 2)
    values = values[np.isfinite(values[:, 0])]
    if not len(values):
        return None
    half = float(np.sqrt((values[:, 1] ** 2).sum()) / len(values))
    return Sample(float(values[:, 0].mean()), half if np.isfinite(half) else None)


def _trajectory(run: Run) -> Trajectory:
    means = {name: series.mean for name, series in run.series.items()}
    return Trajectory(run.suite, run.model, run.seed, run.steps, run.tokens, means, {}, {}, ())
