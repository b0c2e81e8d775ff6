"""What happens in a phase: names for the paper's exploration and specialisation, with the numbers."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from tracker.analysis.schema import Extent

ENTROPY, SELECTIVITY = "spectral_entropy", "frequency_selectivity"
RECOVERY = 0.1
"""Share of the way up that must be lost again for a recovery."""
TOP = 0.75
"""From this share of the way up on, a checkpoint counts to the height reached."""
Span = tuple[int, int]
"""First and last checkpoint of a phase, as indices, both in it."""


def label_columns(names: Sequence[str]) -> tuple[str, str] | None:
    """The entropy and selectivity columns that labels are read from, of one signal; rows first."""
    for prefix in ("", "averaged_"):
        if prefix + ENTROPY in names and prefix + SELECTIVITY in names:
            return prefix + ENTROPY, prefix + SELECTIVITY
    return None


def spans_of(breaks: Sequence[int], points: int) -> list[Span]:
    """Phases as index spans."""
    edges = [0, *breaks, points]
    return [(low, high - 1) for low, high in pairwise(edges)]


def _levels(values: np.ndarray, spans: list[Span]) -> np.ndarray:
    return np.array([values[low : high + 1].mean() for low, high in spans])


def _span_at(index: int, spans: list[Span]) -> int:
    return next(number for number, (low, high) in enumerate(spans) if low <= index <= high)


def joint_score(entropy: np.ndarray, selectivity: np.ndarray) -> np.ndarray:
    """High where entropy is high and selectivity low, (T,): the difference of their z-scores."""
    scaled = [(each - each.mean()) / max(float(each.std()), 1e-12) for each in (entropy, selectivity)]
    return scaled[0] - scaled[1]


def with_peak(breaks: tuple[int, ...], score: np.ndarray) -> tuple[int, ...]:
    """Breaks moved so that a turning point ends the phase that leads up to it.

    Where a rise meets a fall, their common checkpoint fits both equally well; it is counted to the rise,
    unless the phase before has not come half the way, so that the peak is a jump away from it.
    """
    peak = int(score.argmax())
    if peak not in breaks:
        return breaks
    at = breaks.index(peak)
    below = breaks[at - 1] - 1 if at else 0
    high = breaks[at + 1] if at + 1 < len(breaks) else len(score)
    leads_up = score[peak - 1] > (score[below] + score[peak]) / 2 and high - peak > 2
    return (*breaks[:at], peak + 1, *breaks[at + 1 :]) if leads_up else breaks


def _height(values: np.ndarray, spans: list[Span], top: int) -> tuple[float, float]:
    """Level of the first phase, and the height reached in phase ``top``."""
    base = float(values[spans[0][0] : spans[0][1] + 1].mean())
    inside = values[spans[top][0] : spans[top][1] + 1]
    upper = inside[inside >= base + TOP * (inside.max() - base)]
    return base, float(upper.mean())


def _recovered(values: np.ndarray, spans: list[Span], top: int, later: int) -> bool:
    """Whether phase ``later`` has come back down by RECOVERY of the way up."""
    base, height = _height(values, spans, top)
    return height - _levels(values, spans)[later] >= RECOVERY * (height - base) > 0


def label_spans(
    entropy: np.ndarray, selectivity: np.ndarray, spans: list[Span]
) -> tuple[list[str | None], int | None]:
    """A label per phase, and the index of the exploratory extremum.

    Exploratory are the phases over which selectivity falls and entropy rises, from one to the next, up to
    the phase that holds their joint extremum; specialisation those after it in which both have come back
    by RECOVERY of the way. The first phase is initial, whatever is neither stays None.

    Args:
        entropy: (T,) spectral entropy.
        selectivity: (T,) frequency selectivity.
        spans: the phases, at least one.

    Returns:
        labels, one per span, and the peak's index: None without an exploratory phase, or where the
        extremum is the last checkpoint, since then nothing shows that it is one.
    """
    labels: list[str | None] = [None] * len(spans)
    if len(spans) == 1:
        return labels, None
    labels[0] = "initial"
    peak = int(joint_score(entropy, selectivity).argmax())
    top = _span_at(peak, spans)
    high, low = _levels(entropy, spans), _levels(selectivity, spans)
    number = top
    while number > 0 and high[number] > high[number - 1] and low[number] < low[number - 1]:
        labels[number] = "exploratory"
        number -= 1
    if labels[top] != "exploratory":
        return labels, None
    for later in range(top + 1, len(spans)):
        if _recovered(entropy, spans, top, later) and _recovered(-selectivity, spans, top, later):
            labels[later] = "specialisation"
    return labels, peak if peak < len(entropy) - 1 else None


def evidence_of(
    columns: tuple[str, str], entropy: np.ndarray, selectivity: np.ndarray, steps: np.ndarray, span: Span
) -> dict[str, Extent]:
    """Return both columns at a phase's first and last checkpoint, and their extremum within it."""
    low, high = span
    evidence = {}
    for name, values, best in ((columns[0], entropy, np.argmax), (columns[1], selectivity, np.argmin)):
        at = low + int(best(values[low : high + 1]))
        evidence[name] = Extent(
            float(values[low]), float(values[high]), float(values[at]), int(steps[at])
        )  # fmt: skip
    return evidence
