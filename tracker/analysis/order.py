"""Before, with or after: how the transition of a covariate lies to that of the frequency structure.

R: draws of the noise.
"""

from collections.abc import Mapping

import numpy as np

from tracker.analysis.schema import Lag
from tracker.analysis.transition_types import CurveTransitions, Move, Passing
from tracker.metrics.registry import option_columns

USUAL = (
    "loss",
    "in_context_score",
    "previous_token_score",
    "prefix_matching_score",
    "sink_share",
    "head_redundancy",
)
"""What may explain a change and is always measured, in the same forward pass."""
COVARIATES = (*USUAL, *(name for name in option_columns() if name != "layer_sink_share"))
"""All that may explain a change, as far as it is measured: also weights and states. Over a checkpoint the
sink share by layer is the sink share."""
TAIL = 0.05
TOGETHER = 2.0
"""Octaves: moves whose difference lies within so many, at 90 %, are told to go together."""
ONSET, HALF = 0, 1


def lag_of(reference: Move, curve: CurveTransitions) -> Lag:
    """Compare a covariate's largest move with the move of reference.

    Differences are those of log2(step + 1) in draws of both curves' noise; within a gap between checkpoints
    every place is possible, so that two moves in one gap have no order.

    Args:
        reference: the main move of the frequency structure.
        curve: the covariate's transitions.
    """
    move = curve.main
    if move is None:
        return Lag("undefined" if curve.p_value is None else "still", smallest=curve.smallest)
    onset, half = (_difference(reference, move, part) for part in (ONSET, HALF))
    return Lag(
        order_of(*half),
        lag=_middle(move.half) - _middle(reference.half),
        interval=half,
        bracket=(move.half.step_low, move.half.step_high),
        direction=move.direction,
        start=move.start,
        finish=move.finish,
        onset=(move.onset.step_low, move.onset.step_high),
        onset_verdict=order_of(*onset),
        onset_interval=onset,
        smallest=curve.smallest,
    )


def _middle(passing: Passing) -> float:
    """The middle of a gap between checkpoints, in octaves."""
    return float(np.log2([passing.step_low + 1, passing.step_high + 1]).mean())


def lags_of(reference: Move, curves: Mapping[str, CurveTransitions]) -> dict[str, Lag]:
    """Compare every covariate with the move of reference."""
    return {name: lag_of(reference, curve) for name, curve in curves.items()}


def _difference(reference: Move, move: Move, part: int) -> tuple[float, float]:
    """90 % interval of how many octaves later ``move`` passes a part of its way than ``reference``."""
    assert reference.passed is not None
    assert move.passed is not None
    number = min(len(reference.passed), len(move.passed))
    ours, theirs = move.passed[:number, part], reference.passed[:number, part]
    low = np.quantile(ours[:, 0] - theirs[:, 1], TAIL)
    high = np.quantile(ours[:, 1] - theirs[:, 0], 1 - TAIL)
    return float(low), float(high)


def order_of(low: float, high: float) -> str:
    """Return before, with or after for an interval of octaves; cannot tell where it allows several."""
    if high <= 0:
        return "before"
    if low >= 0:
        return "after"
    return "with" if max(-low, high) <= TOGETHER else "cannot tell"
