"""Transitions: the moves of every curve that exceed its noise, dated, and those of all curves together.

T: checkpoints; B: bins of checkpoints; S: sequences; K: seeds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tracker.analysis.curves import checked_steps
from tracker.analysis.transition_types import CurveTransitions, Transitions
from tracker.analysis.transitions.axis import Axis, axis_of
from tracker.analysis.transitions.binned import Curve
from tracker.analysis.transitions.given import Given, given_curves, joint_curve
from tracker.analysis.transitions.moves import describe, fit, signs_of
from tracker.analysis.transitions.noise import PERSISTENCE, sequence_noise
from tracker.analysis.transitions.seeds import null_scores, persistence_of, variance_of_mean
from tracker.analysis.transitions.significance import LEVEL, Detector, detector
from tracker.errors import RequestError

DRAWS = 400
"""Curves drawn for every interval."""
SHORT = 10
"""Checkpoints below which further moves of curves without sequences are judged against white noise."""
FEWEST = 3
"""Checkpoints below which nothing can be told to move."""


@dataclass(frozen=True)
class _Noise:
    """Noise of one curve, in bins."""

    variance: np.ndarray
    """(B,)."""
    floor: np.ndarray
    """(B,) smallest variance."""
    kind: int
    """Number of its persistence."""
    least: np.ndarray | float
    """(P,) smallest variance of each pair's difference."""
    ratio: float | None
    """Total noise over that of sequences."""
    spread: float | None
    """Standard deviation between seeds."""


def find_transitions(
    steps: Sequence[int] | np.ndarray, metrics: Mapping[str, object], *, draws: int = DRAWS, seed: int = 0
) -> Transitions:
    """Find the moves of every metric that exceed its noise, and when each begins, is half done and ends.

    A move is claimed where two windows of checkpoints differ by more than noise alone does anywhere in 95 %
    of simulated curves; a slow drift is a move as much as a jump is. Between turning points the curve is
    monotone (isotonic regression), dated where it passes 10, 50 and 90 % of its way; intervals hold 90 % of
    curves drawn from the fit with the curve's own noise. ``docs/statistics.md`` states error rates.

    Args:
        steps: (T,) training steps or tokens, whole numbers, rising.
        metrics: name -> (T,) means, (T, S) with the same S sequences at every checkpoint, or (T, S, K) of K
            seeds as well. Checkpoints where a metric is undefined are left out of its curve.
        draws: curves drawn for the intervals.
        seed: of the draws.

    Returns:
        One entry per metric, and under ``structure`` the joint curve. With fewer than three checkpoints, or a
        constant metric, an entry has no move and its ``note`` says why.

    Raises:
        RequestError: steps are no rising list of whole numbers, no metric is given, or a metric has another
            length than steps or holds no numbers.

    Example:
        >>> steps = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256]
        >>> loss = [7.0, 7.1, 7.0, 6.9, 7.0, 3.0, 3.1, 3.0, 2.9, 3.0]
        >>> move = find_transitions(steps, {"loss": loss}).curves["loss"].moves[0]
        >>> move.direction, move.half.step_low, move.half.step_high, move.pace
        ('down', 8, 16, 'abrupt')
    """
    places = checked_steps(steps)
    if not metrics:
        raise RequestError("metrics: none given; at least one curve is needed to look for transitions")
    given = given_curves(places, metrics)
    curves = {name: _curve(each, draws, seed) for name, each in given.items()}
    joint = joint_curve(given)
    structure = CurveTransitions(note="no metric varies") if joint is None else _curve(joint, draws, seed)
    return Transitions(tuple(map(int, places)), curves, structure)


def _curve(given: Given, draws: int, seed: int) -> CurveTransitions:
    axis = axis_of(given.steps) if len(given.steps) else None
    if axis is None or axis.bins < FEWEST:
        count = 0 if axis is None else axis.bins
        few = f"needs at least {FEWEST} checkpoints apart from each other ({count} measured)"
        return CurveTransitions(note="; ".join(filter(None, (few, given.note))))
    if np.ptp(given.mean) <= 1e-12 * max(1.0, float(np.abs(given.mean).max())):
        return CurveTransitions(note="; ".join(filter(None, ("constant", given.note))))
    own, profile = sequence_noise(axis, given.sequences)
    test = detector(axis, profile)
    values = axis.pool @ given.mean
    noise = _noise(given, axis, test, own)
    null, critical, further = _limits(test, axis, given)
    scores = test.windows.scores(values[None], noise.variance[None], np.array([noise.kind]), noise.least)[0]
    curve = Curve(axis, values, noise.variance, _correlation(test, noise.kind))
    signs = signs_of(test.windows, scores, critical) if np.abs(scores).max() > critical else []
    if signs and given.seeds is None:
        quiet = test.model.quiet_variance(values, fit(curve, signs)[0], noise.kind)
        curve = replace(curve, variance=np.maximum(quiet, noise.floor))
        calm = test.windows.scores(values[None], curve.variance[None], np.array([noise.kind]), noise.least)[0]
        signs = signs_of(test.windows, calm, further)
    errors = np.sqrt(noise.variance @ (test.windows.contrast**2).T * test.windows.excess[noise.kind])
    p_value = null(float(np.abs(scores).max()))
    moves, turns = describe(curve, signs, critical, draws=draws, seed=seed) if signs else ([], [])
    return CurveTransitions(
        tuple(moves), tuple(turns), p_value,
        smallest=critical * float(errors.min()),
        noise=float(np.median(np.sqrt(noise.variance))),
        jitter_ratio=noise.ratio, seed_spread=noise.spread,
        persistence=float(PERSISTENCE[noise.kind]), note=given.note,
    )  # fmt: skip


def _correlation(test: Detector, kind: int) -> np.ndarray:
    covariance = test.model.shapes[kind].covariance
    size = np.sqrt(np.diag(covariance))
    return covariance / size / size[:, None]


def _limits(test: Detector, axis: Axis, given: Given) -> tuple[Callable[[float], float], float, float]:
    """How p-values are read, the critical score of a first move and of further ones."""
    if given.seeds is None:
        few = given.sequences is None and axis.bins < SHORT
        return test.p_value, test.critical, test.critical_white if few else test.critical
    nulls = null_scores(axis.key, given.seeds.shape[0])
    critical = float(np.quantile(nulls, 1 - LEVEL, axis=1, method="higher").max())

    def p_value(score: float) -> float:
        return float(max((1 + len(n) - np.searchsorted(n, score)) / (len(n) + 1) for n in nulls))

    return p_value, critical, critical


def _noise(given: Given, axis: Axis, test: Detector, own_T: np.ndarray) -> _Noise:
    floor = axis.pool**2 @ own_T**2
    range_ = float(np.ptp(given.mean))
    spread = None
    if given.seeds is not None:
        left = (given.seeds - given.mean)[None]
        variance = variance_of_mean(left, axis)[0]
        kind = int(persistence_of(left)[0])
        spread = float(np.median(given.seeds.std(axis=0, ddof=1)))
    else:
        kind = int(test.model.persistence(given.mean[None])[0])
        binned = (axis.pool @ given.mean)[None]
        variance = test.model.variance(binned, np.array([kind]))[0]
    floor_ = np.maximum(floor, (1e-6 * range_) ** 2)
    total = np.maximum(variance, floor_)
    least, ratio = 0.0, None
    if given.sequences is not None:
        left = axis.pool @ (given.sequences - given.sequences.mean(axis=1, keepdims=True))
        number = left.shape[1]
        paired = test.windows.contrast @ left
        least = (paired**2).sum(axis=1) / (number * (number - 1))
        ratio = float(np.median(np.sqrt(total / np.maximum(floor, 1e-300)))) if floor.any() else None
    return _Noise(total, floor_, kind, least, ratio, spread)
