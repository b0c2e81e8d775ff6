"""Smooth trends over model size: lines, hinges and wide sigmoids.

T: points, in order; J: shapes.
"""

from collections.abc import Sequence

import numpy as np

RISE = 2 * np.log(9.0)
"""A logistic curve climbs from 10 % to 90 % over this many of its scales."""
WIDTHS = (0.5, 0.7, 1.0)
"""10-90 % widths of the sigmoids, as shares of the whole range: half of it or more counts as smooth."""
CENTRES = np.linspace(0.15, 0.85, 8)
"""Centres of the sigmoids over the range: inside it, since a curve that sets in late has changed."""


def unit_range(position: np.ndarray) -> np.ndarray:
    """``position`` (T,), rising, mapped onto 0..1."""
    return (position - position[0]) / (position[-1] - position[0])


def sigmoids(
    position: np.ndarray, widths: Sequence[float] | np.ndarray = WIDTHS, centres: np.ndarray = CENTRES
) -> np.ndarray:
    """Sigmoids over ``position`` (T,), of every width with every centre: (J, T), widths outermost."""
    place = unit_range(position)
    width, centre = (grid.ravel()[:, None] for grid in np.meshgrid(widths, centres, indexing="ij"))
    return 1.0 / (1.0 + np.exp(-(place - centre) * RISE / width))


def _least_residual(values: np.ndarray, designs: list[np.ndarray]) -> float:
    residuals = []
    for columns in designs:
        basis = np.linalg.qr(np.column_stack([np.ones(len(values)), columns]))[0]
        residuals.append(float((values**2).sum() - ((basis.T @ values) ** 2).sum()))
    return max(min(residuals), 0.0)


def hinge_residual(position: np.ndarray, values: np.ndarray) -> float:
    """Sum of squares left by the best straight line or hinge (two lines that meet at one of the points).

    ``position`` and ``values`` have shape (T,).
    """
    place = unit_range(position)
    knots = np.unique(place[1:-1])
    designs = [place[:, None], *(np.column_stack([place, np.maximum(place - k, 0)]) for k in knots)]
    return _least_residual(values, designs)


def sigmoid_residual(position: np.ndarray, values: np.ndarray) -> float:
    """Sum of squares left by the best sigmoid at least half the range wide; shapes (T,)."""
    return _least_residual(values, [shape[:, None] for shape in sigmoids(position)])
