"""Tints of transitions in figures: as strong as it is sure that a move is under way."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from tracker.analysis.transition_types import CurveTransitions, Move
from tracker.views.figure_style import INK, SOFT, place
from tracker.views.palette import PHASES

SLICES = 24


def under_way(move: Move) -> list[tuple[float, float, float]]:
    """Return stretches (x0, x1, strength) of the log-step axis; the strongest is 1.

    A move fades in over the 90 % interval of its onset and out over that of its end, unless it may go on.
    """
    begins, begun = map(float, place(move.onset.interval))
    ending, ended = map(float, place(move.end.interval))
    if ended <= begins:
        return []
    edges = np.linspace(begins, ended, SLICES + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    strength = _share(middle, begins, begun)
    if not move.open_end:
        strength = strength * (1 - _share(middle, ending, ended))
    strength = strength / max(float(strength.max()), 1e-9)
    slices = zip(edges[:-1], edges[1:], strength, strict=True)
    return [(float(x0), float(x1), float(each)) for x0, x1, each in slices]


def _share(x: np.ndarray, low: float, high: float) -> np.ndarray:
    return (x >= low).astype(float) if high <= low else np.clip((x - low) / (high - low), 0, 1)


def tint_transitions(
    axes: Axes, found: CurveTransitions, row: float | None = None, strongest: float = 0.16
) -> None:
    """Tint the moves of a run, with a line where each is half way; turning points are dotted.

    Args:
        axes: with a log-step axis.
        found: the joint curve.
        row: of a strip; None: over the whole height of a panel.
        strongest: opacity of the strongest tint.
    """
    bottom, height = (0.0, 1.0) if row is None else (row - 0.3, 0.6)
    over = axes.get_xaxis_transform() if row is None else axes.transData
    for move in found.moves:
        role = found.role_of(move) or "initial"
        colour = PHASES[role]["light"]
        for x0, x1, strength in under_way(move):
            axes.add_patch(Rectangle((x0, bottom), x1 - x0, height, transform=over, color=colour, lw=0,
                                     alpha=strongest * strength, zorder=0))  # fmt: skip
        half = float(np.mean(place([move.half.step_low, move.half.step_high])))
        if role != "initial" or row is not None:
            axes.plot([half] * 2, [bottom, bottom + height], transform=over, lw=1, zorder=1,
                      color=INK if row is not None else colour)  # fmt: skip
    for turn in found.turns:
        x = float(place(turn.step))
        if row is None:
            axes.axvline(x, color=SOFT, lw=0.8, ls=":", zorder=1)
        else:
            axes.plot(x, row, "D", color=INK, ms=3.2, mfc="none", zorder=3)
