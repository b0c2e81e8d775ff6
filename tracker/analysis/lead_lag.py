"""Why then: which covariates move before, with or after a change of the frequency structure.

T: checkpoints; n: those of the two phases that a change parts; S: sequences or heads; R: draws.

Within the two phases around a change every curve is given its own place of change, by the same least
squares; the lag is the number of checkpoints from the change's place to the covariate's. Sequences (heads,
for what exists per head only) are drawn again for both at once, so that what they share cancels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracker.analysis.bootstrap import resampled_means
from tracker.analysis.changes import SHORTEST, noise_penalty
from tracker.analysis.intervals import profile
from tracker.analysis.noise import bend_variance, sample_variance
from tracker.analysis.segments import Stretches

COVARIATES = (
    "loss",
    "in_context_score",
    "previous_token_score",
    "prefix_matching_score",
    "sink_share",
    "head_redundancy",
)
"""What may explain a change; measured in the same forward pass."""
LEVEL = 0.9
RESAMPLES = 200
WIDEST = 4
"""An interval of more checkpoints than this says nothing about the order."""
Entry = dict[str, Any]


@dataclass(frozen=True)
class Window:
    """The checkpoints of the two phases around a change, [first, last), and the change's place in them."""

    steps: np.ndarray
    first: int
    at: int
    last: int

    @property
    def part(self) -> slice:
        """The checkpoints as a slice."""
        return slice(self.first, self.last)

    @property
    def position(self) -> np.ndarray:
        """Places on the log-step axis, (n,)."""
        return np.log2(self.steps[self.part] + 1.0)


def windows(steps: np.ndarray, highs: list[int]) -> list[Window]:
    """One window per change.

    Args:
        steps: (T,) measured steps.
        highs: the first step after each change.
    """
    places = [int(np.searchsorted(steps, high)) for high in highs]
    edges = [0, *places, len(steps)]
    return [Window(steps, edges[k], edges[k + 1], edges[k + 2]) for k in range(len(places))]


def places_in(window: Window, curves_RnD: np.ndarray) -> np.ndarray:
    """The cheapest place of one change in each curve, (R,), as a number of checkpoints into the window."""
    costs = profile(window.position, curves_RnD, np.inf, SHORTEST)
    return costs.argmin(axis=1) + SHORTEST


def moves(window: Window, values_n: np.ndarray, floor: float | None) -> bool:
    """Whether a curve changes within the window more than noise, or one straight drift, explains."""
    values = (values_n - values_n.mean())[:, None]
    noise = max(float(bend_variance(values)[0]), floor or 0.0)
    penalty = noise_penalty(np.array([[noise]]), len(values))
    stretches = Stretches(window.position, values, penalty, SHORTEST)
    parted = min(
        stretches.cost(0, at) + stretches.cost(at, len(values))
        for at in range(SHORTEST, len(values) - SHORTEST + 1)
    )
    return stretches.cost(0, len(values)) - parted > penalty


def order_of(low: float, high: float) -> str:
    """before, with or after, from an interval of lags in checkpoints; cannot tell where it is too wide."""
    if high - low > WIDEST:
        return "cannot tell"
    return "before" if high < 0 else "after" if low > 0 else "with"


def lag_of(
    window: Window,
    change_nD: np.ndarray,
    change_RnD: np.ndarray | None,
    values_n: np.ndarray,
    values_Rn: np.ndarray | None,
    floor: float | None,
) -> Entry:
    """One covariate against one change.

    Args:
        window: where.
        change_nD: (n, D) z-scored metrics that change.
        change_RnD: (R, n, D) the same, resampled.
        values_n: (n,) the covariate.
        values_Rn: (R, n) the same, resampled with the same draws.
        floor: noise variance of the covariate.

    Returns:
        verdict: before, with, after, still (no change of its own there), cannot tell, or undefined; lag in
        checkpoints and its 90 % interval; the bracket of the covariate's own change.
    """
    blank: Entry = {"verdict": "undefined", "lag": None, "interval": None, "bracket": None}
    if not np.all(np.isfinite(values_n)) or len(values_n) < 2 * SHORTEST:
        return blank
    if not moves(window, values_n, floor):
        return blank | {"verdict": "still"}
    own = int(places_in(window, values_n[None, :, None])[0])
    there = int(places_in(window, change_nD[None])[0])
    first = window.first
    entry = blank | {
        "lag": own - there,
        "verdict": order_of(own - there, own - there),
        "bracket": [int(window.steps[first + own - 1]), int(window.steps[first + own])],
    }
    if change_RnD is None or values_Rn is None:
        return entry
    lags = places_in(window, values_Rn[..., None]) - places_in(window, change_RnD)
    low, high = np.quantile(lags, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
    low, high = min(low, own - there), max(high, own - there)
    return entry | {"interval": [int(low), int(high)], "verdict": order_of(low, high)}


def covariate_lags(
    steps: np.ndarray,
    highs: list[int],
    metrics: Mapping[str, np.ndarray],
    covariates: Mapping[str, np.ndarray],
    seed: int = 0,
) -> list[dict[str, Entry]]:
    """Every covariate against every change of a run.

    Args:
        steps: (T,) measured steps.
        highs: the first step after each change.
        metrics: name -> (T,) or (T, S), those that the changes were found in.
        covariates: name -> (T,) or (T, S).
        seed: of the draws.

    Returns:
        Per change: covariate -> ``lag_of``.
    """
    curves, drawn = _means(metrics), _resampled(metrics, seed)
    centre, spread = curves.mean(axis=0), curves.std(axis=0)
    keep = spread > 0
    found = []
    for window in windows(steps, highs):
        scaled = ((curves - centre) / np.where(keep, spread, 1))[window.part, keep]
        many = (
            None
            if drawn is None
            else ((drawn - centre) / np.where(keep, spread, 1))[:, window.part][..., keep]
        )
        entries = {}
        for name, values in covariates.items():
            own = {name: values}
            resampled = _resampled(own, seed)
            floor = sample_variance(values) if values.ndim == 2 and values.shape[1] > 1 else None
            entries[name] = lag_of(
                window,
                scaled,
                many,
                _means(own)[window.part, 0],
                None if resampled is None else resampled[:, window.part, 0],
                floor,
            )
        found.append(entries)
    return found


def _means(curves: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.stack([each if each.ndim == 1 else each.mean(axis=1) for each in curves.values()], axis=1)


def _resampled(curves: Mapping[str, np.ndarray], seed: int) -> np.ndarray | None:
    """(R, T, D), the same draws for curves of as many sequences; None where a curve has none."""
    if any(each.ndim == 1 or each.shape[1] < 2 or not np.all(np.isfinite(each)) for each in curves.values()):
        return None
    return resampled_means(list(curves.values()), RESAMPLES, seed)
