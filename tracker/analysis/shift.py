"""How a metric goes with model size: level, smooth or a step, how large, and between which sizes.

M: models in order of size; K: seeds; D: draws.

Marginal likelihoods under the g-prior with unit information (Liang et al. 2008, JASA 103:410, g = M),
averaged over the places of a step, the knots of a hinge and the centres and widths of a sigmoid, so that a
shape pays for being sought. Level, smooth and step are equally likely before. Where seeds show how far the
mean of a model is off, models scatter by no less: the scatter is integrated from there on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tracker.analysis.schema import LeaveOneOut, Shift, ShiftStability
from tracker.analysis.smooth import sigmoids, unit_range
from tracker.analysis.splits import places_of

FEWEST = 4
"""Sizes below which only the trend from end to end is told."""
LIKELY = 7.0
"""Odds against no trend from which on a shift is told: noise over 8 sizes reaches them in 2 % of draws."""
STEP_LIKELY = 1.7
"""Odds of a step against every smooth trend from which on it is called one, over 8 sizes. More sizes need
more, by the square of their number: a bend near an end comes close to a step of two models."""
TAIL = 0.05
DRAWS = 4000


def find_shift(
    sizes: Sequence[float] | np.ndarray,
    values: Sequence[float] | Sequence[Sequence[float]] | np.ndarray,
    seed: int = 0,
    error: float = 0.0,
) -> Shift | None:
    """Weigh level, smooth trend and step of a metric over log model size.

    Args:
        sizes: (M,) above 0, rising.
        values: (M,) the metric, or (M, K) of every seed, NaN where a model has fewer.
        seed: of the draws behind the interval of the effect.
        error: standard error of a value, where it is known otherwise than from seeds.

    Returns:
        None with fewer than four different sizes, or where nothing varies.

    Example:
        >>> found = find_shift([1, 2, 4, 8, 16, 32], [5.0, 5.1, 4.9, 1.0, 1.1, 0.9])
        >>> found.gap, round(found.effect, 1), found.told, found.stepped
        ((4.0, 8.0), -4.0, True, True)
    """
    scale, (levels, floor) = np.asarray(sizes, dtype=float), over_seeds(values)
    places = places_of(scale) if len(scale) >= FEWEST else np.array([], dtype=int)
    if len(np.unique(scale)) < FEWEST or not len(places) or np.ptp(levels) <= 1e-12:
        return None
    evidence = _Evidence(levels, max(floor, error))
    number = np.arange(len(levels))
    step = np.array([evidence.of(number >= place) for place in places])
    logs = np.array([evidence.of(), _smooth(unit_range(np.log(scale)), evidence), _mean(step)])
    weights = np.exp(logs - np.logaddexp.reduce(logs))
    at_place = np.exp(step - np.logaddexp.reduce(step))
    best = int(places[step.argmax()])
    low, high = (int(places[np.searchsorted(np.cumsum(at_place), q)]) for q in (TAIL, 1 - TAIL - 1e-9))
    effects = _effects(evidence, places, at_place, np.random.default_rng(seed))
    odds = float(np.exp(np.logaddexp(logs[1], logs[2]) - np.log(2) - logs[0]))
    step_odds = float(np.exp(logs[2] - logs[1]))
    needed = STEP_LIKELY * max(1.0, len(levels) / 8) ** 2
    return Shift(
        level=float(weights[0]),
        smooth=float(weights[1]),
        step=float(weights[2]),
        odds=odds,
        step_odds=step_odds,
        gap=(float(scale[best - 1]), float(scale[best])),
        gap_interval=(float(scale[low - 1]), float(scale[high])),
        effect=float(levels[best:].mean() - levels[:best].mean()),
        effect_interval=(float(np.quantile(effects, TAIL)), float(np.quantile(effects, 1 - TAIL))),
        told=odds >= LIKELY,
        stepped=odds >= LIKELY and step_odds >= needed,
    )


def over_seeds(values: Sequence[float] | Sequence[Sequence[float]] | np.ndarray) -> tuple[np.ndarray, float]:
    """Return the means over seeds, (M,), and their standard error; 0 where no model has two seeds.

    Args:
        values: (M,) or (M, K) with NaN for seeds that a model does not have.
    """
    each = np.asarray(values, dtype=float)
    each = each[:, None] if each.ndim == 1 else each
    count = np.isfinite(each).sum(axis=1)
    means = np.nansum(each, axis=1) / count
    freedom = int((count - 1).sum())
    if not freedom:
        return means, 0.0
    variance = float(np.nansum((each - means[:, None]) ** 2)) / freedom
    return means, float(np.sqrt(variance * np.mean(1 / count)))


def without_each(
    sizes: np.ndarray, values: np.ndarray, models: Sequence[str], error: float = 0.0
) -> dict[str, Shift]:
    """Weigh the same without each model in turn; empty where too few sizes would be left.

    Args:
        sizes: (M,) rising.
        values: (M,) or (M, K) the metric.
        models: (M,) their names.
        error: as for ``find_shift``.
    """
    found = {
        model: find_shift(np.delete(sizes, number), np.delete(values, number, axis=0), error=error)
        for number, model in enumerate(models)
    }
    known = {model: shift for model, shift in found.items() if shift is not None}
    return known if len(known) == len(models) else {}


def stability_of(rest: dict[str, Shift]) -> ShiftStability | None:
    """Return the range of the odds over shifts without one model each; None without any."""
    if not rest:
        return None
    odds, steps = ([getattr(shift, name) for shift in rest.values()] for name in ("odds", "step_odds"))
    weakest = min(rest, key=lambda model: rest[model].odds)
    return ShiftStability((min(odds), max(odds)), (min(steps), max(steps)), weakest)


def leave_one_out(rest: dict[str, Shift], gap: tuple[float, float]) -> LeaveOneOut:
    """Judge whether a step in ``gap`` stays there, and ahead of every smooth trend, without each model."""
    moved = tuple(
        model
        for model, shift in rest.items()
        if shift.step_odds < 1 or not shift.gap[0] <= gap[0] < gap[1] <= shift.gap[1]
    )
    return LeaveOneOut(len(rest) - len(moved), len(rest), moved)


@dataclass(frozen=True)
class _Evidence:
    """Log marginal likelihoods of shapes of the levels, up to a constant."""

    levels: np.ndarray
    floor: float
    """Least scatter between models."""

    def of(self, *columns: np.ndarray) -> float:
        """Of a constant and ``columns``, each (M,); of the constant alone without any."""
        number = len(self.levels)
        basis = np.linalg.qr(np.column_stack([np.ones(number), *columns]).astype(float))[0]
        total = float(((self.levels - self.levels.mean()) ** 2).sum())
        left = float(((self.levels - basis @ (basis.T @ self.levels)) ** 2).sum())
        squares = (total + number * left) / (1 + number) / 2
        shape = (number - 1) / 2
        log = -len(columns) / 2 * np.log1p(number) - shape * np.log(squares)
        if self.floor:
            from scipy import special  # slow to import, and needed with seeds alone

            log += np.log(special.gammainc(shape, squares / self.floor**2) + 1e-300)
        return float(log)


def _mean(logs: Sequence[float] | np.ndarray) -> float:
    return float(np.logaddexp.reduce(logs) - np.log(len(logs)))


def _smooth(place: np.ndarray, evidence: _Evidence) -> float:
    """The line, the hinges and the wide sigmoids, one share each."""
    hinges = [evidence.of(place, np.maximum(place - knot, 0)) for knot in np.unique(place[1:-1])]
    wide = [evidence.of(shape) for shape in sigmoids(place)]
    return _mean([evidence.of(place), _mean(hinges), _mean(wide)])


def _effects(
    evidence: _Evidence, places: np.ndarray, weights: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Differences of the levels beyond and up to a step, (D,), over the places where it may be."""
    number, drawn = len(evidence.levels), []
    for place, count in zip(places, rng.multinomial(DRAWS, weights), strict=True):
        below, above = evidence.levels[:place], evidence.levels[place:]
        left = float(((below - below.mean()) ** 2).sum() + ((above - above.mean()) ** 2).sum())
        scatter = max(np.sqrt(left / (number - 2)), evidence.floor)
        error = scatter * np.sqrt(1 / len(below) + 1 / len(above))
        drawn.append(above.mean() - below.mean() + error * rng.standard_t(number - 2, size=count))
    return np.concatenate(drawn)
