"""Steps and metrics as given, checked and made whole.

T: checkpoints; D: metrics; S: sequences of the probe.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tracker.errors import RequestError

FLAT = 1e-12
"""A metric that varies less than this is constant: nothing in it can change."""


@dataclass(frozen=True)
class Curves:
    """Metrics at the checkpoints where all of them are defined."""

    steps: np.ndarray
    """(T,) steps."""
    names: tuple[str, ...]
    values: np.ndarray
    """(T, D) means."""
    samples: tuple[np.ndarray, ...] | None
    """D arrays (T, S), where every metric has sequences."""
    note: str | None
    """What was left out, and why."""

    def column(self, name: str) -> np.ndarray:
        """One metric's means, (T,)."""
        return self.values[:, self.names.index(name)]


def checked_steps(steps: Sequence[int] | np.ndarray) -> np.ndarray:
    """``steps`` as whole numbers, (T,).

    Raises:
        RequestError: they are no rising list of whole numbers from 0 on.
    """
    array = np.asarray(steps)
    if array.ndim != 1 or not len(array):
        raise RequestError(f"steps: shape {array.shape}; a list with one step per checkpoint is needed")
    whole = array.dtype.kind in "iuf" and np.all(np.isfinite(array)) and np.all(array == np.round(array))
    if not whole or np.any(array < 0):
        raise RequestError(f"steps={array.tolist()}: steps are whole numbers from 0 on")
    if np.any(np.diff(array) <= 0):
        raise RequestError(f"steps={array.tolist()}: each step must be larger than the one before it")
    return array.astype(np.int64)


def checked_metric(name: str, values: object, points: int) -> np.ndarray:
    """One metric as float array (T,) or (T, S), what is not finite as NaN.

    Raises:
        RequestError: its shape does not fit ``points`` checkpoints, or it holds no numbers.
    """
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise RequestError(f"metric {name}: not an array of numbers: {error}") from error
    if array.ndim not in (1, 2) or array.shape[0] != points or 0 in array.shape:
        raise RequestError(
            f"metric {name}: shape {array.shape}; {points} steps need ({points},) or ({points}, sequences)"
        )
    return np.where(np.isfinite(array), array, np.nan)


def _whole_sequences(array: np.ndarray) -> np.ndarray:
    """Drops sequences undefined at a checkpoint where others are defined; means where too few are left."""
    if array.ndim == 1:
        return array
    defined = np.isfinite(array)
    whole = defined[defined.any(axis=1)].all(axis=0)
    if whole.sum() >= 2:
        return array[:, whole]
    sums, counts = np.where(defined, array, 0.0).sum(axis=1), defined.sum(axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _note(undefined: list[str], constant: list[str], holes: np.ndarray) -> str | None:
    notes = [f"left out as undefined at most checkpoints: {', '.join(undefined)}"] if undefined else []
    notes += [f"left out as constant: {', '.join(constant)}"] if constant else []
    if len(holes):
        notes.append(f"left out as a metric is undefined there: step {', '.join(map(str, holes))}")
    return "; ".join(notes) or None


def gather_curves(steps: np.ndarray, metrics: Mapping[str, object]) -> Curves:
    """Metrics defined at more than half of the checkpoints, at the checkpoints where all of them are.

    Args:
        steps: (T,) from ``checked_steps``.
        metrics: name -> (T,) or (T, S).

    Raises:
        RequestError: a metric does not fit the steps.
    """
    points = len(steps)
    arrays = {name: _whole_sequences(checked_metric(name, each, points)) for name, each in metrics.items()}
    means = {name: each if each.ndim == 1 else each.mean(axis=1) for name, each in arrays.items()}
    undefined = [name for name, mean in means.items() if np.isfinite(mean).sum() * 2 <= points]
    names = [name for name in means if name not in undefined]
    kept = np.ones(points, dtype=bool)
    for name in names:
        kept &= np.isfinite(means[name])
    constant = [name for name in names if not kept.any() or np.ptp(means[name][kept]) <= FLAT]
    names = [name for name in names if name not in constant]
    values = np.array([means[name][kept] for name in names]).reshape(len(names), kept.sum()).T
    sampled = [arrays[name][kept] for name in names if arrays[name].ndim == 2 and arrays[name].shape[1] > 1]
    samples = tuple(sampled) if names and len(sampled) == len(names) else None
    return Curves(steps[kept], tuple(names), values, samples, _note(undefined, constant, steps[~kept]))
