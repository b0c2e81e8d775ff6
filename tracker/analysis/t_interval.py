"""Confidence intervals of a mean by Student's t."""

from collections.abc import Sequence

import numpy as np


def t_quantile(level: float, freedom: float) -> float:
    """Return the two-sided quantile of Student's t that holds ``level`` of the distribution."""
    from scipy.special import stdtrit  # slow to import: whoever only reads a report does not need it

    return float(stdtrit(freedom, (1 + level) / 2))


def t_half_width(values: np.ndarray | Sequence[float], level: float = 0.95) -> float | None:
    """Compute the half width of the confidence interval of a mean by Student's t.

    Args:
        values: (N,) independent values.
        level: confidence level.

    Returns:
        The half width in the unit of ``values``; None for fewer than two values.

    Example:
        >>> round(t_half_width([1.0, 2.0, 3.0]), 4)
        2.4841
        >>> t_half_width([1.0]) is None
        True
    """
    array = np.asarray(values, dtype=float)
    if len(array) < 2:
        return None
    return t_quantile(level, len(array) - 1) * float(array.std(ddof=1)) / float(np.sqrt(len(array)))
