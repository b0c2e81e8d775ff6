"""Which way a curve moves, and when each move begins, is half done and ends.

B: bins of checkpoints; R: draws of the noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tracker.analysis.transition_types import Move, Pace, Passing, Turn
from tracker.analysis.transitions.axis import Axis
from tracker.analysis.transitions.binned import Curve
from tracker.analysis.transitions.isotonic import rising, rising_many, turning_places
from tracker.analysis.transitions.stages import stages
from tracker.analysis.transitions.windows import Windows

PARTS = (0.1, 0.5, 0.9)
"""Shares of the way at onset, half and end."""
HALF = 1
"""Place of half among PARTS."""
TAIL = 0.05
"""What lies on either side of an interval."""
ABRUPT = 2.0
"""Octaves: a factor of four in steps."""
LEVEL_REACH = 0.25
"""Neighbours within so many standard deviations of an end of a move count to its level."""
MOVING = 1.645
"""An end of the run where neighbouring octaves differ by more standard errors than this is no level yet."""
TURN_COST = 2.71
"""A curve may turn wherever the fit costs at most so much more: 90 % of a chi-square of one degree."""


def signs_of(windows: Windows, scores: np.ndarray, critical: float) -> list[int]:
    """Read the directions of the most moves in turn that are claimed, from the first to the last.

    Counts as Davies and Kovac (2001, Ann. Stat. 29:1) do: a move is added where a pair of windows after the
    last one differs the other way.

    Args:
        windows: the pairs.
        scores: (P,) their differences over standard errors.
        critical: score that each must exceed.
    """
    signs: list[int] = []
    place = 0
    while True:
        usable = (np.abs(scores) > critical) & (windows.low >= place)
        if signs:
            usable &= np.sign(scores) != signs[-1]
        if not usable.any():
            return signs
        first = np.flatnonzero(usable)[windows.high[usable].argmin()]
        place = windows.high[first]
        signs.append(int(np.sign(scores[first])))


def describe(
    curve: Curve, signs: Sequence[int], critical: float, *, draws: int, seed: int
) -> tuple[list[Move], list[Turn]]:
    """Date the moves and turning points of a curve.

    Args:
        curve: in bins.
        signs: from ``signs_of``, at least one.
        critical: the score from which on moves are claimed.
        draws: how many curves the intervals hold 90 % of.
        seed: of the draws.
    """
    fitted, places, costs = fit(curve, signs)
    tops = [
        at if sign * (fitted[at] - fitted[at + 1]) >= 0 else at + 1
        for at, sign in zip(places, signs[:-1], strict=True)
    ]
    ends = [0, *tops, curve.axis.bins - 1]
    empty = next((number for number in range(len(signs)) if ends[number] == ends[number + 1]), None)
    if empty is not None:
        return describe(curve, _without(signs, empty), critical, draws=draws, seed=seed)
    levels = np.array([_level_weights(fitted, curve.variance, at) for at in ends])
    drawn = fitted + curve.noise(draws, np.random.default_rng(seed))
    known = _Levels(levels @ curve.values, drawn @ levels.T)
    found: list[Move] = []
    for number, sign in enumerate(signs):
        part = slice(ends[number], ends[number + 1] + 1)
        span = _Span(curve, fitted, drawn, part, sign)
        found += [_move(span, cut, known, number) for cut in stages(curve, fitted, part, sign, critical)]
    turns = [_turn(curve, fitted, known, number, top, costs[number]) for number, top in enumerate(tops)]
    return found, turns


def _without(signs: Sequence[int], number: int) -> list[int]:
    """The signs without one that the best fit gives no room; its neighbours, which are alike, become one."""
    return [*signs[:number], *signs[number + (2 if 0 < number < len(signs) - 1 else 1) :]]


def fit(curve: Curve, signs: Sequence[int]) -> tuple[np.ndarray, list[int], list[np.ndarray]]:
    """Fit pieces that rise and fall as ``signs`` say, (B,), with ``turning_places``."""
    places, costs = turning_places(curve.values, curve.weights, signs)
    edges = [0, *[at + 1 for at in places], curve.axis.bins]
    pieces = [
        sign * rising(sign * curve.values[low:high], curve.weights[low:high])
        for sign, low, high in zip(signs, edges, edges[1:], strict=False)
    ]
    return np.concatenate(pieces), places, costs


def _level_weights(fitted: np.ndarray, variance: np.ndarray, at: int) -> np.ndarray:
    """Weights (B,) of the checkpoints around an end of a move that noise does not tell from it."""
    near = np.abs(fitted - fitted[at]) <= LEVEL_REACH * np.sqrt(variance)
    low = high = at
    while low > 0 and near[low - 1]:
        low -= 1
    while high < len(fitted) - 1 and near[high + 1]:
        high += 1
    weights = np.zeros(len(fitted))
    weights[low : high + 1] = 1 / variance[low : high + 1]
    return weights / weights.sum()


@dataclass(frozen=True)
class _Levels:
    """Levels at the ends of all moves: of the data, (ends,), and of the draws, (R, ends)."""

    here: np.ndarray
    drawn: np.ndarray


class _Span:
    """The stretch of one direction, turned so that it rises."""

    def __init__(self, curve: Curve, fitted: np.ndarray, drawn: np.ndarray, part: slice, sign: int) -> None:
        self.curve, self.sign, self.first = curve, sign, part.start
        self.last = part.stop - 1
        self.fitted = sign * fitted[part]
        self.drawn = rising_many(sign * drawn[:, part], curve.weights[part])
        self.places = curve.axis.places[part]
        self.unsettled = _unsettled(curve, sign)

    def levels(self, at: int, known: _Levels, number: int) -> tuple[float, np.ndarray]:
        """The level at bin ``at`` of the span, risen: of the data, and of every draw."""
        if at in (0, self.last - self.first):
            end = number + (at > 0)
            return self.sign * float(known.here[end]), self.sign * known.drawn[:, end]
        return float(self.fitted[at]), self.drawn[:, at]


def _unsettled(curve: Curve, sign: int) -> tuple[bool, bool]:
    """Whether the curve already moves as ``sign`` says at its first checkpoints, and still at its last."""
    places, values, variance = curve.axis.places, sign * curve.values, curve.variance
    found = []
    for outer in (places - places[0], places[-1] - places):
        edge, inner = outer <= 1.0, (outer > 1.0) & (outer <= 2.0)
        if not inner.any():
            found.append(False)
            continue
        moved = values[inner].mean() - values[edge].mean()
        error = variance[inner].sum() / inner.sum() ** 2 + variance[edge].sum() / edge.sum() ** 2
        found.append(bool((moved if not found else -moved) > MOVING * np.sqrt(error)))
    return found[0], found[1]


def _passings(places: np.ndarray, rising_RB: np.ndarray, low_R: np.ndarray, high_R: np.ndarray) -> np.ndarray:
    """The gap, as the number of the bin before it, in which each curve passes each of PARTS, (R, 3)."""
    levels = low_R[:, None] + np.array(PARTS) * (high_R - low_R)[:, None]
    at = (rising_RB[:, None, :] < levels[:, :, None]).sum(axis=2)
    return np.clip(at, 1, len(places) - 1) - 1


def _shortest(places: np.ndarray, gaps: np.ndarray) -> tuple[int, int]:
    """Fewest octaves of neighbouring gaps, first and last, that 90 % of the draws ``gaps`` (R,) lie in."""
    passed = np.concatenate([[0.0], np.cumsum(np.bincount(gaps, minlength=len(places) - 1))]) / len(gaps)
    first = np.arange(len(places) - 1)
    last = np.searchsorted(passed, passed[:-1] + 1 - 2 * TAIL - 1e-9) - 1
    inside = last < len(first)
    best = np.argmin(places[last[inside] + 1] - places[first[inside]])
    return int(first[inside][best]), int(last[inside][best])


def _move(span: _Span, cut: tuple[int, int], known: _Levels, number: int) -> Move:
    low, high = cut
    start, finish = (span.levels(at, known, number) for at in cut)
    part = slice(low, high + 1)
    places = span.places[part]
    own = _passings(places, span.fitted[None, part], np.array([start[0]]), np.array([finish[0]]))[0] + low
    many = _passings(places, span.drawn[:, part], start[1], finish[1]) + low
    bounds = np.quantile(many, [TAIL, 1 - TAIL], axis=0, method="inverted_cdf").astype(int)
    bounds[:, HALF] = _shortest(span.places, many[:, HALF])
    lowest, highest = np.minimum(bounds[0], own), np.maximum(bounds[1], own)
    axis, first = span.curve.axis, span.first
    open_start = first + low == 0 and (lowest[0] == 0 or span.unsettled[0])
    open_end = first + high == axis.bins - 1 and (highest[2] == high - 1 or span.unsettled[1])
    if open_start:
        lowest[0] = 0
    if open_end:
        highest[2] = high - 1
    support = (many == own).mean(axis=0)
    dates = [
        Passing(*_gap(axis, first + at), axis.bracket(first + a, first + b + 1), float(share))
        for at, a, b, share in zip(own, lowest, highest, support, strict=True)
    ]
    narrow = np.maximum(span.places[many[:, 2]] - span.places[many[:, 0] + 1], 0)
    wide = span.places[many[:, 2] + 1] - span.places[many[:, 0]]
    octaves = (float(np.quantile(narrow, TAIL)), float(np.quantile(wide, 1 - TAIL)))
    one_gap = float((many[:, 0] == many[:, 2]).mean()) >= 1 - TAIL
    middle = span.places[own] + np.diff(span.places)[own] / 2
    change = np.quantile(finish[1] - start[1], [1 - TAIL, TAIL])
    size = finish[0] - start[0]
    sizes = sorted(span.sign * (2 * size - each) for each in change)
    return Move(
        direction="up" if span.sign > 0 else "down",
        start=span.sign * start[0],
        finish=span.sign * finish[0],
        change_interval=(float(sizes[0]), float(sizes[1])),
        onset=dates[0],
        half=dates[1],
        end=dates[2],
        octaves=float(middle[2] - middle[0]),
        octaves_interval=octaves,
        pace=_pace(octaves, one_gap),
        open_start=bool(open_start),
        open_end=bool(open_end),
        passed=np.stack([span.places[many], span.places[many + 1]], axis=2),
    )


def _gap(axis: Axis, low: int) -> tuple[int, int]:
    """The neighbouring checkpoints between bin ``low`` and the next."""
    return int(axis.steps[axis.last[low]]), int(axis.steps[axis.first[low + 1]])


def _pace(octaves: tuple[float, float], one_gap: bool) -> Pace:
    narrow, wide = octaves
    if one_gap or wide <= ABRUPT + 0.05:
        return "abrupt"
    return "gradual" if narrow >= ABRUPT - 0.05 else "unclear"


def _turn(
    curve: Curve, fitted: np.ndarray, known: "_Levels", number: int, top: int, costs: np.ndarray
) -> Turn:
    """The turning point after move ``number``."""
    axis = curve.axis
    near = np.flatnonzero(costs - costs.min() <= TURN_COST)
    low = max(min(int(near.min()), top - 1), 0)
    high = min(max(int(near.max()) + 1, top + 1), axis.bins - 1)

    def recovered(levels: np.ndarray, beyond: float = 0.0) -> np.ndarray:
        top = levels[..., number + 1] + beyond
        gone = top - levels[..., number]
        return (top - levels[..., number + 2]) / np.where(gone == 0, np.inf, gone)

    own = float(recovered(known.here))
    least = float(np.quantile(recovered(known.drawn), TAIL))
    most = float(np.quantile(recovered(known.drawn, _beyond(axis.places, fitted, top)), 1 - TAIL))
    step = int(axis.steps[(axis.first[top] + axis.last[top]) // 2])
    value = float(known.here[number + 1])
    return Turn(step, axis.bracket(low, high), value, own, (min(least, own), max(most, own)))


def _beyond(places: np.ndarray, fitted: np.ndarray, top: int) -> float:
    """How far beyond its value at ``top`` the curve may go between checkpoints.

    To where the lines through the two checkpoints before and after the gap meet, on either side of ``top``.
    """
    most = 0.0
    for left in (top - 1, top):
        if left < 1 or left + 2 >= len(places):
            continue
        before = (fitted[left] - fitted[left - 1]) / (places[left] - places[left - 1])
        after = (fitted[left + 2] - fitted[left + 1]) / (places[left + 2] - places[left + 1])
        gap = places[left + 1] - places[left]
        if before * after < 0:
            at = (fitted[left + 1] - fitted[left] - after * gap) / (before - after)
            if 0 <= at <= gap:
                most = max(most, float(fitted[left] + before * at - fitted[top]), key=abs)
    return most
