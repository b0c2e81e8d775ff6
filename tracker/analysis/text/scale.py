"""Sentences about model size: what breaks where, how sure that is, or how many sizes are missing."""

from collections.abc import Sequence

import numpy as np

from tracker.analysis.axes import AXES
from tracker.analysis.schema import LeaveOneOut, ThresholdEntry
from tracker.analysis.text import number, size_name, titled
from tracker.analysis.thresholds import ENOUGH, LEVEL, Threshold, Verdict
from tracker.errors import counted

REPORTED_OVER_FEW_SIZES = ("frequency_selectivity", "averaged_scale_sensitivity_0.5")
"""Metrics whose plain trend the summary reports where the sizes are too few for a threshold."""


def _trend(entry: ThresholdEntry) -> str:
    """How the values go over the sizes, with the spread over sequences at both ends."""
    values = np.asarray(entry.values, dtype=float)
    if len(values) < 2 or np.ptp(values) == 0:
        return ""
    rises = np.diff(values)
    way = "rises" if values[-1] > values[0] else "falls"
    steady = bool(np.all(rises > 0) or np.all(rises < 0))
    path = f"{way} from size to size" if steady else f"{way} from end to end, not at every size"

    def end(at: int) -> str:
        spread = entry.spread[at]
        sd = "" if spread is None else f" (sd over sequences {number(spread)})"
        return f"{number(values[at])}{sd} in {entry.models[at]}"

    return f" Over the {len(values)} sizes it {path}: {end(0)} to {end(-1)}."


def threshold_sentence(entry: ThresholdEntry, verdict: Verdict | None) -> str:
    """Say what one metric shows over one axis of size at the last common step."""
    title = titled(entry.metric)
    if verdict is None:
        return f"{title}: no threshold, since the models share no measured step; measure one in all."
    where = f"at step {entry.step}"
    if not verdict.sizes:
        return (
            f"{title} {where}: no threshold, since it has no value there in any model of known size; "
            "measure checkpoints where it is defined."
        )
    if verdict.found is None:
        return f"{title} {where}: {verdict.reason}.{_trend(entry)}"
    return f"{title} {where} {_break(entry, verdict.found)}; {verdict.reason}{_doubts(entry)}."


def _break(entry: ThresholdEntry, found: Threshold) -> str:
    values, scale = np.asarray(entry.values, dtype=float), np.asarray(entry.scale)
    below, above = values[scale <= found.low].mean(), values[scale >= found.high].mean()
    interval = ""
    if found.interval != (found.low, found.high):
        interval = f" (90% interval ({size_name(found.interval[0])}, {size_name(found.interval[1])}])"
    return (
        f"breaks between {size_name(found.low)} and {size_name(found.high)} {AXES[entry.axis]}{interval}: "
        f"{number(below)} up to there, {number(above)} beyond"
    )


def _doubts(entry: ThresholdEntry) -> str:
    """Correction, stability and what else could be behind it."""
    parts = [_correction(entry)] if entry.p_corrected is not None else []
    without = entry.leave_one_out or LeaveOneOut(0, 0)
    if without.moved_by:
        parts.append(f"it does not stay without {' or '.join(without.moved_by)}")
    else:
        parts.append("it stays whichever model is left out")
    others = [AXES[axis] for axis in entry.best_axes or () if axis != entry.axis]
    if others:
        parts.append(f"by AICc the data cannot separate this axis from {', '.join(others)}")
    if entry.confounded:
        parts.append(entry.confounded)
    return "; " + "; ".join(parts)


def _correction(entry: ThresholdEntry) -> str:
    assert entry.p_corrected is not None
    corrected = f"corrected for every metric and axis p = {entry.p_corrected:.2f}"
    if entry.p_corrected <= LEVEL:
        return corrected
    return (
        f"{corrected}, so by permutation alone it could be chance: {len(entry.models)} models have too few "
        "orders; measure seeds or more sizes"
    )


def scale_summary(thresholds: Sequence[ThresholdEntry]) -> list[str]:
    """Return a sentence for every break on the main axis, and for the rest one per suite."""
    main = [entry for entry in thresholds if entry.main]
    sentences = [entry.sentence for entry in main if entry.low is not None]
    for suite in dict.fromkeys(entry.suite for entry in main):
        quiet = [entry for entry in main if entry.suite == suite and entry.low is None]
        sizes = max((len(entry.models) for entry in quiet), default=0)
        if 2 <= sizes < ENOUGH:
            valued = [entry for entry in quiet if entry.models]
            first = [entry for entry in valued if entry.metric in REPORTED_OVER_FEW_SIZES] or valued[:1]
            sentences += [entry.sentence for entry in first]
        elif quiet and sizes < 2:
            sentences.append(
                f"{suite}: a threshold over size needs at least {ENOUGH} model sizes ({sizes} measured)."
            )
        elif quiet:
            names = ", ".join(titled(entry.metric) for entry in quiet if len(entry.models) == sizes)
            sentences.append(f"{suite}: no break over {counted(sizes, 'model size')} in {names}.")
    return sentences + _other_axes(thresholds)


def _other_axes(thresholds: Sequence[ThresholdEntry]) -> list[str]:
    """One sentence per suite: breaks that only show on other axes or in other metrics."""
    sentences = []
    for suite in dict.fromkeys(entry.suite for entry in thresholds):
        mine = [entry for entry in thresholds if entry.suite == suite]
        found = [entry for entry in mine if not entry.main and entry.low is not None]
        tried = sum(entry.p_value is not None for entry in mine)
        if not found:
            continue
        passed = sum(entry.p_corrected is not None and entry.p_corrected <= LEVEL for entry in found)
        sentences.append(
            f"{suite}: {len(found)} of the other {tried} pairs of metric and axis break too (analysis.json); "
            f"{passed} of them stay below p = {LEVEL} when corrected for the {tried} pairs."
        )
    return sentences
