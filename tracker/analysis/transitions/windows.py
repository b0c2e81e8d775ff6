"""Means over windows of neighbouring checkpoints, compared in pairs: how sure is it that a curve moved?

B: bins of checkpoints; N: curves; P: pairs of windows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tracker.analysis.transitions.noise import NoiseModel

CHUNK = 4_000_000
"""Numbers held at a time while many curves are compared."""


@dataclass(frozen=True)
class Windows:
    """Pairs of windows of 1, 2, 4 ... bins that do not overlap, of equal width."""

    low: np.ndarray
    """(P,) first bin of the earlier window."""
    high: np.ndarray
    """(P,) last bin of the later one."""
    contrast: np.ndarray
    """(P, B) later mean minus earlier mean."""
    excess: np.ndarray
    """(PERSISTENCE, P) by how much persistence changes the variance of the contrast."""

    def scores(
        self,
        curves_NB: np.ndarray,
        variance_NB: np.ndarray,
        kinds_N: np.ndarray,
        least_P: np.ndarray | float = 0.0,
    ) -> np.ndarray:
        """Differences over their standard errors, (N, P).

        Args:
            curves_NB: (N, B).
            variance_NB: (N, B) noise variance of each bin.
            kinds_N: (N,) numbers of the persistence.
            least_P: smallest variance of each difference, where sequences show it.
        """
        variance = (variance_NB @ (self.contrast**2).T) * self.excess[kinds_N]
        return (curves_NB @ self.contrast.T) / np.sqrt(np.maximum(variance, least_P) + 1e-300)

    def largest(self, curves_NB: np.ndarray, variance_NB: np.ndarray, kinds_N: np.ndarray) -> np.ndarray:
        """The largest score of each curve without its sign, (N,)."""
        found = np.empty(len(curves_NB))
        for part in _chunks(len(curves_NB), len(self.low)):
            found[part] = np.abs(self.scores(curves_NB[part], variance_NB[part], kinds_N[part])).max(axis=1)
        return found


def _chunks(curves: int, pairs: int) -> Iterator[slice]:
    size = max(1, CHUNK // pairs)
    return (slice(at, at + size) for at in range(0, curves, size))


def windows_of(model: NoiseModel) -> Windows:
    """Build every pair of windows up to half the bins wide."""
    bins = model.axis.bins
    low, high, contrasts, width = [], [], [], 1
    while width <= max(1, bins // 2):
        starts = np.arange(0, bins - width + 1, max(1, width // 2))
        means = (np.arange(bins) >= starts[:, None]) & (np.arange(bins) < starts[:, None] + width)
        earlier, later = np.nonzero(starts[:, None] + width <= starts)
        low.append(starts[earlier])
        high.append(starts[later] + width - 1)
        contrasts.append((means[later].astype(float) - means[earlier]) / width)
        width *= 2
    contrast = np.concatenate(contrasts)
    plain = [contrast**2 @ np.diag(shape.covariance) for shape in model.shapes]
    whole = [np.einsum("ij,ij->i", contrast @ shape.covariance, contrast) for shape in model.shapes]
    return Windows(np.concatenate(low), np.concatenate(high), contrast, np.array(whole) / np.array(plain))
