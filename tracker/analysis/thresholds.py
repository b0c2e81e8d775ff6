"""Thresholds over model size: does a metric step, or does it only drift?

M: models; S: sequences of the probe; P: permutations (``splits``).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tracker.analysis.schema import LeaveOneOut
from tracker.analysis.smooth import hinge_residual, sigmoid_residual
from tracker.analysis.splits import permuted_gains, places_of, share_at_least, step_gain, step_interval
from tracker.errors import RequestError

FEWEST = 5
"""Sizes below which no step is looked for."""
ENOUGH = 8
"""Sizes from which a split can be rarer than LEVEL among permutations."""
LEVEL = 0.05
FACTOR = 1.75
"""A step must leave this many times less unexplained than the best straight line or hinge ..."""
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
    """Sizes between which the step lies at 90 %, the models' scatter about two levels taken as noise."""


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


def _numbers(name: str, given: object) -> np.ndarray:
    try:
        return np.asarray(given, dtype=float)
    except (TypeError, ValueError) as error:
        raise RequestError(f"{name}: not an array of numbers: {error}") from error


def _checked(scale: object, values: object, samples: object | None):
    """Arrays in order of scale, models without a value left out."""
    sizes, levels = _numbers("scale", scale), _numbers("values", values)
    if sizes.ndim != 1 or sizes.shape != levels.shape:
        raise RequestError(f"scale has shape {sizes.shape}, values {levels.shape}; both need (models,)")
    if not np.all(np.isfinite(sizes)) or np.any(sizes <= 0):
        raise RequestError(f"scale={[float(size) for size in sizes]}: sizes are numbers above 0")
    draws = None if samples is None else _numbers("samples", samples)
    if draws is not None and (draws.ndim != 2 or len(draws) != len(sizes)):
        raise RequestError(f"samples: shape {draws.shape}; one row per model, ({len(sizes)}, sequences)")
    order = np.argsort(sizes, kind="stable")
    order = order[np.isfinite(levels[order])]
    return sizes[order], levels[order], None if draws is None else draws[order]


def _confidence(draws: np.ndarray | None, splits: np.ndarray, best: int) -> float | None:
    if draws is None or draws.shape[1] < 2 or not np.all(np.isfinite(draws)):
        return None
    rng = np.random.default_rng(0)
    number = draws.shape[1]
    weights = rng.multinomial(number, np.full(number, 1 / number), RESAMPLES) / number
    chosen = splits[step_gain(weights @ draws.T, splits).argmax(axis=1)]
    return float((chosen == best).mean())


def _too_few(sizes: np.ndarray, splits: np.ndarray) -> str | None:
    count = len(sizes)
    if count < FEWEST:
        return f"a threshold needs at least {ENOUGH} sizes ({count} measured)"
    if count < ENOUGH:
        rarest = 2 / math.comb(count, count // 2)
        return (
            f"a threshold needs at least {ENOUGH} sizes ({count} measured: even the cleanest step has "
            f"p = {rarest:.2f} among permutations, above {LEVEL})"
        )
    if not len(splits):
        return "no threshold: the models do not differ in this size on both sides"
    return None


def judge_threshold(scale: object, values: object, samples: object | None = None) -> Verdict:
    """Judge whether a metric steps over model size, with the reason in words.

    Args:
        scale: (M,) sizes above 0, such as parameters.
        values: (M,) the metric; NaN leaves a model out.
        samples: (M, S) the metric per sequence, for the bootstrap.

    Raises:
        RequestError: shapes do not fit, a size is not above 0, or something is not a number.
    """
    sizes, levels, draws = _checked(scale, values, samples)
    splits = places_of(sizes) if len(sizes) >= FEWEST else np.array([], dtype=int)
    few = _too_few(sizes, splits)
    if few is not None:
        return Verdict(None, len(sizes), few)
    if np.ptp(levels) <= 1e-12:
        return Verdict(None, len(sizes), "no break: the values are all the same")
    return _judged(sizes, levels, draws, splits)


def _judged(sizes: np.ndarray, levels: np.ndarray, draws: np.ndarray | None, splits: np.ndarray) -> Verdict:
    gains = step_gain(levels[None], splits)[0]
    best = int(splits[gains.argmax()])
    left = max(float(((levels - levels.mean()) ** 2).sum() - gains.max()), 1e-15)
    place = np.log(sizes)
    factor, rounder = hinge_residual(place, levels) / left, sigmoid_residual(place, levels) / left
    p_value = share_at_least(permuted_gains(levels, splits), float(gains.max()))
    if factor < FACTOR or rounder < SIGMOID_FACTOR or p_value > LEVEL:
        reason = (
            f"no break: the best step leaves {factor:.2f} times less unexplained than a line or hinge "
            f"(needed {FACTOR}), {rounder:.2f} times less than a wide sigmoid (needed {SIGMOID_FACTOR}), "
            f"permutation p = {p_value:.3f} (needed {LEVEL})"
        )
        return Verdict(None, len(sizes), reason, p_value, factor)
    low, high = step_interval(levels, splits)
    found = Threshold(
        float(sizes[best - 1]), float(sizes[best]), float(levels[best:].mean() - levels[:best].mean()),
        p_value, factor, _confidence(draws, splits, best), (float(sizes[low - 1]), float(sizes[high])),
    )  # fmt: skip
    reason = (
        f"a step leaves {factor:.2f} times less unexplained than the best line or hinge, "
        f"permutation p = {p_value:.3f} (one metric, one axis, uncorrected)"
    )
    return Verdict(found, len(sizes), reason, p_value, factor)


def leave_one_out(
    sizes: np.ndarray, levels: np.ndarray, models: Sequence[str], found: Threshold
) -> LeaveOneOut:
    """Judge whether the step stays where it is, and clear of every smooth trend, without each model.

    Args:
        sizes: (M,) rising.
        levels: (M,) the metric.
        models: their names.
        found: the step over all of them.
    """
    moved = []
    for number, model in enumerate(models):
        rest = np.arange(len(sizes)) != number
        left, values = sizes[rest], levels[rest]
        places = places_of(left)
        if not len(places):
            moved.append(model)
            continue
        gains = step_gain(values[None], places)[0]
        best = int(places[gains.argmax()])
        unexplained = max(float(((values - values.mean()) ** 2).sum() - gains.max()), 1e-15)
        stays = left[best - 1] <= found.low and found.high <= left[best]
        if not stays or hinge_residual(np.log(left), values) / unexplained < FACTOR:
            moved.append(model)
    return LeaveOneOut(len(models) - len(moved), len(models), tuple(moved))


def find_threshold(
    scale: Sequence[float] | np.ndarray,
    values: Sequence[float] | np.ndarray,
    samples: Sequence[Sequence[float]] | np.ndarray | None = None,
) -> Threshold | None:
    """Find the step in ``values`` over log ``scale``; None where none is shown.

    A step has two models on either side at least, beats the best straight line and the best hinge over
    log scale by FACTOR and the best wide sigmoid by SIGMOID_FACTOR in unexplained squares, and is matched
    by at most 5 % of the permutations. Fewer than eight sizes cannot show one: ``judge_threshold`` says so.

    Args:
        scale: (M,) sizes above 0, in any order.
        values: (M,) the metric; NaN leaves a model out.
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
