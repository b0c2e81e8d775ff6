"""Curves as they are given: means, sequences and seeds, at the checkpoints where they are defined.

T: checkpoints; S: sequences; K: seeds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tracker.analysis.labels import label_columns
from tracker.errors import RequestError

LOW_BAND = "band_power_low"


@dataclass(frozen=True)
class Given:
    """One curve."""

    steps: np.ndarray
    """(T,) where it is defined."""
    mean: np.ndarray
    """(T,) over sequences and seeds."""
    sequences: np.ndarray | None = None
    """(T, S) of a single seed, two sequences or more."""
    seeds: np.ndarray | None = None
    """(K, T) mean of every seed, two or more."""
    note: str | None = None
    """What was left out."""


def given_curves(steps: np.ndarray, metrics: Mapping[str, object]) -> dict[str, Given]:
    """Check every metric and take it apart.

    Args:
        steps: (T,) from ``checked_steps``.
        metrics: name -> (T,), (T, S) or (T, S, K).

    Raises:
        RequestError: a metric does not fit the steps, or holds no numbers.
    """
    return {name: _given(steps, _checked(name, values, len(steps))) for name, values in metrics.items()}


def _checked(name: str, values: object, points: int) -> np.ndarray:
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise RequestError(f"metric {name}: not an array of numbers: {error}") from error
    if array.ndim not in (1, 2, 3) or array.shape[0] != points or 0 in array.shape:
        raise RequestError(
            f"metric {name}: shape {array.shape}; {points} steps need ({points},), ({points}, sequences) or "
            f"({points}, sequences, seeds)"
        )
    return np.where(np.isfinite(array), array, np.nan)


def _given(steps: np.ndarray, array: np.ndarray) -> Given:
    if array.ndim == 3:
        used = _seeds_used(np.asarray(np.isfinite(array).any(axis=1)))
        given = _of_seeds(steps, array[:, :, used]) if len(used) > 1 else _given(steps, array[:, :, used[0]])
        lost = [str(number + 1) for number in range(array.shape[2]) if number not in used]
        if not lost:
            return given
        apart = (
            f"seed {', '.join(lost)} of {array.shape[2]}: left out, since it lacks checkpoints of the others"
        )
        return replace(given, note="; ".join(filter(None, (apart, given.note))))
    if array.ndim == 1:
        kept = np.isfinite(array)
        return _noted(Given(steps[kept], array[kept]), steps, kept)
    defined = np.isfinite(array)
    kept = np.asarray(defined.any(axis=1))
    whole = defined[kept].all(axis=0)
    if whole.sum() >= 2:
        chosen = array[kept][:, whole]
        return _noted(Given(steps[kept], chosen.mean(axis=1), chosen), steps, kept)
    mean = np.nansum(array[kept], axis=1) / defined[kept].sum(axis=1)
    return _noted(Given(steps[kept], mean), steps, kept)


def _seeds_used(defined_TK: np.ndarray) -> list[int]:
    """Numbers of the seeds that are taken together: those with the most values at checkpoints of them all."""
    used = list(range(defined_TK.shape[1]))

    def values(seeds: list[int]) -> int:
        return len(seeds) * int(defined_TK[:, seeds].all(axis=1).sum())

    while len(used) > 1 and not defined_TK[:, used].all():
        fewer = max(([each for each in used if each != seed] for seed in used), key=values)
        if values(fewer) < values(used):
            break
        used = fewer
    return used


def _of_seeds(steps: np.ndarray, array: np.ndarray) -> Given:
    counts = np.isfinite(array).sum(axis=1)
    seeds = np.nansum(array, axis=1) / np.maximum(counts, 1)
    kept = (counts > 0).all(axis=1)
    return _noted(Given(steps[kept], seeds[kept].mean(axis=1), seeds=seeds[kept].T), steps, kept)


def _noted(given: Given, steps: np.ndarray, kept: np.ndarray) -> Given:
    lost = steps[~kept].tolist()
    if not lost:
        return given
    named = ", ".join(map(str, lost[:5])) + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
    return replace(given, note=f"undefined at step {named}: left out")


def joint_curve(curves: Mapping[str, Given]) -> Given | None:
    """Combine curves into one, in standard deviations; None where none varies.

    Spectral entropy up, selectivity and low-band power down where the first two are given; otherwise the
    first principal component of all, rising with the first.

    Args:
        curves: those that were given, at least one.
    """
    columns = label_columns(list(curves))
    if columns is not None:
        low = columns[0].replace("spectral_entropy", LOW_BAND)
        weights = {columns[0]: 1.0, columns[1]: -1.0} | ({low: -1.0} if low in curves else {})
        named = {name: curves[name] for name in weights}
    else:
        named, weights = dict(curves), {}
    steps = sorted(set.intersection(*(set(each.steps.tolist()) for each in named.values())))
    cut = {name: _at(each, np.array(steps, dtype=np.int64)) for name, each in named.items()}
    cut = {name: each for name, each in cut.items() if len(steps) and np.ptp(each.mean) > 1e-12}
    if not cut or (columns is not None and len(cut) < len(named)):
        return None
    sizes = {name: float(each.mean.std()) for name, each in cut.items()}
    if not weights:
        weights = _component(cut, sizes)
    return _combined(cut, {name: weights[name] / sizes[name] for name in cut})


def _at(given: Given, steps: np.ndarray) -> Given:
    rows = np.searchsorted(given.steps, steps)
    return Given(
        steps,
        given.mean[rows],
        None if given.sequences is None else given.sequences[rows],
        None if given.seeds is None else given.seeds[:, rows],
        given.note,
    )


def _component(curves: Mapping[str, Given], sizes: Mapping[str, float]) -> dict[str, float]:
    scaled = np.array([(each.mean - each.mean.mean()) / sizes[name] for name, each in curves.items()])
    first = np.linalg.svd(scaled, full_matrices=False)[0][:, 0]
    first = first * np.sign(first[np.abs(first).argmax()])
    return dict(zip(curves, (first / np.abs(first).sum() * len(first)).tolist(), strict=True))


def _combined(curves: Mapping[str, Given], factors: Mapping[str, float]) -> Given:
    each = list(curves.values())
    share = 1 / len(each)

    def mixed(arrays: list[np.ndarray | None]) -> np.ndarray | None:
        whole = [array for array in arrays if array is not None]
        if len(whole) < len(arrays) or len({array.shape for array in whole}) > 1:
            return None
        return sum(share * f * array for f, array in zip(factors.values(), whole, strict=True))  # type: ignore[return-value]

    centres = sum(share * factors[name] * curve.mean.mean() for name, curve in curves.items())
    mean, sequences = mixed([c.mean for c in each]), mixed([c.sequences for c in each])
    seeds = mixed([c.seeds for c in each])
    assert mean is not None
    note = "; ".join(dict.fromkeys(c.note for c in each if c.note)) or None
    return Given(
        each[0].steps,
        mean - centres,
        None if sequences is None else sequences - centres,
        None if seeds is None else seeds - centres,
        note,
    )
