"""Smooth trends: what a curve may do without anything having changed.

T: points of the curve, in order; D: metrics; J: shapes.
"""

from collections.abc import Sequence

import numpy as np

RISE = 2 * np.log(9.0)
"""A logistic curve climbs from 10 % to 90 % over this many of its scales."""
WIDTHS = (0.5, 0.7, 1.0)
"""10-90 % widths of the sigmoids, as shares of the whole range: half of it or more counts as smooth."""
WIDEST = 1.5
"""Wider ones are straight lines."""
ZOOMS = 5
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


def _centred(shapes: np.ndarray) -> np.ndarray:
    """Each row with mean 0 and norm 1."""
    shapes = shapes - shapes.mean(axis=1, keepdims=True)
    return shapes / np.linalg.norm(shapes, axis=1, keepdims=True)


def drift_shapes(position: np.ndarray) -> np.ndarray:
    """The straight line and the wide sigmoids over ``position`` (T,): (J, T), each centred with norm 1."""
    return _centred(np.vstack([unit_range(position), sigmoids(position)]))


def _best(values: np.ndarray, shapes_JT: np.ndarray) -> tuple[np.ndarray, float, int]:
    """The shape that fits best, fitted; the squares it explains; its number."""
    projections = shapes_JT @ values
    best = int(np.abs(projections).argmax())
    return shapes_JT[best] * projections[best], float(projections[best] ** 2), best


def _best_sigmoid(values: np.ndarray, position: np.ndarray) -> tuple[np.ndarray, float]:
    """The best wide sigmoid for ``values`` (T,), its width and centre found to a fine grid by zooming in."""
    widths, centres = np.geomspace(WIDTHS[0], WIDEST, 12), np.linspace(CENTRES[0], CENTRES[-1], 21)
    reach = np.array([np.log(widths[1] / widths[0]), centres[1] - centres[0]])
    fitted, explained = np.zeros_like(values), -1.0
    for _ in range(ZOOMS):
        curve, squares, best = _best(values, _centred(sigmoids(position, widths, centres)))
        if squares > explained:
            fitted, explained = curve, squares
        width, centre = widths[best // len(centres)], centres[best % len(centres)]
        around = np.linspace(-1, 1, 9)
        widths = np.clip(width * np.exp(around * reach[0]), WIDTHS[0], WIDEST)
        centres = np.clip(centre + around * reach[1], CENTRES[0], CENTRES[-1])
        reach = reach / 4
    return fitted, explained


def best_drift(centred_TD: np.ndarray, position: np.ndarray) -> np.ndarray:
    """The best line or wide sigmoid for each metric, (T, D); the input's columns have mean 0."""
    line = _centred(unit_range(position)[None])
    fits = []
    for values in centred_TD.T:
        straight, sigmoid = _best(values, line), _best_sigmoid(values, position)
        fits.append(straight[0] if straight[1] >= sigmoid[1] else sigmoid[0])
    return np.stack(fits, axis=1)


def drift_residual(centred_TD: np.ndarray, shapes_JT: np.ndarray) -> float:
    """Sum of squares that the best of ``shapes_JT`` leaves of each metric, over all metrics."""
    explained = (shapes_JT @ centred_TD) ** 2
    return float((centred_TD**2).sum() - explained.max(axis=0).sum())


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
