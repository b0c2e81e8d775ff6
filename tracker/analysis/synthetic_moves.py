"""Curves that move as training curves do, with true dates: for tests and for validation.

T: checkpoints; S: sequences; K: seeds.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tracker.analysis.smooth import RISE
from tracker.analysis.synthetic import SEQUENCE_SPREAD, persistent
from tracker.errors import unknown_value

EARLY = (0, *(2**power for power in range(10)))
SCHEDULES = {
    7: (0, 128, 512, 1000, 5000, 10_000, 143_000),
    16: (*EARLY, 1000, 10_000, 50_000, 100_000, 143_000),
    23: (*EARLY, 1000, 2000, 4000, 8000, 12_000, 16_000, 24_000, 32_000, 48_000, 64_000, 96_000, 143_000),
    154: (*EARLY, *range(1000, 144_000, 1000)),
}
"""Number of checkpoints -> their steps, as suites save them."""
KINDS = ("flat", "step", "sigmoid", "drift", "recovery", "stages")


@dataclass(frozen=True)
class TrueMove:
    """When a move truly passes 10, 50 and 90 % of its way, in log2(step + 1); ``sign`` is 1 or -1."""

    sign: int
    onset: float
    half: float
    end: float


@dataclass(frozen=True)
class MovingCurve:
    """A true curve of size one, its moves, and where it turns."""

    steps: np.ndarray
    """(T,)."""
    curve: np.ndarray
    """(T,)."""
    moves: tuple[TrueMove, ...] = ()
    turn: float | None = None


@dataclass(frozen=True)
class CurveNoise:
    """Noise around a true curve; a checkpoint's mean has unit standard error from sequences."""

    sequences: int = 16
    """0: means alone, with the same total."""
    jitter: float = 1.0
    """Of training, alike in all sequences, over that of sequences."""
    kept: float = 0.0
    """Share of the jitter that stays at the next checkpoint."""
    growth: float = 1.0
    """Noise of the last checkpoint over that of the first."""
    seeds: int = 1

    @property
    def total(self) -> float:
        """Standard deviation of the last checkpoint's mean."""
        return float(np.hypot(1.0, self.jitter))

    def around(self, curve: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw values around ``curve`` (T,): (T,), (T, S) or (T, S, K)."""
        runs = [self._one(curve, rng) for _ in range(self.seeds)]
        return runs[0] if self.seeds == 1 else np.stack(runs, axis=-1)

    def _one(self, curve: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        points = len(curve)
        profile = np.geomspace(1 / self.growth, 1, points)
        training = self.jitter * persistent(rng.normal(size=points), self.kept)
        if not self.sequences:
            means = curve + (rng.normal(size=points) + training) * profile
            return means if self.seeds == 1 else means[:, None]
        scale = np.sqrt(self.sequences)
        own = scale * rng.normal(size=(points, self.sequences))
        level = SEQUENCE_SPREAD * scale * rng.normal(size=self.sequences)
        noise = (own + training[:, None]) * profile[:, None]
        return curve[:, None] + noise + level - level.mean()


def _sigmoid(places: np.ndarray, centre: float, width: float) -> np.ndarray:
    return 1 / (1 + np.exp(-(places - centre) * RISE / width))


def moving_curve(kind: str, points: int, rng: np.random.Generator, width: float = 4.0) -> MovingCurve:
    """Make a curve of size one.

    Args:
        kind: flat; step (between two checkpoints); sigmoid (``width`` octaves from 10 to 90 %); drift (over
            the whole run); recovery (a smooth rise over 3 octaves, of which 40 % is lost by the end); stages
            (two sigmoids of 1.5 octaves, 5.5 apart).
        points: a number of checkpoints in SCHEDULES.
        rng: places the moves.
        width: of a sigmoid, octaves.

    Raises:
        RequestError: the kind or the number of checkpoints is not known.
    """
    if points not in SCHEDULES:
        raise unknown_value("points", points, SCHEDULES)
    shapes: dict[str, Callable[[], MovingCurve]] = {
        "flat": lambda: MovingCurve(steps, np.zeros(len(steps))),
        "step": lambda: _step(steps, places, rng),
        "sigmoid": lambda: _one_sigmoid(steps, places, rng, width),
        "drift": lambda: _drift(steps, places),
        "recovery": lambda: _recovery(steps, places, rng),
        "stages": lambda: _stages(steps, places, rng),
    }
    if kind not in shapes:
        raise unknown_value("kind", kind, KINDS)
    steps = np.array(SCHEDULES[points], dtype=np.int64)
    places = np.log2(steps + 1.0)
    return shapes[kind]()


def _step(steps: np.ndarray, places: np.ndarray, rng: np.random.Generator) -> MovingCurve:
    centre = rng.uniform(4, 12)
    return MovingCurve(steps, (places > centre).astype(float), (TrueMove(1, centre, centre, centre),))


def _one_sigmoid(
    steps: np.ndarray, places: np.ndarray, rng: np.random.Generator, width: float
) -> MovingCurve:
    low, high = max(4.0, width / 2 + 1), min(places[-1] - 3, max(places[-1] - width / 2 - 1, 5.0))
    centre = rng.uniform(low, high)
    move = TrueMove(1, centre - width / 2, centre, centre + width / 2)
    return MovingCurve(steps, _sigmoid(places, centre, width), (move,))


def _drift(steps: np.ndarray, places: np.ndarray) -> MovingCurve:
    length = places[-1]
    return MovingCurve(steps, places / length, (TrueMove(1, 0.1 * length, 0.5 * length, 0.9 * length),))


def _recovery(steps: np.ndarray, places: np.ndarray, rng: np.random.Generator) -> MovingCurve:
    turn, back, length = rng.uniform(9.2, 10.8), 0.4, places[-1]
    share = np.clip((places - turn + 3) / 3, 0, 1)
    rise = share**2 * (3 - 2 * share)
    fall = np.clip((places - turn) / (length - turn), 0, 1)
    grid = np.linspace(0, 1, 2001)
    risen = turn - 3 + 3 * np.interp([0.1, 0.5, 0.9], grid**2 * (3 - 2 * grid), grid)
    fallen = turn + np.array([0.1, 0.5, 0.9]) * (length - turn)
    moves = (TrueMove(1, *risen), TrueMove(-1, *fallen))
    return MovingCurve(steps, rise - back * fall, moves, turn)


def _stages(steps: np.ndarray, places: np.ndarray, rng: np.random.Generator) -> MovingCurve:
    first = rng.uniform(4, 5.5)
    centres = (first, first + 5.5)
    curve = sum(0.5 * _sigmoid(places, centre, 1.5) for centre in centres)
    moves = tuple(TrueMove(1, centre - 0.75, centre, centre + 0.75) for centre in centres)
    return MovingCurve(steps, np.asarray(curve), moves)
