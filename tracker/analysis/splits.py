"""Steps over model size: where one may be, how much it explains, how rare it is.

Many metrics and axes are tested at once, so p-values are also corrected for all of them.

M: models in order of size; P: permutations.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SIDE = 2
"""Models on either side of a step at least: one odd model is no threshold."""
EXACT = 8
"""Up to this many models every permutation is tried."""
PERMUTATIONS = 20_000


def places_of(sizes: np.ndarray) -> np.ndarray:
    """Return the numbers of models below a possible step: SIDE on both sides, and different sizes across it.

    Args:
        sizes: (M,) rising.
    """
    places = np.arange(SIDE, len(sizes) - SIDE + 1)
    return places[sizes[places] > sizes[places - 1]] if len(places) else places


def step_gain(values_PM: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Compute the squares saved by a step at each place, (P, places)."""
    models = values_PM.shape[1]
    below = np.cumsum(values_PM - values_PM.mean(axis=1, keepdims=True), axis=1)[:, places - 1]
    return below**2 * (1 / places + 1 / (models - places))


@functools.cache
def orders(models: int) -> np.ndarray:
    """Return orders (P, M) to permute models in, the given one first: all of them up to EXACT models."""
    if models <= EXACT:
        return np.array(list(itertools.permutations(range(models))))
    rng = np.random.default_rng(0)
    return np.vstack([np.arange(models), rng.permuted(np.tile(np.arange(models), (PERMUTATIONS, 1)), axis=1)])


def permuted_gains(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Compute the best step's gain in every order of the values (M,), the given order first: (P,)."""
    return step_gain(values[orders(len(values))], places).max(axis=1)


def share_at_least(gains: np.ndarray, observed: float) -> float:
    """Compute the share of ``gains`` as large as ``observed``, rounding aside."""
    return float((gains >= observed * (1 - 1e-9)).mean())


@dataclass(frozen=True)
class Trial:
    """One metric against one axis."""

    values: np.ndarray
    """(M,) the metric, in an order of models that every test of the family shares."""
    order: np.ndarray
    """(M,) numbers that put the models in order of size on this axis."""
    places: np.ndarray
    """Where a step may be (``splits.places_of``)."""


def corrected_p_values(tests: Sequence[Trial]) -> list[float]:
    """Compute family-wise p-values of the best step of each test, by the smallest p of all under permutation.

    Models change places for all metrics and axes at once, so that metrics which move together count as
    few tests and not as many (Westfall and Young 1993, algorithm 2.5, single step).

    Args:
        tests: of the same M models each.

    Returns:
        One per test, no smaller than its own p-value.
    """
    if not tests:
        return []
    shuffled = orders(len(tests[0].values))
    smallest = np.ones(len(shuffled))
    known: dict[tuple[bytes, bytes, bytes], np.ndarray] = {}
    own = []
    for test in tests:
        key = (test.values.tobytes(), test.order.tobytes(), test.places.tobytes())
        if key not in known:
            known[key] = _own_p_values(test, shuffled)
            smallest = np.minimum(smallest, known[key])
        own.append(float(known[key][0]))
    ranked = np.sort(smallest)
    return [float(np.searchsorted(ranked, p + 1e-12, side="right") / len(ranked)) for p in own]


def _own_p_values(test: Trial, shuffled: np.ndarray) -> np.ndarray:
    """The test's own p-value in every permutation, (P,), in single precision to save memory."""
    gains = step_gain(test.values[shuffled][:, test.order], test.places).max(axis=1)
    gains = np.round(gains / max(float(gains.max()), 1e-300), 9)
    ranked = np.sort(gains)
    return (1 - np.searchsorted(ranked, gains, side="left") / len(ranked)).astype(np.float32)
