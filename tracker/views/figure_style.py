"""How the figures look: one style, a training axis on which step 0 has its own place, labels at line ends."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from tracker.analysis.schema import RunPhases
from tracker.analysis.text import size_name
from tracker.metrics.registry import metric_of, title_of
from tracker.views.palette import HEAT, PHASES
from tracker.views.prepared import spans

INK, SOFT, GRID = "#1b2230", "#58606e", "#e6e4dd"
ZERO = -1.0
"""Place of step 0 on the log2 axis: one octave left of step 1, behind an axis break."""
LONGEST = 14
"""Characters of a name beside a line; longer ones are cut."""
MOST_TICKS = 9
"""Of an axis of sizes."""
STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Inter", "Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 9, "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.edgecolor": SOFT, "axes.labelcolor": SOFT, "axes.titlecolor": INK, "text.color": INK,
    "xtick.color": SOFT, "ytick.color": SOFT, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.grid.axis": "y", "grid.color": GRID, "grid.linewidth": 0.7,
    "axes.axisbelow": True, "figure.facecolor": "white", "savefig.facecolor": "white",
    "svg.hashsalt": "tracker", "lines.linewidth": 1.7,
}  # fmt: skip


@contextmanager
def style() -> Iterator[None]:
    """Set the figures' rcParams while one is made or saved."""
    # Fonts that this machine lacks would each be a logged line; keep those that it has.
    there = {font.name for font in font_manager.fontManager.ttflist}
    fonts = [name for name in STYLE["font.sans-serif"] if name in there]
    with matplotlib.rc_context(STYLE | {"font.sans-serif": fonts}):  # type: ignore[arg-type]
        yield


def heat_map() -> LinearSegmentedColormap:
    """Return the page's light heat scale as a matplotlib colour map."""
    return LinearSegmentedColormap.from_list("tracker", list(HEAT["light"]))


def place(steps: Any) -> np.ndarray:
    """Convert steps (any shape) to places on the log2 axis; step 0 stands at ``ZERO``."""
    steps = np.asarray(steps, dtype=float)
    return np.where(steps > 0, np.log2(np.maximum(steps, 1.0)), ZERO)


def training_axis(axes: Axes, last_step: int, *, zero: bool = True, label: bool = True) -> None:
    """Set log-step ticks 0, 1, 4, 16 ... with a break between 0 and 1."""
    powers = np.arange(0, np.log2(max(last_step, 2)) + 1e-9, 2)
    ticks = [ZERO, *powers] if zero else list(powers)
    axes.set_xticks(ticks, [f"{0 if tick < 0 else 2 ** int(tick)}" for tick in ticks])
    axes.set_xlim(ticks[0] - 0.3, float(place(max(last_step, 2))) + 0.3)
    if zero:
        patch = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
        axes.text(ZERO / 2, 0, "//", transform=axes.get_xaxis_transform(), ha="center", va="center",
                  color=SOFT, fontsize=8, bbox=patch, clip_on=False)  # fmt: skip
    if label:
        axes.set_xlabel("training step (log)")


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of a panel, the first on top."""
    axes.set_yticks(range(len(names)), [literal(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def shade_phases(axes: Axes, entry: RunPhases) -> None:
    """Tint one run's labelled phases: of a report that has no transitions."""
    for phase in entry.phases:
        if phase.label in PHASES:
            first, last = map(float, place([phase.first_step, phase.last_step]))
            axes.axvspan(first, last, color=PHASES[phase.label]["light"], alpha=0.1, lw=0, zorder=0)


def name_phases(axes: Axes, entry: RunPhases) -> None:
    """Name one run's phases above a panel, where there is room."""
    low, high = axes.get_xlim()
    for span in spans(entry.phases):
        first, last = map(float, place([span.first_step, span.last_step]))
        label = span.label
        if label in PHASES and (last - first) / (high - low) > 0.012 * len(label):
            axes.text((first + last) / 2, 1.01, label, transform=axes.get_xaxis_transform(), ha="center",
                      va="bottom", color=SOFT, fontsize=7.5)  # fmt: skip


def end_labels(axes: Axes, ends: list[tuple[str, str, float]], *, gap: float = 0.07) -> None:
    """Write names at the right edge beside the line ends, moved apart to ``gap`` (share of the axis) or more.

    Args:
        axes: where the lines are, with its y limits final.
        ends: (text, colour, value) of each line's end.
        gap: least distance between two names.
    """
    bottom, top = axes.get_ylim()
    ends = sorted(ends, key=lambda end: end[2])
    heights = [(end[2] - bottom) / (top - bottom) for end in ends]
    for _ in range(200):
        for i in range(1, len(heights)):
            overlap = gap - (heights[i] - heights[i - 1])
            if overlap > 0:
                heights[i] += overlap / 2
                heights[i - 1] -= overlap / 2
        heights = [min(max(height, 0.0), 1.0) for height in heights]
    for (text, colour, _), height in zip(ends, heights, strict=True):
        shown = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
        axes.text(
            1.01, height, literal(shown), transform=axes.transAxes, color=colour, va="center", fontsize=8
        )


def size_axis(axes: Axes, sizes: Sequence[float]) -> None:
    """Set a log axis whose ticks are the models' own sizes, labelled 100k, 1M, 1B, as far as they fit."""
    ordered = sorted(set(sizes))
    least = (np.log(ordered[-1]) - np.log(ordered[0])) / MOST_TICKS
    kept: list[float] = []
    for size in ordered:
        if not kept or np.log(size) - np.log(kept[-1]) >= least:
            kept.append(size)
    axes.set_xscale("log")
    axes.set_xticks(kept, [size_name(size) for size in kept])
    axes.set_xticks([], minor=True)


def titled(name: str) -> str:
    """Return a metric's title with its unit."""
    title, unit = title_of(name), metric_of(name).unit
    return f"{title} ({unit})" if unit else title


def literal(text: str) -> str:
    """Escape ``text`` so that matplotlib draws it unchanged: a dollar sign would start mathematics."""
    return text.replace("$", r"\$")


def empty_figure(sentence: str) -> Figure:
    """Return a figure that says why there is nothing to draw."""
    with style():
        figure = Figure(figsize=(6, 2))
        figure.text(0.5, 0.5, sentence, ha="center", va="center", color=SOFT)
    return figure
