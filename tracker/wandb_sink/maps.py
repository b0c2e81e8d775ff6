"""Layer x head maps as small pictures, coloured alike at every checkpoint so that they can be compared."""

import numpy as np
from matplotlib import colormaps
from PIL import Image

from tracker.metrics.registry import title_of

MAPS: dict[str, tuple[float, float]] = {
    "spectral_entropy_normalised": (0.0, 1.0),
    "frequency_selectivity": (0.0, 2.0),
    "band_power_low": (0.0, 1.0),
    "averaged_scale_sensitivity_0.5": (0.0, 1.0),
    "previous_token_score": (0.0, 1.0),
    "prefix_matching_score": (0.0, 1.0),
}
"""The metrics that are drawn, and the values of the darkest and the brightest colour."""

COLOURS = "viridis"
UNDEFINED = (128, 128, 128)
PICTURE = 256
"""Aim for the longer side, in pixels."""
SMALLEST, LARGEST = 4, 24
"""Bounds of a cell's side, in pixels."""


def head_map(metric: str, values: np.ndarray) -> tuple[Image.Image, str]:
    """One metric of every head as a picture, and its caption.

    Args:
        metric: a name in ``MAPS``, which gives the range of the colours.
        values: (layers, heads), NaN where a head has no value.

    Returns:
        The picture, layer 0 on top and head 0 on the left, grey where there is no value; and a caption
        that says what the colours mean.
    """
    low, high = MAPS[metric]
    shares = np.clip((values - low) / (high - low), 0.0, 1.0)
    colours = colormaps[COLOURS](np.nan_to_num(shares), bytes=True)[..., :3]
    colours[np.isnan(values)] = UNDEFINED
    side = int(np.clip(PICTURE // max(values.shape), SMALLEST, LARGEST))
    pixels = np.ascontiguousarray(colours.repeat(side, axis=0).repeat(side, axis=1))
    caption = (
        f"{title_of(metric)}: rows are layers (0 on top), columns are heads; "
        f"{low:g} dark to {high:g} bright, grey where undefined"
    )
    return Image.fromarray(pixels), caption
