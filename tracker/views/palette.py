"""Colours of page and figures: one family from teal to ink, ordered by model size.

In light surroundings large models are dark, in dark surroundings bright: the larger, the more contrast.
Lightness alone orders them, so the order survives colour blindness and a black-and-white printer.
"""

from typing import Literal

import numpy as np

Theme = Literal["light", "dark"]

LINES: dict[Theme, tuple[str, ...]] = {
    "light": ("#62b6a4", "#2f93a6", "#2a69a3", "#26438c", "#131a4b"),
    "dark": ("#3d7f8c", "#4fa3ad", "#82c6cc", "#bde3df", "#fbfdf4"),
}
HEAT: dict[Theme, tuple[str, ...]] = {
    "light": ("#f7f4ea", "#c5dfce", "#6cb8ac", "#2d83a0", "#284a88", "#141a4b"),
    "dark": ("#161d30", "#233f6d", "#2b7390", "#57aaa3", "#b4d8b9", "#fbf8e0"),
}
PHASES = {
    "initial": {"light": "#8a8f98", "dark": "#8a94a3"},
    "exploratory": {"light": "#d98a00", "dark": "#e8a93a"},
    "specialisation": {"light": "#3d8f63", "dark": "#67b98d"},
}
"""Shades of the phases; every shaded phase also carries its name."""
VERDICTS = {
    "before": {"name": "before", "sign": "◄", "light": "#2a69a3", "dark": "#82b8e6"},
    "with": {"name": "with", "sign": "●", "light": "#58606e", "dark": "#9ca5b3"},
    "after": {"name": "after", "sign": "►", "light": "#b06a00", "dark": "#e8a93a"},
    "cannot tell": {"name": "unclear", "sign": "○", "light": "#58606e", "dark": "#9ca5b3"},
    "still": {"name": "no change beyond noise", "sign": "–", "light": "#8a8f98", "dark": "#78828f"},
}
"""When a covariate changes, as stored in analysis.json: how page and figures name and colour it."""


def line_colours(count: int, theme: Theme = "light") -> list[str]:
    """Return ``count`` colours, ``#rrggbb``, from the smallest model's to the largest's."""
    shares = [0.6] if count == 1 else np.linspace(0, 1, count)
    ends = np.array([[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in LINES[theme]])
    levels = np.linspace(0, 1, len(ends))
    mixed = [[round(float(np.interp(share, levels, channel))) for channel in ends.T] for share in shares]
    return ["#{:02x}{:02x}{:02x}".format(*colour) for colour in mixed]
