"""Two stores checkpoint by checkpoint: two code versions, two conventions, or two probes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tracker.analysis.comparison import COMPARED, Sample, difference
from tracker.analysis.trajectories import Trajectory
from tracker.analysis.words import number, titled
from tracker.errors import RequestError

Entry = dict[str, Any]
SAME = 1e-6
"""Relative difference up to which two values are the same number."""
LEVEL = 0.95


def _at(run: Trajectory, name: str, at: int) -> Sample | None:
    value = float(run.metrics[name][at]) if name in run.metrics else float("nan")
    drawn = run.samples.get(name)
    draws = None if drawn is None or drawn.shape[1] < 2 or not np.all(np.isfinite(drawn[at])) else drawn[at]
    return Sample(value, None, None, draws, 0.0) if np.isfinite(value) else None


def between(
    ours: Sequence[Trajectory], theirs: Sequence[Trajectory], names: Sequence[str] = COMPARED
) -> list[Entry]:
    """Every metric of every checkpoint that both stores hold: the difference, and whether it is sure.

    Checkpoints are matched by model, seed and step. Intervals are at 95 % for each on its own, paired over
    sequences where both have as many.

    Args:
        ours: trajectories of the first store.
        theirs: of the second.
        names: metrics.

    Raises:
        RequestError: the stores share no checkpoint.
    """
    others = {(run.model, run.seed): run for run in theirs}
    rows = []
    for run in ours:
        other = others.get((run.model, run.seed))
        shared = np.intersect1d(run.steps, other.steps) if other else []
        for step in map(int, shared):
            assert other is not None
            at, there = int(np.searchsorted(run.steps, step)), int(np.searchsorted(other.steps, step))
            for name in names:
                one, two = _at(run, name, at), _at(other, name, there)
                if one is not None and two is not None:
                    rows.append(_row(run, step, name, one, two))
    if not rows:
        raise RequestError(
            "compare.other: the two stores share no measured checkpoint of one model, seed and step; "
            "measure the same checkpoints in both"
        )
    return rows


def _row(run: Trajectory, step: int, name: str, one: Sample, two: Sample) -> Entry:
    gap, half = difference(one, two, LEVEL)
    same = abs(gap) <= SAME * max(abs(one.value), abs(two.value), 1e-9)
    return {
        "model": run.model,
        "seed": run.seed,
        "step": step,
        "metric": name,
        "ours": one.value,
        "other": two.value,
        "difference": gap,
        "half": half,
        "same": same,
        "sure": bool(not same and half is not None and abs(gap) > half),
    }


def store_sentences(rows: Sequence[Entry]) -> list[str]:
    """Per metric how many checkpoints differ, and the largest difference."""
    sentences = []
    for name in dict.fromkeys(row["metric"] for row in rows):
        mine = [row for row in rows if row["metric"] == name]
        apart = [row for row in mine if not row["same"]]
        if not apart:
            sentences.append(f"{titled(name)}: the same at all {len(mine)} checkpoints.")
            continue
        sure = sum(row["sure"] for row in apart)
        most = max(apart, key=lambda row: abs(row["difference"]))
        sentences.append(
            f"{titled(name)}: differs at {len(apart)} of {len(mine)} checkpoints, {sure} of them beyond the "
            f"95% interval over sequences; most in {most['model']} seed {most['seed']} step {most['step']}: "
            f"{number(most['ours'])} here, {number(most['other'])} there."
        )
    return sentences
