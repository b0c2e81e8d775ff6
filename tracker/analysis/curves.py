"""Steps as given, checked."""

from collections.abc import Sequence

import numpy as np

from tracker.errors import RequestError


def checked_steps(steps: Sequence[int] | np.ndarray) -> np.ndarray:
    """Check that steps are whole numbers that rise, (T,).

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
