"""What transitions are reported as."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np

Direction = Literal["up", "down"]
Pace = Literal["abrupt", "gradual", "unclear"]
ALIKE = 0.95
"""Share of the largest move from which another one is as large."""


@dataclass(frozen=True)
class Passing:
    """Where a move passes a share of its way."""

    step_low: int
    step_high: int
    """It passes after ``step_low`` and at or before ``step_high``, neighbouring checkpoints."""
    interval: tuple[int, int]
    """Checkpoints (low, high] between which it passes at 90 %."""
    support: float | None = None
    """Share of draws of the noise in which it passes between the same two checkpoints."""


@dataclass(frozen=True)
class Move:
    """One monotone move of a curve beyond its noise."""

    direction: Direction
    start: float
    """Level before it."""
    finish: float
    """Level after it."""
    change_interval: tuple[float, float]
    """90 % interval of ``finish - start``."""
    onset: Passing
    """10 % of the way."""
    half: Passing
    """50 % of the way."""
    end: Passing
    """90 % of the way."""
    octaves: float
    """Doublings of the step from onset to end."""
    octaves_interval: tuple[float, float]
    """90 % interval."""
    pace: Pace
    """Abrupt: within a factor of four in steps, or one gap between checkpoints; unclear where the interval
    allows both. It never decides whether a move is reported."""
    open_start: bool = False
    """Whether it may have begun before the first checkpoint."""
    open_end: bool = False
    """Whether it may go on after the last."""
    passed: np.ndarray | None = field(default=None, repr=False, compare=False, metadata={"key": None})
    """(R, 3, 2) log2(step + 1) of the checkpoints around onset, half and end in every draw; not stored."""

    @property
    def size(self) -> float:
        """How far it goes, whichever way."""
        return abs(self.finish - self.start)


@dataclass(frozen=True)
class Turn:
    """Where a curve turns from one move to the next."""

    step: int
    interval: tuple[int, int]
    """Checkpoints between which it turns at 90 %."""
    value: float
    recovered: float
    """Share of the move before it that the move after it undoes."""
    recovered_interval: tuple[float, float]
    """90 % interval."""


@dataclass(frozen=True)
class CurveTransitions:
    """The moves of one curve."""

    moves: tuple[Move, ...] = ()
    turns: tuple[Turn, ...] = ()
    p_value: float | None = None
    """Share of noise alone with as clear a move; None where nothing was tested."""
    smallest: float | None = None
    """The smallest lasting shift that would have been claimed, in the unit of the metric."""
    noise: float | None = None
    """Median standard deviation of a checkpoint's value."""
    jitter_ratio: float | None = None
    """The same over what sequences alone show; None without sequences."""
    seed_spread: float | None = None
    """Standard deviation between seeds, median over checkpoints; None with one seed."""
    persistence: float = 0.0
    """Share of a deviation that stays at the next checkpoint, as far as the run shows it."""
    note: str | None = None

    def ending_at(self, move: Move) -> Turn | None:
        """The turning point that ``move`` leads up to."""
        number = self.moves.index(move)
        if number + 1 == len(self.moves) or self.moves[number + 1].direction == move.direction:
            return None
        turned = sum(a.direction != b.direction for a, b in pairwise(self.moves[: number + 1]))
        return self.turns[turned]

    @property
    def main(self) -> Move | None:
        """The largest move; of a way and its way back that are alike to a few percent the first."""
        largest = max((move.size for move in self.moves), default=0.0)
        return next((move for move in self.moves if move.size >= ALIKE * largest), None)

    def during(self, other: Move) -> Move | None:
        """The largest move that is half way between onset and end of another curve's; else the main one."""
        low, high = other.onset.interval[0], other.end.interval[1]
        meeting = [
            move for move in self.moves if move.half.interval[0] < high and low < move.half.interval[1]
        ]
        return max(meeting, key=lambda move: move.size, default=self.main)

    def role_of(self, move: Move) -> str:
        """What a move of the joint curve is: exploratory (the main one, where it rises), specialisation (the
        way back right after it), or nothing that has a name."""
        main = self.main
        if move is main:
            return "exploratory" if move.direction == "up" else ""
        number = self.moves.index(move)
        if main is None or number == 0 or self.moves[number - 1] is not main:
            return ""
        return "specialisation" if self.ending_at(main) is not None else ""


@dataclass(frozen=True)
class Transitions:
    """What ``find_transitions`` found."""

    steps: tuple[int, ...] = ()
    curves: Mapping[str, CurveTransitions] = field(default_factory=dict)
    structure: CurveTransitions = field(default_factory=CurveTransitions)
    """The joint curve of all metrics, in standard deviations."""
    note: str | None = None
