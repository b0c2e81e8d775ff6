"""How early each layer is half way through a move that all heads together make.

T: checkpoints around the move; H: heads; R: draws.
"""

import numpy as np

from tracker.analysis.order import TAIL, order_of
from tracker.analysis.transitions.isotonic import rising_many

DRAWS = 100
"""Draws over a layer's heads."""


def layer_halves(
    steps: np.ndarray, values_TH: np.ndarray, layers_H: np.ndarray, seed: int = 0
) -> dict[int, tuple[float, tuple[float, float] | None, str]]:
    """Compare when every layer is half way with when the mean over all heads is.

    Args:
        steps: (T,) steps from the onset of the move to its end.
        values_TH: (T, H) one metric of every head.
        layers_H: (H,) the layer of each head.
        seed: of the draws.

    Returns:
        Layer -> octaves later than all heads together, a 90 % interval over draws of its heads (None for one
        head), and before, with, after or cannot tell.
    """
    places = np.log2(steps + 1.0)
    whole = values_TH.mean(axis=1)
    sign = 1.0 if whole[-1] >= whole[0] else -1.0
    here = _halves(places, sign * whole[None])[0]
    rng, found = np.random.default_rng(seed), {}
    for layer in np.unique(layers_H):
        mine = sign * values_TH[:, layers_H == layer]
        lag = float(_halves(places, mine.mean(axis=1)[None])[0] - here)
        interval = None
        if mine.shape[1] > 1:
            drawn = mine[:, rng.integers(mine.shape[1], size=(DRAWS, mine.shape[1]))].mean(axis=2).T
            low, high = np.quantile(_halves(places, drawn) - here, [TAIL, 1 - TAIL])
            interval = (min(float(low), lag), max(float(high), lag))
        found[int(layer)] = (lag, interval, order_of(*(interval or (lag, lag))))
    return found


def _halves(places: np.ndarray, curves_RT: np.ndarray) -> np.ndarray:
    """Where each rising curve passes half of its way, in octaves, (R,)."""
    fitted = rising_many(curves_RT, np.ones(len(places)))
    middle = (fitted[:, :1] + fitted[:, -1:]) / 2
    at = np.clip((fitted < middle).sum(axis=1), 1, len(places) - 1)
    rows = np.arange(len(fitted))
    low, high = fitted[rows, at - 1], fitted[rows, at]
    share = np.clip((middle[:, 0] - low) / np.where(high > low, high - low, 1), 0, 1)
    return places[at - 1] + share * (places[at] - places[at - 1])
