"""Many metrics and axes are tested at once: p-values that keep this in mind.

M: models; P: permutations.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tracker.analysis.splits import orders, step_gain


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
    """Family-wise p-values of the best step of each test, by the smallest p of all under permutation.

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
