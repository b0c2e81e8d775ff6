"""One curve in bins of checkpoints, with its noise.

B: bins of checkpoints; R: draws.
"""

from dataclasses import dataclass

import numpy as np

from tracker.analysis.transitions.axis import Axis


@dataclass(frozen=True)
class Curve:
    """One curve in bins, and its noise."""

    axis: Axis
    values: np.ndarray
    """(B,)."""
    variance: np.ndarray
    """(B,) of its noise."""
    correlation: np.ndarray
    """(B, B) of its noise."""

    def noise(self, draws: int, rng: np.random.Generator) -> np.ndarray:
        """Draw its noise, (R, B)."""
        white = rng.normal(size=(draws, len(self.values)))
        return white @ np.linalg.cholesky(self.correlation).T * np.sqrt(self.variance)

    @property
    def weights(self) -> np.ndarray:
        """(B,) inverse variances."""
        return 1 / self.variance
