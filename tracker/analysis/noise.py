"""How much a curve moves between checkpoints without anything having changed.

T: checkpoints; D: metrics; S: sequences of the probe.
"""

import functools

import numpy as np
from scipy import signal, stats

KEPT = 0.75
"""Share of the step-to-step differences that count as noise: the largest quarter may hold changes."""
CLIP = 2.0
"""Differences beyond this many noise units say little about how metrics move together."""
TINY = 1e-12
FEWEST_PERSISTENT = 8
"""Checkpoints below which persistence is not estimated and counts as none."""
APART = 3
"""Checkpoints between which a persistent wobble has moved, and a shift touches few pairs."""
SLACK = 17.0
"""Those differences may exceed the sequences' noise by the share (SLACK / T)^2: of few checkpoints a shift
touches so many pairs that the trimming counts large ones in for them; of many it does not."""
BIAS = 1.5
"""What fitting a level and a trend takes from the autocorrelation, times the number of checkpoints."""
UNSURE = 1.3
"""How far above what differences show persistence may be, times the root of the number of checkpoints:
one standard error."""
MOST_PERSISTENT = 0.9
"""Beyond this a wobble is a drift."""


@functools.cache
def _trimming(differences: int) -> tuple[int, float]:
    """How many of the smallest squared differences to keep, and their mean for unit noise."""
    kept = max(2, int(KEPT * differences))
    share = min(kept / differences, 1.0)
    edge = float(stats.norm.ppf(0.5 + share / 2))
    trimmed = 1.0 if share == 1.0 else 1 - 2 * edge * float(stats.norm.pdf(edge)) / share
    return kept, trimmed


def _trimmed_variance(squares: np.ndarray) -> np.ndarray:
    """Variance (D,) from squares that are those of Gaussian noise but for the largest quarter."""
    kept, mean = _trimming(len(squares))
    return np.sort(squares, axis=0)[:kept].mean(axis=0) / mean + TINY


def difference_variance(values_TD: np.ndarray) -> np.ndarray:
    """Noise variance of each metric, (D,), from trimmed differences of neighbouring checkpoints.

    Level shifts hardly inflate it, drift does: it holds whatever moves from checkpoint to checkpoint.
    """
    return _trimmed_variance(np.diff(values_TD, axis=0) ** 2 / 2)


def bend_variance(values_TD: np.ndarray) -> np.ndarray:
    """Like ``difference_variance``, from each checkpoint's distance to the middle of its neighbours.

    A straight drift does not inflate it; never more than ``difference_variance``.
    """
    bends = values_TD[1:-1] - (values_TD[:-2] + values_TD[2:]) / 2
    return np.minimum(_trimmed_variance(bends**2 / 1.5), difference_variance(values_TD))


def sample_variance(samples_TS: np.ndarray) -> float:
    """Variance of a checkpoint's mean over the same S sequences, what each sequence always adds removed.

    A sequence that is hard at every checkpoint moves the whole curve and no step of it, so rows and
    columns are centred first.
    """
    rows, columns = samples_TS.shape
    left = samples_TS - samples_TS.mean(axis=0) - samples_TS.mean(axis=1, keepdims=True) + samples_TS.mean()
    return float((left**2).sum() / ((rows - 1) * (columns - 1)) / columns)


def noise_covariance(
    values_TD: np.ndarray, floor_D: np.ndarray | None = None, *, straight: bool = False
) -> np.ndarray:
    """Noise covariance (D, D), its correlations from how the differences go together.

    Args:
        values_TD: (T, D) means.
        floor_D: (D,) smallest variances, where sequences show them.
        straight: whether straight drift is not to count as noise (``bend_variance``).
    """
    variance = bend_variance(values_TD) if straight else difference_variance(values_TD)
    if floor_D is not None:
        variance = np.maximum(variance, floor_D)
    steps = np.clip(np.diff(values_TD, axis=0) / np.sqrt(2 * variance), -CLIP, CLIP)
    together = steps.T @ steps + TINY * np.eye(len(variance))
    spread = np.sqrt(np.diag(together))
    return together / np.outer(spread, spread) * np.sqrt(np.outer(variance, variance))


def persistence(residual_TD: np.ndarray, floor_D: np.ndarray | None = None) -> float:
    """How much of a checkpoint's wobble stays at the next, 0 to 0.9: the coefficient of an AR(1) process.

    The lag-one autocorrelation of what a curve leaves, its bias added (Kendall 1954, Biometrika 41:403).
    A change that the curve missed passes for persistence too. So it is no more than an upper limit from
    differences over one, two and three checkpoints, whose variances go as 1, 1 + r and 1 + r + r^2: with
    the largest quarter trimmed, a change hardly touches them. And where sequences show the noise and
    checkpoints three apart differ by no more than that, there is none.

    Args:
        residual_TD: (T, D) what a smooth curve leaves.
        floor_D: (D,) noise variance as sequences show it.
    """
    points = len(residual_TD)
    if points < FEWEST_PERSISTENT:
        return 0.0
    if floor_D is not None:
        apart = _trimmed_variance((residual_TD[APART:] - residual_TD[:-APART]) ** 2 / 2)
        if np.mean(apart / np.maximum(floor_D, TINY)) <= 1 + (SLACK / points) ** 2:
            return 0.0
    together = float((residual_TD[1:] * residual_TD[:-1]).sum())
    share = together / max(float((residual_TD**2).sum()), TINY) + BIAS / points
    limit = _local_persistence(residual_TD) + UNSURE / np.sqrt(points)
    return float(np.clip(min(share, limit), 0.0, MOST_PERSISTENT))


def _local_persistence(residual_TD: np.ndarray) -> float:
    one, two, three = (
        float(_trimmed_variance((residual_TD[lag:] - residual_TD[:-lag]) ** 2 / 2).sum()) for lag in (1, 2, 3)
    )
    by_three = (np.sqrt(max(4 * three / one - 3, 0.0)) - 1) / 2
    return (two / one - 1 + by_three) / 2


def persistent(white: np.ndarray, share: float) -> np.ndarray:
    """White noise (..., T, D) made to persist by ``share`` from checkpoint to checkpoint, variance kept."""
    scaled = white * np.sqrt(1 - share**2)
    scaled[..., 0, :] = white[..., 0, :]
    return np.asarray(signal.lfilter([1.0], [1.0, -share], scaled, axis=-2))
