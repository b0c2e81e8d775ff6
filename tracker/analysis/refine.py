"""Which checkpoints to measure next so that the detected changes are narrowed most.

Nothing can be said of a change between neighbouring measured checkpoints; each further one inside its
interval halves what is left, so the middle of the widest open segment, in doublings of the step, is next.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class Proposal:
    """One checkpoint to measure, and the segment (low, high] that it parts."""

    run: int
    step: int
    low: int
    high: int


def _doublings(low: int, high: int) -> float:
    return float(np.log2((high + 1) / (low + 1)))


def _segments(interval: tuple[int, int], measured: Sequence[int]) -> list[tuple[int, int]]:
    """The gaps between measured checkpoints within an interval."""
    low, high = interval
    inside = [low, *(step for step in measured if low < step < high), high]
    return list(pairwise(inside))


def _middle(low: int, high: int, there: Sequence[int]) -> int | None:
    """The existing step nearest to the middle of (low, high) on the log axis."""
    inside = [step for step in there if low < step < high]
    middle = (np.log2(low + 1) + np.log2(high + 1)) / 2
    return min(inside, key=lambda step: abs(np.log2(step + 1) - middle), default=None)


def propose(
    intervals: Sequence[Sequence[tuple[int, int]]],
    measured: Sequence[Sequence[int]],
    available: Sequence[Sequence[int]],
    budget: int,
) -> list[Proposal]:
    """The checkpoints worth measuring, the one that narrows most first.

    Args:
        intervals: per run the intervals (low, high] of its changes.
        measured: per run the steps that are measured.
        available: per run the steps that exist.
        budget: how many checkpoints at most, over all runs.

    Returns:
        Up to ``budget`` proposals; fewer where every change lies between neighbours that exist.
    """
    open_ = {
        (run, *gap)
        for run, spans in enumerate(intervals)
        for span in spans
        for gap in _segments(span, measured[run])
    }
    known = [set(steps) for steps in measured]
    found: list[Proposal] = []
    while open_ and len(found) < budget:
        run, low, high = max(open_, key=lambda each: (_doublings(*each[1:]), -each[0], -each[1]))
        open_.remove((run, low, high))
        step = _middle(low, high, [each for each in available[run] if each not in known[run]])
        if step is not None:
            found.append(Proposal(run, step, low, high))
            open_ |= {(run, low, step), (run, step, high)}
    return found
