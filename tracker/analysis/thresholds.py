"""Thresholds over model size: does a metric step, or does it only drift?

M: models; K: seeds; S: sequences of the probe; P: permutations (``splits``).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tracker.analysis.schema import Shift
from tracker.analysis.shift import find_shift, over_seeds
from tracker.analysis.smooth import hinge_residual, sigmoid_residual
from tracker.analysis.splits import permuted_gains, places_of, share_at_least, step_gain
from tracker.errors import RequestError

ENOUGH = 8
"""Sizes from which a shift may be called a threshold: a split can be rarer than LEVEL among permutations."""
LEVEL = 0.05
FACTOR = 1.75
"""By permutation a step must leave this many times less unexplained than the best line or hinge ..."""
SIGMOID_FACTOR = 1.1
"""... and this many times less than the best sigmoid at least half the range wide."""
RESAMPLES = 500


@dataclass(frozen=True)
class Threshold:
    """A step between the sizes ``low`` and ``high``, neighbours on the scale given."""

    low: float
    high: float
    effect: float
    """Mean above less mean below, in the metric's unit."""
    p_value: float
    """Share of permutations of the values with as good a step; one metric, one axis, uncorrected."""
    factor: float
    """Squares the best line or hinge leaves over those that the step leaves."""
    confidence: float | None
    """Share of bootstrap resamples over sequences with the same best step; None without samples."""
    interval: tuple[float, float]
    """Sizes between which the step lies at 90 %."""


@dataclass(frozen=True)
class Verdict:
    """``found`` or None, the number of sizes judged, in words why, and the evidence either way."""

    found: Threshold | None
    sizes: int
    reason: str
    p_value: float | None = None
    """Of the best step, whether or not it is claimed; None where there are too few sizes."""
    factor: float | None = None
    """Squares that the best line or hinge leaves over those that the best step leaves."""
    shift: Shift | None = None
    """How a level, a smooth trend and a step compare; None where there are too few sizes."""


def _numbers(name: str, given: object) -> np.ndarray:
    try:
        return np.asarray(given, dtype=float)
    except (TypeError, ValueError) as error:
        raise RequestError(f"{name}: not an array of numbers: {error}") from error


def _checked(scale: object, values: object, samples: object | None):
    """Arrays in order of scale, models without a value left out."""
    sizes, levels = _numbers("scale", scale), _numbers("values", values)
    if sizes.ndim != 1 or levels.ndim not in (1, 2) or len(sizes) != len(levels):
        raise RequestError(
            f"scale has shape {sizes.shape}, values {levels.shape}; they need (models,) and (models,) or "
            "(models, seeds)"
        )
    if not np.all(np.isfinite(sizes)) or np.any(sizes <= 0):
        raise RequestError(f"scale={[float(size) for size in sizes]}: sizes are numbers above 0")
    draws = None if samples is None else _numbers("samples", samples)
    if draws is not None and (draws.ndim != 2 or len(draws) != len(sizes)):
        raise RequestError(f"samples: shape {draws.shape}; one row per model, ({len(sizes)}, sequences)")
    order = np.argsort(sizes, kind="stable")
    rows = levels[:, None] if levels.ndim == 1 else levels
    order = order[np.any(np.isfinite(rows[order]), axis=1)]
    return sizes[order], levels[order], None if draws is None else draws[order]


def _confidence(draws: np.ndarray | None, splits: np.ndarray, best: int) -> float | None:
    if draws is None or draws.shape[1] < 2 or not np.all(np.isfinite(draws)):
        return None
    rng = np.random.default_rng(0)
    number = draws.shape[1]
    weights = rng.multinomial(number, np.full(number, 1 / number), RESAMPLES) / number
    chosen = splits[step_gain(weights @ draws.T, splits).argmax(axis=1)]
    return float((chosen == best).mean())


def judge_threshold(scale: object, values: object, samples: object | None = None) -> Verdict:
    """Judge whether a metric steps over model size, with the reason in words.

    Args:
        scale: (M,) sizes above 0, such as parameters.
        values: (M,) the metric, or (M, K) of every seed; NaN leaves a model or seed out.
        samples: (M, S) the metric per sequence, for the bootstrap.

    Raises:
        RequestError: shapes do not fit, a size is not above 0, or something is not a number.
    """
    sizes, each, draws = _checked(scale, values, samples)
    levels, shift = over_seeds(each)[0], find_shift(sizes, each)
    places = places_of(sizes)
    if len(sizes) < ENOUGH:
        reason = f"a threshold needs at least {ENOUGH} sizes ({len(sizes)} measured)"
        return Verdict(None, len(sizes), reason, shift=shift)
    if not len(places):
        reason = "no threshold: the models do not differ in this size on both sides"
        return Verdict(None, len(sizes), reason)
    if shift is None:
        return Verdict(None, len(sizes), "no threshold: the values are all the same")
    return _judged(sizes, levels, draws, places, shift)


def _judged(
    sizes: np.ndarray, levels: np.ndarray, draws: np.ndarray | None, places: np.ndarray, shift: Shift
) -> Verdict:
    gains = step_gain(levels[None], places)[0]
    best = int(places[gains.argmax()])
    left = max(float(((levels - levels.mean()) ** 2).sum() - gains.max()), 1e-15)
    place = np.log(sizes)
    factor, rounder = hinge_residual(place, levels) / left, sigmoid_residual(place, levels) / left
    p_value = share_at_least(permuted_gains(levels, places), float(gains.max()))
    rare = factor >= FACTOR and rounder >= SIGMOID_FACTOR and p_value <= LEVEL
    evidence = (
        f"odds {shift.odds:.2g} of a trend and {shift.step_odds:.2g} of a step against a smooth trend, "
        f"permutation p = {p_value:.3f}"
    )
    if not shift.stepped and not rare:
        return Verdict(None, len(sizes), f"no threshold: {evidence}", p_value, factor, shift)
    found = Threshold(
        float(sizes[best - 1]), float(sizes[best]), float(levels[best:].mean() - levels[:best].mean()),
        p_value, factor, _confidence(draws, places, best), shift.gap_interval,
    )  # fmt: skip
    return Verdict(found, len(sizes), f"a step: {evidence}", p_value, factor, shift)


def find_threshold(
    scale: Sequence[float] | np.ndarray,
    values: Sequence[float] | Sequence[Sequence[float]] | np.ndarray,
    samples: Sequence[Sequence[float]] | np.ndarray | None = None,
) -> Threshold | None:
    """Find the step in ``values`` over log ``scale``; None where none is shown.

    A step has two models on either side at least. It is claimed where it is 1.7 times as likely as a smooth
    trend and a trend 7 times as likely as none (``shift.find_shift``), or where at most 5 % of the
    permutations have as good a step and it leaves clearly less unexplained than the best line, hinge and
    wide sigmoid. Fewer than eight sizes cannot show one: ``judge_threshold`` says so.

    Args:
        scale: (M,) sizes above 0, in any order.
        values: (M,) the metric, or (M, K) of every seed; NaN leaves a model or seed out.
        samples: (M, S) the metric per sequence; gives the threshold a confidence.

    Raises:
        RequestError: shapes do not fit, a size is not above 0, or something is not a number.

    Example:
        >>> sizes = [1e7, 2e7, 5e7, 1e8, 2e8, 5e8, 1e9, 2e9]
        >>> found = find_threshold(sizes, [0.30, 0.31, 0.29, 0.30, 0.11, 0.10, 0.09, 0.10])
        >>> found.low, found.high, round(found.effect, 3)
        (100000000.0, 200000000.0, -0.2)
    """
    return judge_threshold(scale, values, samples).found
