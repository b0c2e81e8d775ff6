"""Which heads and layers carry a change, and whether layers move one after the other.

T: checkpoints; H: heads of the model; L: layers.
"""

from typing import Any

import numpy as np

from tracker.analysis.bootstrap import resampled_means
from tracker.analysis.lead_lag import LEVEL, Window, order_of, places_in

Entry = dict[str, Any]
TOP = 5
"""Heads that are named."""
HALF = 0.5


def carriers(
    window: Window, values_TH: np.ndarray, layers_H: np.ndarray, heads_H: np.ndarray, seed: int = 0
) -> Entry | None:
    """What part of a change of the mean over heads each layer and head makes up.

    A head's share is its own move from the phase before to the phase after over the sum of all; shares
    add up to one, and a head that moves against the rest has a negative one.

    Args:
        window: the two phases around the change.
        values_TH: (T, H) one metric of every head.
        layers_H: (H,) the layer of each head.
        heads_H: (H,) its number in the layer.
        seed: of the draws over a layer's heads.

    Returns:
        heads: the TOP by share; half_by: the smallest number of heads that make up half of the change;
        layers: share, and lag to the whole model's change in checkpoints with its 90 % interval over heads.
        None where heads are undefined in the window or do not move.
    """
    part = values_TH[window.part]
    if not np.all(np.isfinite(part)):
        part = part[:, np.isfinite(part).all(axis=0)]
        whole = np.isfinite(values_TH[window.part]).all(axis=0)
        layers_H, heads_H = layers_H[whole], heads_H[whole]
    if part.shape[1] < 2:
        return None
    before, after = part[: window.at - window.first], part[window.at - window.first :]
    moved = after.mean(axis=0) - before.mean(axis=0)
    if abs(moved.sum()) <= 1e-12:
        return None
    shares = moved / moved.sum()
    ranked = np.argsort(-shares)
    reached = np.cumsum(shares[ranked]) >= HALF
    return {
        "heads": [
            {"layer": int(layers_H[h]), "head": int(heads_H[h]), "share": float(shares[h])}
            for h in ranked[:TOP]
        ],
        "half_by": int(np.argmax(reached)) + 1,
        "of": len(shares),
        "layers": [_layer(window, part, layers_H, layer, shares, seed) for layer in np.unique(layers_H)],
    }


def _layer(
    window: Window, part_nH: np.ndarray, layers_H: np.ndarray, layer: int, shares: np.ndarray, seed: int
) -> Entry:
    mine = layers_H == layer
    own = int(places_in(window, part_nH[:, mine].mean(axis=1)[None, :, None])[0])
    whole = int(places_in(window, part_nH.mean(axis=1)[None, :, None])[0])
    entry: Entry = {
        "layer": int(layer),
        "share": float(shares[mine].sum()),
        "lag": own - whole,
        "interval": None,
        "verdict": order_of(own - whole, own - whole),
    }
    if mine.sum() < 2:
        return entry
    drawn = resampled_means([part_nH[:, mine]], 100, seed)
    lags = places_in(window, drawn) - whole
    low, high = np.quantile(lags, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
    low, high = min(low, own - whole), max(high, own - whole)
    return entry | {"interval": [int(low), int(high)], "verdict": order_of(low, high)}
