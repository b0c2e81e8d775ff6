"""How far a checkpoint's value is off without anything having changed.

T: checkpoints; B: bins of checkpoints; N: curves; S: sequences; K: seeds.

Sequences tell a part of it, the jitter of training from checkpoint to checkpoint is the other part and is
mostly larger. A single run shows it in each checkpoint's distance to the line through its neighbours
(Gasser, Sroka and Jennen-Steinmetz 1986, Biometrika 73:625); several seeds show it in their differences.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from tracker.analysis.transitions.axis import LONG, Axis

PERSISTENCE = np.array([0.0, 0.3, 0.5, 0.65, 0.8])
"""Shares of a deviation that may stay at the next checkpoint."""
LAGS = (2, 3)
"""Distances, in checkpoints, that are compared with neighbours to tell persistence."""
CAUTION = 12.0
"""Over the number of checkpoints: how much less persistence is believed than shows; a jump shows some."""
SHARP = 3
"""Distances that one jump or turning point makes large: so many of the largest are left out,"""
TRIMMED = 0.1
"""or this share of them where there are many."""
NEARBY = 1
"""Noise is taken from so many distances on either side of a checkpoint,"""
OVERALL = 2.0
"""with the whole curve's weighing as much as so many of them,"""
CAP = 8.0
"""and none counting for more than so many times the whole curve's variance."""
MOVING = 2.0
"""Where the fit moves by more standard deviations between a checkpoint's neighbours, its distance to them
tells of the move and not of noise;"""
QUIET = 4
"""noise is then taken from the others, where there are so many at least."""
PROFILE = (0.2, 1.5)
"""Range of the noise of a checkpoint relative to the median: where texts stand still, so does training."""
TINY = 1e-300


def _second_differences(places: np.ndarray, lag: int = 1) -> np.ndarray:
    """(n, B): each row gives the distance of a point to the line through those ``lag`` before and after."""
    middle = np.arange(lag, len(places) - lag)
    share = (places[middle + lag] - places[middle]) / (places[middle + lag] - places[middle - lag])
    rows = np.zeros((len(middle), len(places)))
    number = np.arange(len(middle))
    rows[number, middle] = 1.0
    rows[number, middle - lag] = -share
    rows[number, middle + lag] = share - 1
    return rows


def autoregression(points: int, keep: float) -> np.ndarray:
    """Covariance (T, T) of unit noise of which the share ``keep`` stays at the next checkpoint."""
    apart = np.abs(np.arange(points)[:, None] - np.arange(points))
    return keep**apart


def trimmed_mean(squares: np.ndarray, lag: int = 1) -> np.ndarray:
    """Variance (N,) from squared unit normals (N, n) whose largest may hold jumps and turning points.

    Args:
        squares: (N, n) of distances to the checkpoints ``lag`` before and after.
        lag: the further, the more distances a jump makes large.
    """
    number = squares.shape[-1]
    dropped = max(min(SHARP * lag, number // 2) if lag > 1 else SHARP, int(TRIMMED * number))
    kept = max(1, number - dropped)
    edge = float(stats.norm.ppf(0.5 + kept / number / 2))
    share = 1 - 2 * edge * float(stats.norm.pdf(edge)) * number / kept if kept < number else 1.0
    return np.sort(squares, axis=-1)[..., :kept].mean(axis=-1) / share


@dataclass(frozen=True)
class _Shape:
    """What unit noise of one persistence looks like in bins."""

    covariance: np.ndarray
    """(B, B)."""
    rows: np.ndarray
    """(n, B) distances to neighbours, each of unit variance under the covariance."""


@dataclass(frozen=True)
class NoiseModel:
    """How noise is told on one axis."""

    axis: Axis
    shapes: tuple[_Shape, ...]
    """One per PERSISTENCE."""
    far: tuple[np.ndarray, ...]
    """Distances to checkpoints 1 and LAGS away, of unit variance in white noise; empty in short runs."""
    expected: np.ndarray
    """(PERSISTENCE,) what their mean log ratio to the nearest is."""

    def variance(self, curves_NB: np.ndarray, kinds_N: np.ndarray) -> np.ndarray:
        """Noise variance of every bin of every curve, (N, B), told by its distances to its neighbours.

        Args:
            curves_NB: (N, B).
            kinds_N: (N,) numbers of their persistence.
        """
        variance = np.empty_like(curves_NB)
        for kind in np.unique(kinds_N):
            mine, shape = kinds_N == kind, self.shapes[kind]
            squares = (curves_NB[mine] @ shape.rows.T) ** 2
            whole = trimmed_mean(squares)[:, None] + TINY
            variance[mine] = _smoothed(np.minimum(squares, CAP * whole), whole) * np.diag(shape.covariance)
        return variance

    def quiet_variance(self, curve_B: np.ndarray, fitted_B: np.ndarray, kind: int) -> np.ndarray:
        """Noise variance of every bin, (B,), from where the curve does not move.

        Args:
            curve_B: (B,).
            fitted_B: (B,) its monotone pieces.
            kind: number of its persistence.
        """
        shape = self.shapes[kind]
        squares = (curve_B @ shape.rows.T) ** 2
        sizes = np.diag(shape.covariance)
        whole = float(trimmed_mean(squares)) + TINY
        moved = np.abs(fitted_B[2:] - fitted_B[:-2]) > MOVING * np.sqrt(whole * sizes[1:-1])
        if (~moved).sum() < QUIET:
            return self.variance(curve_B[None], np.array([kind]))[0]
        level = min(float(trimmed_mean(squares[~moved])), whole) + TINY
        heard = np.where(moved, 0.0, np.minimum(squares, CAP * level))
        width = np.ones(2 * NEARBY + 1)
        near, number = np.convolve(heard, width, "same"), np.convolve(~moved, width, "same")
        return np.pad((OVERALL * level + near) / (OVERALL + number), 1, mode="edge") * sizes

    def persistence(self, curves_NT: np.ndarray) -> np.ndarray:
        """Numbers of the PERSISTENCE that each curve shows, (N,); none where a run is short."""
        if not self.far:
            return np.zeros(len(curves_NT), dtype=int)
        sizes = [
            np.log(trimmed_mean((curves_NT @ rows.T) ** 2, lag) + TINY)
            for rows, lag in zip(self.far, (1, *LAGS), strict=True)
        ]
        ratio = np.mean(sizes[1:], axis=0) - sizes[0] - CAUTION / len(self.axis.steps)
        return np.abs(ratio[:, None] - self.expected).argmin(axis=1)


def _smoothed(squares_Nn: np.ndarray, whole_N1: np.ndarray) -> np.ndarray:
    """Local means of squares, drawn to the whole curve's, with the ends repeated: (N, n + 2)."""
    mode = "reflect" if squares_Nn.shape[1] > NEARBY else "edge"
    padded = np.pad(squares_Nn, [(0, 0), (NEARBY, NEARBY)], mode=mode)
    width = 2 * NEARBY + 1
    near = np.lib.stride_tricks.sliding_window_view(padded, width, axis=1).mean(axis=-1)
    local = (OVERALL * whole_N1 + width * near) / (OVERALL + width)
    return np.pad(local, [(0, 0), (1, 1)], mode="edge")


def noise_model(axis: Axis, profile_T: np.ndarray | None = None) -> NoiseModel:
    """Prepare how noise is told on ``axis``.

    Args:
        axis: at least three bins.
        profile_T: (T,) the noise of each checkpoint relative to the others, where sequences show it.
    """
    points = len(axis.steps)
    profile = np.ones(points) if profile_T is None else profile_T
    rows, shapes = _second_differences(axis.places), []
    for keep in PERSISTENCE:
        whole = autoregression(points, keep) * profile[:, None] * profile
        covariance = axis.pool @ whole @ axis.pool.T
        size = np.einsum("ij,jk,ik->i", rows, covariance, rows)
        shapes.append(_Shape(covariance, rows / np.sqrt(size)[:, None]))
    if points < LONG:
        return NoiseModel(axis, tuple(shapes), (), np.zeros(len(PERSISTENCE)))
    positions = np.log2(axis.steps + 1.0)
    far = [_second_differences(positions, lag) for lag in (1, *LAGS)]
    far = [each / np.sqrt(each**2 @ profile**2)[:, None] for each in far]
    expected = []
    for keep in PERSISTENCE:
        covariance = autoregression(points, keep)
        sizes = [np.log(np.einsum("ij,jk,ik->i", each, covariance, each).mean()) for each in far]
        expected.append(np.mean(sizes[1:]) - sizes[0])
    return NoiseModel(axis, tuple(shapes), tuple(far), np.array(expected))


def sequence_noise(axis: Axis, samples_TS: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Standard error of every checkpoint's mean over sequences, (T,), and its profile over training, (T,).

    What a sequence always adds, and what it gains or loses steadily, is removed: it moves no checkpoint
    against its neighbours. Zeros and None without sequences.
    """
    points = len(axis.steps)
    if samples_TS is None or points < 3:
        return np.zeros(points), None
    number = samples_TS.shape[1]
    rows = _second_differences(np.log2(axis.steps + 1.0))
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    left = rows @ (samples_TS - samples_TS.mean(axis=1, keepdims=True))
    squares = (left**2).sum(axis=1) / (number * (number - 1))
    padded = np.pad(squares, 2, mode="edge")
    own = np.sqrt(np.convolve(padded, np.full(3, 1 / 3), mode="valid"))
    middle = float(np.median(own))
    return own, np.clip(np.sqrt(own / middle), *PROFILE) if middle > 0 else None
