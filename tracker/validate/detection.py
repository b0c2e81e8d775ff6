"""Transitions and thresholds on synthetic curves whose truth is known: found where they are, nowhere else.

The figures are shares of runs; their limits are what the analysis has to meet, whether or not it does today.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from tracker.analysis import judge_threshold
from tracker.analysis.synthetic import ScaleKind, scale_values
from tracker.analysis.synthetic_moves import CurveNoise, MovingCurve, moving_curve
from tracker.analysis.transition_types import CurveTransitions
from tracker.analysis.transitions import find_transitions
from tracker.validate.finding import Finding, at_least, at_most

SIZES = np.geomspace(1e7, 1e10, 8)
FALSE = 0.05
"""Largest share of runs without a move in which one is claimed."""
HOLD, EDGE_HOLD = 0.87, 0.80
"""Least share of 90 % intervals that hold the truth: of halves and turning points; of onsets and ends."""
Advance = Callable[[], object]
NOISE = (
    ("white", CurveNoise(), FALSE),
    ("white, means alone", CurveNoise(sequences=0), FALSE),
    ("jitter of 3", CurveNoise(jitter=3), FALSE),
    ("growing fourfold", CurveNoise(growth=4), FALSE),
    ("growing fourfold, means alone", CurveNoise(sequences=0, growth=4), FALSE),
    ("half of the jitter kept", CurveNoise(kept=0.5), 0.07),
    ("0.8 of the jitter kept", CurveNoise(kept=0.8), 0.12),
    ("0.8 kept, 3 seeds", CurveNoise(kept=0.8, seeds=3), FALSE),
)
MOVES = (("step", 0.0), ("sigmoid", 1.0), ("sigmoid", 4.0), ("sigmoid", 8.0))
"""From one gap between checkpoints to eight octaves."""
LONGEST = ("drift", 0.0)
MOST_GAPS = 2
"""Gaps that the interval of half may span, in the median of all MOVES that are SURE in size."""
SURE = 10
CHANCE = 1.645
"""Standard errors beyond a limit that one in twenty sets of runs reaches by chance."""
POINTS = (16, 154)
CLAIMED = {6: 0.9, 10: 0.98}
"""Least share of moves that are claimed, by their size in standard deviations of a checkpoint's mean."""
RIGHT = {("recovery", 16): 0.7, ("stages", 16): 0.5, ("recovery", 154): 0.95, ("stages", 154): 0.95}
"""Least share of runs with moves of 40 standard deviations in which all are found and no others."""
SCALES: tuple[tuple[ScaleKind, float], ...] = (
    ("step", 6), ("noise", 0), ("line", 5), ("line", 10), ("hinge", 10), ("sigmoid", 8), ("sigmoid", 16),
)  # fmt: skip
"""Curves over model size, by their height in units of the models' scatter."""


@dataclass
class _Tally:
    """What was seen in the runs of one kind."""

    claimed: list[bool] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    halves: list[bool] = field(default_factory=list)
    gaps: list[int] = field(default_factory=list)
    """Gaps between checkpoints that the interval of half spans."""
    edges: list[bool] = field(default_factory=list)
    turns: list[bool] = field(default_factory=list)

    def add(self, truth: MovingCurve, found: CurveTransitions) -> None:
        """Compare one curve with its truth."""
        self.claimed.append(bool(found.moves))
        signs = tuple(1 if move.direction == "up" else -1 for move in found.moves)
        self.right.append(signs == tuple(move.sign for move in truth.moves))
        if not self.right[-1]:
            return
        for true, move in zip(truth.moves, found.moves, strict=True):
            self.halves.append(_holds(move.half.interval, true.half))
            self.gaps.append(int(np.diff(np.searchsorted(truth.steps, move.half.interval))[0]))
            self.edges += [_holds(move.onset.interval, true.onset), _holds(move.end.interval, true.end)]
        if truth.turn is not None:
            self.turns.append(_holds(found.turns[0].interval, truth.turn))


def _holds(interval: tuple[int, int], place: float) -> bool:
    low, high = np.log2(np.array(interval) + 1.0)
    return bool(low - 1e-9 <= place <= high + 1e-9)


def _rarely(named: str, seen: list[bool], limit: float) -> Finding:
    """Expect a share of runs no larger than ``limit``, beyond what chance does to so many runs."""
    return at_most(named, _share(seen), limit, chance=_chance(limit, len(seen)))


def _mostly(named: str, seen: list[bool], least: float) -> Finding:
    """Expect a share of runs no smaller than ``least``, beyond what chance does to so many runs."""
    return at_least(named, _share(seen), least, chance=_chance(least, len(seen)))


def _share(seen: list[bool]) -> float:
    return float(np.mean(seen)) if seen else float("nan")


def _chance(limit: float, runs: int) -> float:
    """How far a share that is just allowed lies beyond ``limit`` in 5 % of sets of so many runs."""
    return CHANCE * float(np.sqrt(limit * (1 - limit) / max(runs, 1)))


def _tally(
    kind: tuple[str, float],
    points: int,
    size: float,
    noise: CurveNoise,
    runs: int,
    seed: int,
    advance: Advance,
) -> _Tally:
    """Find the moves of ``runs`` curves of one kind."""
    rng, tally = np.random.default_rng([seed, points, int(size)]), _Tally()
    for _ in range(runs):
        truth = moving_curve(kind[0], points, rng, kind[1])
        values = noise.around(size * noise.total * truth.curve, rng)
        tally.add(truth, find_transitions(truth.steps, {"metric": values}).curves["metric"])
        advance()
    return tally


def false_claims(runs: int, seed: int, advance: Advance) -> Iterator[Finding]:
    """Noise alone, of every kind: no move may be claimed."""
    for points in POINTS:
        for name, noise, limit in NOISE:
            tally = _tally(("flat", 0.0), points, 0, noise, runs, seed, advance)
            yield _rarely(f"noise: {name}, {points} checkpoints: a move is claimed", tally.claimed, limit)


def moves(runs: int, seed: int, advance: Advance) -> Iterator[Finding]:
    """One move, abrupt or slow, of 6 and of 10 standard deviations."""
    for points in POINTS:
        gaps: list[int] = []
        for kind in (*MOVES, LONGEST):
            for size, least in CLAIMED.items():
                tally = _tally(kind, points, size, CurveNoise(), runs, seed, advance)
                width = f" of {kind[1]:g} octaves" if kind[1] else ""
                named = f"{kind[0]}{width}, size {size}, {points} checkpoints"
                yield _mostly(f"{named}: claimed", tally.claimed, least)
                yield _mostly(f"{named}: 90 % interval of half holds", tally.halves, HOLD)
                yield _mostly(f"{named}: of onset and end", tally.edges, EDGE_HOLD)
                gaps += tally.gaps if size == SURE and kind in MOVES else []
        named = f"moves of up to 8 octaves, size {SURE}, {points} checkpoints"
        yield at_most(f"{named}: gaps in the interval of half, median", float(np.median(gaps)), MOST_GAPS)


def shapes(runs: int, seed: int, advance: Advance) -> Iterator[Finding]:
    """A rise of which part is lost again, and a rise in two stages."""
    for (kind, points), least in RIGHT.items():
        tally = _tally((kind, 0.0), points, 40, CurveNoise(), runs, seed, advance)
        named = f"{kind}, size 40, {points} checkpoints"
        yield _mostly(f"{named}: all moves and no others", tally.right, least)
        if tally.turns:
            yield _mostly(f"{named}: 90 % interval of the turning point holds", tally.turns, HOLD)


def thresholds(runs: int, seed: int, advance: Advance) -> Iterator[Finding]:
    """Steps over 8 model sizes, and noise and smooth trends that are none."""
    for number, (kind, height) in enumerate(SCALES):
        rng = np.random.default_rng([seed, 200 + number])
        shifts, steps, held = [], [], []
        for _ in range(runs):
            below, width = int(rng.integers(2, 7)), float(rng.uniform(0.5, 1))
            values = scale_values(SIZES, kind, height, rng, below=below, width=width)
            verdict = judge_threshold(SIZES, values)
            shift = verdict.shift
            shifts.append(shift is not None and shift.told)
            steps.append(verdict.found is not None)
            if shift is not None and kind == "step":
                low, high = shift.gap_interval
                held.append(low <= SIZES[below - 1] and SIZES[below] <= high)
            advance()
        named = f"{kind} of {height:g} over 8 sizes" if height else f"{kind} over 8 sizes"
        if kind == "step":
            yield _mostly(f"{named}: a shift is told", shifts, 0.9)
            yield _mostly(f"{named}: it is called a step", steps, 0.75)
            yield _mostly(f"{named}: 90 % interval of its place holds", held, HOLD)
        else:
            if kind == "noise":
                yield _rarely(f"{named}: a shift is told", shifts, 0.02)
            yield _rarely(f"{named}: it is called a step", steps, 0.06)


PARTS = (
    (false_claims, len(NOISE) * len(POINTS)),
    (moves, len(POINTS) * (len(MOVES) + 1) * len(CLAIMED)),
    (shapes, len(RIGHT)),
    (thresholds, len(SCALES)),
)
"""Each part, and how many kinds of run it makes."""


def runs_in_all(runs: int) -> int:
    """Count the runs that ``detection`` makes with ``runs`` of each kind."""
    return runs * sum(kinds for _, kinds in PARTS)


def detection(runs: int, advance: Advance = lambda: None, *, seed: int = 0) -> list[Finding]:
    """Try detection, dates and false claims on synthetic runs.

    Args:
        runs: how many of each kind, at least 1.
        seed: another draws other runs: the analysis may not lean on those that it was made with.
        advance: called after each of the ``runs_in_all(runs)``, for a progress bar.
    """
    return [finding for part, _ in PARTS for finding in part(runs, seed, advance)]
