"""How a metric goes with model size: level, smooth or a step, how large, and between which sizes.

M: models in order of size; D: draws.

Marginal likelihoods under the g-prior with unit information (Liang et al. 2008, JASA 103:410, g = M),
averaged over the places of a step, the knots of a hinge and the centres and widths of a sigmoid, so that a
shape pays for being sought. Level, smooth and step are equally likely before.
"""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from tracker.analysis.schema import Shift, ShiftStability
from tracker.analysis.smooth import sigmoids, unit_range
from tracker.analysis.splits import places_of

FEWEST = 4
"""Sizes below which only the trend from end to end is told."""
LIKELY = 7.0
"""Odds against no trend from which on a shift is told: noise over 8 sizes reaches them in 2 % of draws."""
TAIL = 0.05
DRAWS = 4000


def find_shift(
    sizes: Sequence[float] | np.ndarray, values: Sequence[float] | np.ndarray, seed: int = 0
) -> Shift | None:
    """Weigh level, smooth trend and step of a metric over log model size.

    Args:
        sizes: (M,) above 0, rising.
        values: (M,) the metric; means over seeds where there are several.
        seed: of the draws behind the interval of the effect.

    Returns:
        None with fewer than four different sizes, or where nothing varies.

    Example:
        >>> found = find_shift([1, 2, 4, 8, 16, 32], [5.0, 5.1, 4.9, 1.0, 1.1, 0.9])
        >>> found.gap, round(found.effect, 1), found.told
        ((4.0, 8.0), -4.0, True)
    """
    scale, levels = np.asarray(sizes, dtype=float), np.asarray(values, dtype=float)
    places = places_of(scale) if len(scale) >= FEWEST else np.array([], dtype=int)
    if len(np.unique(scale)) < FEWEST or not len(places) or np.ptp(levels) <= 1e-12:
        return None
    number = np.arange(len(levels))
    step = np.array([_evidence(levels, number >= place) for place in places])
    smooth = _smooth(unit_range(np.log(scale)), levels)
    logs = np.array([0.0, smooth, _mean(step)])
    weights = np.exp(logs - np.logaddexp.reduce(logs))
    at_place = np.exp(step - np.logaddexp.reduce(step))
    best = int(places[step.argmax()])
    low, high = (int(places[np.searchsorted(np.cumsum(at_place), q)]) for q in (TAIL, 1 - TAIL - 1e-9))
    effects = _effects(levels, places, at_place, np.random.default_rng(seed))
    return Shift(
        level=float(weights[0]),
        smooth=float(weights[1]),
        step=float(weights[2]),
        odds=float(np.exp(np.logaddexp(logs[1], logs[2]) - np.log(2))),
        step_odds=float(np.exp(logs[2] - logs[1])),
        gap=(float(scale[best - 1]), float(scale[best])),
        gap_interval=(float(scale[low - 1]), float(scale[high])),
        effect=float(levels[best:].mean() - levels[:best].mean()),
        effect_interval=(float(np.quantile(effects, TAIL)), float(np.quantile(effects, 1 - TAIL))),
        told=bool(np.logaddexp(logs[1], logs[2]) - np.log(2) >= np.log(LIKELY)),
    )


def shift_stability(
    sizes: Sequence[float] | np.ndarray, values: Sequence[float] | np.ndarray, models: Sequence[str]
) -> ShiftStability | None:
    """Weigh the same without each model in turn; None where too few sizes would be left.

    Args:
        sizes: (M,) rising.
        values: (M,) the metric.
        models: (M,) their names.
    """
    scale, levels = np.asarray(sizes, dtype=float), np.asarray(values, dtype=float)
    without = {
        model: find_shift(np.delete(scale, number), np.delete(levels, number))
        for number, model in enumerate(models)
    }
    known = {model: found for model, found in without.items() if found is not None}
    if len(known) < len(models) or not known:
        return None
    odds, steps = ([getattr(f, name) for f in known.values()] for name in ("odds", "step_odds"))
    weakest = min(known, key=lambda model: known[model].odds)
    return ShiftStability((min(odds), max(odds)), (min(steps), max(steps)), weakest)


def _evidence(levels: np.ndarray, *columns: np.ndarray) -> float:
    """Log marginal likelihood of a linear shape against a level."""
    number = len(levels)
    basis = np.linalg.qr(np.column_stack([np.ones(number), *columns]).astype(float))[0]
    total = float(((levels - levels.mean()) ** 2).sum())
    left = float(((levels - basis @ (basis.T @ levels)) ** 2).sum()) / total
    return float(
        ((number - 1 - len(columns)) * np.log1p(number) - (number - 1) * np.log1p(number * left)) / 2
    )


def _mean(logs: Sequence[float] | np.ndarray) -> float:
    return float(np.logaddexp.reduce(logs) - np.log(len(logs)))


def _smooth(place: np.ndarray, levels: np.ndarray) -> float:
    """The line, the hinges and the wide sigmoids, one share each."""
    hinges = [_evidence(levels, place, np.maximum(place - knot, 0)) for knot in np.unique(place[1:-1])]
    wide = [_evidence(levels, shape) for shape in sigmoids(place)]
    return _mean([_evidence(levels, place), _mean(hinges), _mean(wide)])


def _effects(
    levels: np.ndarray, places: np.ndarray, weights: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Differences of the levels beyond and up to a step, (D,), over the places where it may be."""
    number, drawn = len(levels), []
    for place, count in zip(places, rng.multinomial(DRAWS, weights), strict=True):
        below, above = levels[:place], levels[place:]
        left = float(((below - below.mean()) ** 2).sum() + ((above - above.mean()) ** 2).sum())
        error = np.sqrt(left / (number - 2) * (1 / len(below) + 1 / len(above)))
        drawn.append(
            above.mean() - below.mean() + error * stats.t.rvs(number - 2, size=count, random_state=rng)
        )
    return np.concatenate(drawn)
