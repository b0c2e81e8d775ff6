"""What a model's size is measured by, and which measure goes best with a metric.

M: models.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tracker.analysis.smooth import hinge_residual, sigmoid_residual, unit_range
from tracker.analysis.splits import places_of, step_gain

AXES = {
    "params_non_embedding": "non-embedding parameters",
    "params_total": "parameters",
    "d_model": "model width",
    "n_layers": "layers",
    "n_heads": "heads per layer",
    "all_heads": "heads in all",
    "d_head": "head dimension",
    "rotary_dims": "rotary dimensions",
}
"""Axes of size and their names for people."""
SEPARATED = 4.0
"""Difference of AICc from which one axis is said to explain a metric better than another
(Burnham and Anderson 2002, section 2.6: considerably less support from 4 on)."""
NUMBERS = {"level": 2, "line": 3, "step": 4, "hinge": 5, "sigmoid": 5}
"""What each shape takes from the data: levels, slopes, places, and the scatter."""
FEWEST_VALUES = 3
"""Different sizes on an axis below which no trend over it is looked at."""


@dataclass(frozen=True)
class Support:
    """The shape over one axis that explains a metric best, and its AICc: smaller is better."""

    shape: str
    aicc: float


def size_on(facts: Mapping[str, int | None], axis: str) -> float | None:
    """Return a model's size on an axis; None where it has none, such as rotary dimensions without RoPE."""
    if axis == "all_heads":
        layers, heads = facts.get("n_layers"), facts.get("n_heads")
        return float(layers * heads) if layers and heads else None
    size = facts.get(axis)
    return float(size) if size else None


def support(scale: np.ndarray, values: np.ndarray) -> Support:
    """Find the best of level, line, hinge, wide sigmoid and step over log size, by AICc.

    Args:
        scale: (M,) sizes, rising.
        values: (M,) the metric.
    """
    place = np.log(scale)
    total = float(((values - values.mean()) ** 2).sum())
    along = unit_range(place) - unit_range(place).mean()
    left = {
        "level": total,
        "line": total - float(along @ values) ** 2 / float(along @ along),
        "hinge": hinge_residual(place, values),
        "sigmoid": sigmoid_residual(place, values),
    }
    places = places_of(scale)
    if len(places):
        left["step"] = total - float(step_gain(values[None], places).max())
    scores = {shape: _aicc(rest, len(values), NUMBERS[shape], total) for shape, rest in left.items()}
    best = min(scores, key=lambda shape: scores[shape])
    return Support(best, scores[best])


def _aicc(left: float, models: int, numbers: int, total: float) -> float:
    """Akaike's criterion with the correction for small samples (Hurvich and Tsai 1989)."""
    if models - numbers - 1 <= 0:
        return float("inf")
    rest = max(left, 1e-9 * total, 1e-300) / models
    return models * float(np.log(rest)) + 2 * numbers + 2 * numbers * (numbers + 1) / (models - numbers - 1)


def indistinct(supports: Mapping[str, Support]) -> list[str]:
    """Return the axes that explain a metric about as well as the best one; none where a level does.

    Args:
        supports: axis -> the best shape over it.
    """
    ranked = sorted(supports, key=lambda axis: supports[axis].aicc)
    if not ranked or supports[ranked[0]].shape == "level":
        return []
    return [axis for axis in ranked if supports[axis].aicc - supports[ranked[0]].aicc <= SEPARATED]
