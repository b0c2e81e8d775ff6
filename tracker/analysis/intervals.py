"""How sure a bracket is: everything again on resampled sequences.

T: checkpoints; D: metrics; S: sequences of the probe; R: resamples.
"""

from collections.abc import Callable, Sequence

import numpy as np

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


def bracket_confidence(curves_RTD: np.ndarray, breaks: tuple[int, ...], search: Search) -> tuple[float, ...]:
    """Share of the resampled curves whose changes include each break at exactly the same place."""
    found = [search(curve) for curve in curves_RTD]
    return tuple(sum(place in each for each in found) / len(found) for place in breaks)
