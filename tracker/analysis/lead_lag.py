"""Lead and lag: which covariates move before, with or after a change of the frequency structure.

T: checkpoints; n: those of the two phases around a change; S: sequences or heads; R: draws.

Within the two phases around a change every curve is given its own place of change, by the same least
squares; the lag is the number of checkpoints from the change's place to the covariate's. Sequences (heads,
for what exists per head only) are drawn again for both at once, so that what they share cancels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tracker.analysis.changes import SHORTEST, noise_penalty
from tracker.analysis.intervals import profile, resampled_means
from tracker.analysis.noise import bend_variance, sample_variance
from tracker.analysis.schema import Lag
from tracker.analysis.segments import Segments

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
"""An interval of more checkpoints than this leaves the order open."""


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


def windows(steps: np.ndarray, highs: Sequence[int]) -> list[Window]:
    """Return one window per change.

    Args:
        steps: (T,) measured steps.
        highs: the first step after each change.
    """
    places = [int(np.searchsorted(steps, high)) for high in highs]
    edges = [0, *places, len(steps)]
    return [Window(steps, edges[k], edges[k + 1], edges[k + 2]) for k in range(len(places))]


def places_in(window: Window, curves_RnD: np.ndarray) -> np.ndarray:
    """Find the cheapest place of one change in each curve, (R,), in checkpoints into the window."""
    costs = profile(window.position, curves_RnD, np.inf, SHORTEST)
    return costs.argmin(axis=1) + SHORTEST


def moves(window: Window, values_n: np.ndarray, floor: float | None) -> bool:
    """Judge whether a curve changes within the window by more than noise or one straight drift."""
    values = (values_n - values_n.mean())[:, None]
    noise = max(float(bend_variance(values)[0]), floor or 0.0)
    penalty = noise_penalty(np.array([[noise]]), len(values))
    segments = Segments(window.position, values, penalty, SHORTEST)
    parted = min(
        segments.cost(0, at) + segments.cost(at, len(values))
        for at in range(SHORTEST, len(values) - SHORTEST + 1)
    )
    return segments.cost(0, len(values)) - parted > penalty


def order_of(low: float, high: float) -> str:
    """Return before, with or after for an interval of lags; cannot tell where it is too wide."""
    if high - low > WIDEST:
        return "cannot tell"
    return "before" if high < 0 else "after" if low > 0 else "with"


def lag_interval(lags_R: np.ndarray, lag: int) -> tuple[int, int]:
    """Return the interval of resampled lags at LEVEL, widened to hold the ``lag`` of the data."""
    low, high = np.quantile(lags_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
    return int(min(low, lag)), int(max(high, lag))


@dataclass(frozen=True)
class _Curves:
    """Curves and the same resampled; covariates have D = 1."""

    means: np.ndarray
    """(T, D)."""
    drawn: np.ndarray | None
    """(R, T, D), the same draws for curves of as many sequences; None where a curve has none."""
    floor: float | None
    """Noise variance of a single curve."""


def _gathered(curves: Mapping[str, np.ndarray], seed: int) -> _Curves:
    arrays = list(curves.values())
    means = np.stack([each if each.ndim == 1 else each.mean(axis=1) for each in arrays], axis=1)
    sampled = all(each.ndim == 2 and each.shape[1] > 1 and np.all(np.isfinite(each)) for each in arrays)
    drawn = resampled_means(arrays, RESAMPLES, seed) if sampled else None
    several = len(arrays) == 1 and arrays[0].ndim == 2 and arrays[0].shape[1] > 1
    return _Curves(means, drawn, sample_variance(arrays[0]) if several else None)


def _lag(window: Window, metrics: _Curves, covariate: _Curves) -> Lag:
    """One covariate against one change; ``metrics`` are z-scored."""
    values = covariate.means[window.part, 0]
    if not np.all(np.isfinite(values)) or len(values) < 2 * SHORTEST:
        return Lag()
    if not moves(window, values, covariate.floor):
        return Lag("still")
    own = int(places_in(window, values[None, :, None])[0])
    lag = own - int(places_in(window, metrics.means[None, window.part])[0])
    steps = window.steps[window.first + own - 1 : window.first + own + 1]
    bracket = (int(steps[0]), int(steps[1]))
    if metrics.drawn is None or covariate.drawn is None:
        return Lag(order_of(lag, lag), lag, None, bracket)
    lags = places_in(window, covariate.drawn[:, window.part]) - places_in(
        window, metrics.drawn[:, window.part]
    )
    interval = lag_interval(lags, lag)
    return Lag(order_of(*interval), lag, interval, bracket)


def covariate_lags(
    steps: np.ndarray,
    highs: Sequence[int],
    metrics: Mapping[str, np.ndarray],
    covariates: Mapping[str, np.ndarray],
    seed: int = 0,
) -> list[dict[str, Lag]]:
    """Compare the place of every covariate's own change with that of every change of a run.

    Args:
        steps: (T,) measured steps.
        highs: the first step after each change.
        metrics: name -> (T,) or (T, S), those that the changes were found in.
        covariates: name -> (T,) or (T, S).
        seed: of the draws.

    Returns:
        Per change: covariate -> its lag.
    """
    curves = _gathered(metrics, seed)
    centre, spread = curves.means.mean(axis=0), curves.means.std(axis=0)
    kept = spread > 0

    def scaled(values: np.ndarray) -> np.ndarray:
        return (values[..., kept] - centre[kept]) / spread[kept]

    drawn = None if curves.drawn is None else scaled(curves.drawn)
    changing = _Curves(scaled(curves.means), drawn, None)
    others = {name: _gathered({name: values}, seed) for name, values in covariates.items()}
    return [
        {name: _lag(window, changing, other) for name, other in others.items()}
        for window in windows(steps, highs)
    ]
