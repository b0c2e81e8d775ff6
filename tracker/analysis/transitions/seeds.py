"""Noise as several seeds show it: how they differ, and for how many checkpoints.

T: checkpoints; B: bins of checkpoints; N: curves; K: seeds.
"""

import functools

import numpy as np

from tracker.analysis.transitions.axis import Axis, axis_of
from tracker.analysis.transitions.noise import NEARBY, OVERALL, PERSISTENCE, noise_model
from tracker.analysis.transitions.significance import CURVES, NoiseKind
from tracker.analysis.transitions.windows import windows_of

KINDS = (NoiseKind(), NoiseKind(0.5, 100.0), NoiseKind(0.8, 100.0))


def persistence_of(left_NKT: np.ndarray) -> np.ndarray:
    """Numbers of the PERSISTENCE that the seeds' differences from their mean show, (N,)."""
    points = left_NKT.shape[-1]
    along = (left_NKT[..., 1:] * left_NKT[..., :-1]).sum(axis=(1, 2)) * points / (points - 1)
    kept = along / ((left_NKT**2).sum(axis=(1, 2)) + 1e-300)
    return np.abs(kept[:, None] - PERSISTENCE).argmin(axis=1)


def variance_of_mean(left_NKT: np.ndarray, axis: Axis) -> np.ndarray:
    """Noise variance of the mean over seeds in every bin, (N, B), from neighbouring bins together."""
    seeds = left_NKT.shape[1]
    squares = ((left_NKT @ axis.pool.T) ** 2).sum(axis=1) / (seeds * (seeds - 1)) + 1e-300
    whole = squares.mean(axis=1, keepdims=True)
    width = 2 * NEARBY + 1
    padded = np.pad(squares, [(0, 0), (NEARBY, NEARBY)], mode="edge")
    near = np.lib.stride_tricks.sliding_window_view(padded, width, axis=1).mean(axis=-1)
    return (OVERALL * whole + width * near) / (OVERALL + width)


@functools.lru_cache(maxsize=32)
def null_scores(steps: bytes, seeds: int) -> np.ndarray:
    """Largest scores of simulated noise of so many seeds, (KINDS, CURVES), sorted."""
    axis = axis_of(np.frombuffer(steps, dtype=np.int64))
    windows, rng = windows_of(noise_model(axis)), np.random.default_rng(0)
    found = []
    for kind in KINDS:
        curves = kind.draw((CURVES, seeds, len(axis.steps)), rng)
        mean = curves.mean(axis=1)
        left = curves - mean[:, None]
        variance = variance_of_mean(left, axis)
        found.append(np.sort(windows.largest(mean @ axis.pool.T, variance, persistence_of(left))))
    return np.array(found)
