"""Colours of page and figures: one family from teal to ink, ordered by model size.

In light surroundings large models are dark, in dark surroundings bright: the larger, the more contrast.
Lightness alone orders them, so the order survives colour blindness and a black-and-white printer.
"""

from typing import Literal

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
    "before": {"name": "before", "sign": "◄", "light": "#2a69a3", "dark": "#82b8e6", "print": "#2a69a3"},
    "with": {"name": "with", "sign": "●", "light": "#58606e", "dark": "#9ca5b3", "print": "#58606e"},
    "after": {"name": "after", "sign": "►", "light": "#b06a00", "dark": "#e8a93a", "print": "#b06a00"},
    "cannot tell": {
        "name": "unclear", "sign": "○", "light": "#58606e", "dark": "#9ca5b3", "print": "#c9cbd0",
    },
    "still": {
        "name": "no change of direction", "sign": "–", "light": "#8a8f98", "dark": "#78828f",
        "print": "#e4e5e7",
    },
}  # fmt: skip
"""When a covariate changes, as stored in analysis.json: how page and figures name and colour it."""


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def between(anchors: tuple[str, ...], share: float) -> str:
    """The colour at ``share`` (0 first, 1 last) of the way along equally spaced anchors, ``#rrggbb``."""
    place = min(max(share, 0.0), 1.0) * (len(anchors) - 1)
    index = min(int(place), len(anchors) - 2)
    low, high = _channels(anchors[index]), _channels(anchors[index + 1])
    mixed = [round(a + (b - a) * (place - index)) for a, b in zip(low, high, strict=True)]
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def line_colours(count: int, theme: Theme = "light") -> list[str]:
    """``count`` colours from the smallest model's to the largest's."""
    if count == 1:
        return [between(LINES[theme], 0.6)]
    return [between(LINES[theme], index / (count - 1)) for index in range(count)]
