"""How much a curve moves between checkpoints without anything having changed.

T: checkpoints; D: metrics; S: sequences of the probe.
"""

import functools

import numpy as np
from scipy import stats

KEPT = 0.75
"""Share of the step-to-step differences that count as noise: the largest quarter may hold changes."""
CLIP = 2.0
"""Differences beyond this many noise units say little about how metrics move together."""
TINY = 1e-12


@functools.cache
def _trimming(differences: int) -> tuple[int, float]:
    """How many of the smallest squared differences to keep, and their mean for unit noise."""
    kept = max(2, int(KEPT * differences))
    share = min(kept / differences, 1.0)
    edge = float(stats.norm.ppf(0.5 + share / 2))
    trimmed = 1.0 if share == 1.0 else 1 - 2 * edge * float(stats.norm.pdf(edge)) / share
    return kept, 2 * trimmed


def difference_variance(values_TD: np.ndarray) -> np.ndarray:
    """Noise variance of each metric, (D,), from trimmed differences of neighbouring checkpoints.

    Slow drift inflates it a little and level shifts hardly at all (Rice 1984, trimmed).
    """
    squares = np.sort(np.diff(values_TD, axis=0) ** 2, axis=0)
    kept, mean = _trimming(len(squares))
    return squares[:kept].mean(axis=0) / mean + TINY


def sample_variance(samples_TS: np.ndarray) -> float:
    """Variance of a checkpoint's mean over the same S sequences, what each sequence always adds removed.

    A sequence that is hard at every checkpoint moves the whole curve and no step of it, so rows and
    columns are centred first.
    """
    rows, columns = samples_TS.shape
    left = samples_TS - samples_TS.mean(axis=0) - samples_TS.mean(axis=1, keepdims=True) + samples_TS.mean()
    return float((left**2).sum() / ((rows - 1) * (columns - 1)) / columns)


def noise_covariance(values_TD: np.ndarray, floor_D: np.ndarray | None = None) -> np.ndarray:
    """Noise covariance (D, D): variances from differences, at least ``floor_D``; correlations likewise."""
    variance = difference_variance(values_TD)
    if floor_D is not None:
        variance = np.maximum(variance, floor_D)
    steps = np.clip(np.diff(values_TD, axis=0) / np.sqrt(2 * variance), -CLIP, CLIP)
    together = steps.T @ steps + TINY * np.eye(len(variance))
    spread = np.sqrt(np.diag(together))
    return together / np.outer(spread, spread) * np.sqrt(np.outer(variance, variance))
