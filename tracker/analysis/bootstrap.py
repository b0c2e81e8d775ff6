"""How sure a bracket is: everything again on resampled sequences.

T: checkpoints; D: metrics; S: sequences of the probe; R: resamples.
"""

from collections.abc import Callable, Sequence

import numpy as np

LEVEL = 0.9
"""Share of resamples that a range of places is to hold."""
Search = Callable[[np.ndarray], tuple[int, ...]]
"""From means (T, D) to breaks."""


def resampled_means(samples: Sequence[np.ndarray], resamples: int, seed: int = 0) -> np.ndarray:
    """Means over sequences drawn with replacement, shape (R, T, D).

    Args:
        samples: D arrays (T, S); metrics with as many sequences share each draw, since they are the
            same sequences, and so do the checkpoints.
        resamples: R.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    sizes = sorted({array.shape[1] for array in samples})
    weights = {size: rng.multinomial(size, np.full(size, 1 / size), resamples).T / size for size in sizes}
    return np.stack([array @ weights[array.shape[1]] for array in samples], axis=-1).transpose(1, 0, 2)


def resampled_breaks(curves_RTD: np.ndarray, search: Search) -> list[tuple[int, ...]]:
    """The breaks of every resampled curve."""
    return [search(curve) for curve in curves_RTD]


def bracket_confidence(found: Sequence[tuple[int, ...]], breaks: tuple[int, ...]) -> tuple[float, ...]:
    """Share of the resampled curves whose changes include each break at exactly the same place."""
    return tuple(sum(place in each for each in found) / len(found) for place in breaks)


def bootstrap_spans(found: Sequence[tuple[int, ...]], breaks: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """For each break the narrowest range of places that holds it in 90 % of the resampled curves.

    The break of a resampled curve is the nearest one between the neighbours of ``breaks``; curves that
    have none there say nothing about its place.
    """
    spans = []
    for number, place in enumerate(breaks):
        low = breaks[number - 1] if number else 0
        high = breaks[number + 1] if number + 1 < len(breaks) else np.inf
        near = [
            min(there, key=lambda at, p=place: abs(at - p))
            for each in found
            if (there := [at for at in each if low < at < high])
        ]
        spans.append(_narrowest(np.sort(near), place))
    return tuple(spans)


def _narrowest(places: np.ndarray, best: int) -> tuple[int, int]:
    """The shortest stretch of sorted ``places`` with LEVEL of them; of several the one around ``best``."""
    count = int(np.ceil(LEVEL * len(places)))
    if not count:
        return best, best
    starts, ends = places[: len(places) - count + 1], places[count - 1 :]
    number = int(np.lexsort((abs(starts + ends - 2 * best), ends - starts))[0])
    return int(starts[number]), int(ends[number])
