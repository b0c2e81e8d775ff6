"""What noise alone reaches: the size of a score from which on a move is claimed.

T: checkpoints; N: simulated curves; K: seeds.

A move is claimed where two windows of checkpoints differ by more than noise does anywhere in the curve
(multiscale test, Duembgen and Spokoiny 2001, Ann. Stat. 29:124). Simulated noise passes the same estimate of
its own size, so that the error of that estimate is in the critical value.
"""

import functools
from dataclasses import dataclass

import numpy as np
from scipy import signal

from tracker.analysis.transitions.axis import Axis, axis_of
from tracker.analysis.transitions.noise import NoiseModel, noise_model
from tracker.analysis.transitions.windows import Windows, windows_of

CURVES = 2000
"""Simulated curves of each kind of noise."""
LEVEL = 0.05
"""Share of curves without a move in which one is claimed."""


@dataclass(frozen=True)
class NoiseKind:
    """A kind of noise, and the share of false claims that is accepted under it."""

    persistent: float = 0.0
    """Share of its jitter that stays at the next checkpoint."""
    jitter: float = 0.0
    """Size of that jitter, relative to white noise."""
    growth: float = 1.0
    """Noise of the last checkpoint over that of the first."""
    level: float = LEVEL

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Draw curves of this noise, (..., T)."""
        white = rng.normal(size=shape)
        if self.jitter:
            jitter = rng.normal(size=shape)
            jitter[..., 1:] *= np.sqrt(1 - self.persistent**2)
            kept = np.asarray(signal.lfilter([1.0], [1.0, -self.persistent], jitter, axis=-1))
            white = white + self.jitter * kept
        return white * np.geomspace(1, self.growth, shape[-1])


PERSISTENT = (NoiseKind(0.5, 1.0, level=0.07), NoiseKind(0.8, 1.0, level=0.12))
MEANS = (NoiseKind(), NoiseKind(growth=4.0), NoiseKind(growth=0.25), *PERSISTENT)
"""Noise of curves of which only means are known."""
SEQUENCES = (NoiseKind(), NoiseKind(jitter=1.0), NoiseKind(jitter=3.0, level=0.04), *PERSISTENT)
"""Noise of curves whose sequences show the white part, and how it grows."""


@dataclass(frozen=True)
class Detector:
    """Everything about an axis that all curves on it share."""

    model: NoiseModel
    windows: Windows
    null: np.ndarray
    """(kinds, CURVES) largest scores in simulated noise, sorted."""
    kinds: tuple[NoiseKind, ...]

    @property
    def critical(self) -> float:
        """The score from which on a first move is claimed."""
        pairs = zip(self.null, self.kinds, strict=True)
        return max(float(np.quantile(null, 1 - kind.level, method="higher")) for null, kind in pairs)

    @property
    def critical_white(self) -> float:
        """The score that white noise reaches in LEVEL of curves."""
        return float(np.quantile(self.null[0], 1 - LEVEL, method="higher"))

    def p_value(self, score: float) -> float:
        """Share of simulated noise with as large a score, under the kind of noise that makes it likeliest.

        A kind of which more false claims are accepted counts for as much less.
        """
        counts = [len(null) - np.searchsorted(null, score) for null in self.null]
        shares = [
            (1 + n) / (CURVES + 1) * LEVEL / kind.level for n, kind in zip(counts, self.kinds, strict=True)
        ]
        return float(min(1.0, max(shares)))


@functools.lru_cache(maxsize=32)
def _null_scores(steps: bytes, kinds: tuple[NoiseKind, ...]) -> np.ndarray:
    axis = axis_of(np.frombuffer(steps, dtype=np.int64))
    model = noise_model(axis)
    windows, rng = windows_of(model), np.random.default_rng(0)
    floor = (axis.pool**2).sum(axis=1) if kinds is SEQUENCES else 0.0
    found = []
    for kind in kinds:
        curves = kind.draw((CURVES, len(axis.steps)), rng)
        persistent = model.persistence(curves)
        binned = curves @ axis.pool.T
        variance = np.maximum(model.variance(binned, persistent), floor)
        found.append(np.sort(windows.largest(binned, variance, persistent)))
    return np.array(found)


def detector(axis: Axis, profile_T: np.ndarray | None = None) -> Detector:
    """Prepare the test for moves on ``axis``.

    Args:
        axis: at least three bins.
        profile_T: (T,) relative noise of each checkpoint, where sequences show it.
    """
    model = noise_model(axis, profile_T)
    kinds = MEANS if profile_T is None else SEQUENCES
    return Detector(model, windows_of(model), _null_scores(axis.key, kinds), kinds)
