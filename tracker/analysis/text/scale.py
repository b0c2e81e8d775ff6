"""Sentences about model size: what shifts where, how sure that is, or how many sizes are missing."""

from collections.abc import Sequence

import numpy as np

from tracker.analysis.axes import AXES
from tracker.analysis.scale_values import TURNING, TURNING_REPORTED, step_at
from tracker.analysis.schema import Shift, ThresholdEntry
from tracker.analysis.shift import FEWEST, STEP_LIKELY
from tracker.analysis.text import number, size_name, titled
from tracker.analysis.thresholds import ENOUGH, LEVEL

REPORTED_OVER_FEW_SIZES = ("frequency_selectivity", "averaged_scale_sensitivity_0.5")
"""Metrics whose plain trend the summary reports where the sizes are too few for a threshold."""


def threshold_sentence(entry: ThresholdEntry) -> str:
    """Say what one metric shows over one axis of size at the last common step."""
    title = TURNING.get(entry.metric) or titled(entry.metric)
    if entry.step is None:
        return f"{title}: no threshold, since the models share no measured step; measure one in all."
    if not entry.models:
        return (
            f"{title} at step {entry.step}: no threshold, since it has no value there in any model of known "
            "size; measure checkpoints where it is defined."
        )
    subject = title if entry.metric in TURNING else f"{title} at step {entry.step}"
    return f"{subject} {_found(entry)}."


def _found(entry: ThresholdEntry) -> str:
    if len(entry.values) < 2:
        only = ", ".join(
            f"{number(value)} in {model}" for value, model in zip(entry.values, entry.models, strict=True)
        )
        return f"was measured in one model size: {only}"
    if entry.shift is None or not entry.told:
        return _nothing_told(entry)
    shift = entry.shift
    if entry.low is None and shift.step_odds < 1 / STEP_LIKELY:
        parts = [_ends(entry), f"a smooth trend is favoured {odds_words(1 / shift.step_odds)} over a step"]
    else:
        favoured = odds_words(shift.step_odds)
        parts = [_step(entry, shift), f"a step is favoured {favoured} over a smooth trend"]
    parts[-1] += _without_one(entry)
    parts[-1] += f", some trend {odds_words(shift.odds)} over none"
    if entry.low is not None:
        parts += _doubts(entry)
    elif shift.step_odds >= 1 / STEP_LIKELY:
        few = len(entry.values) < ENOUGH
        parts.append(
            f"a threshold needs at least {ENOUGH} sizes ({len(entry.values)} measured)"
            if few
            else "step or slope: cannot tell"
        )
    return "; ".join(parts)


def odds_words(odds: float) -> str:
    """Return odds as people write them.

    Example:
        >>> odds_words(1.64), odds_words(21.0), odds_words(4e5)
        ('1.6:1', '21:1', 'more than 1000:1')
    """
    if odds > 1000:
        return "more than 1000:1"
    return f"{odds:.0f}:1" if odds >= 10 else f"{odds:.1f}:1"


def _nothing_told(entry: ThresholdEntry) -> str:
    """Too few sizes to weigh, or no trend that exceeds the models' scatter."""
    sizes = len(entry.values)
    need = "" if sizes >= ENOUGH else f"; a threshold needs at least {ENOUGH} sizes ({sizes} measured)"
    if entry.shift is None:
        return (_ends(entry) if np.ptp(entry.values) else f"is the same in all {sizes} sizes") + need
    odds = entry.shift.odds
    against = f"odds for one {odds_words(odds)}" if odds >= 1 else f"none is favoured {odds_words(1 / odds)}"
    return f"shows no trend over {_models(entry)} beyond the scatter between models ({against}){need}"


def _models(entry: ThresholdEntry, sizes: str = "sizes") -> str:
    """How many models there are, and of how many sizes where some are equal."""
    models = len(entry.values)
    return f"{models} {sizes}" if entry.sizes == models else f"{models} models of {entry.sizes} sizes"


def _value(entry: ThresholdEntry, value: float) -> str:
    return f"step {step_at(value):.0f}" if entry.metric in TURNING else number(value)


def _ends(entry: ThresholdEntry) -> str:
    """The way from the smallest model to the largest."""
    trend = entry.trend
    ends = " to ".join(f"{_value(entry, entry.values[at])} in {entry.models[at]}" for at in (0, -1))
    if trend is None or trend.difference == 0:
        return f"goes from {ends}"
    if trend.interval is None:
        return f"{_verb(entry, trend.difference)} by {_amount(entry, trend.difference)}, from {ends}"
    low, high = trend.interval
    if low <= 0 <= high:
        return (
            f"does not differ beyond noise (by {_amount(entry, trend.difference)}, 90% over {trend.over}: "
            f"{number(low)} to {number(high)}): {ends}"
        )
    near, far = sorted((abs(low), abs(high)))
    return (
        f"{_verb(entry, trend.difference)} by {_amount(entry, trend.difference)} (90% over {trend.over}: "
        f"{number(near)} to {number(far)}), from {ends}"
    )


def _verb(entry: ThresholdEntry, difference: float) -> str:
    verbs = ("comes earlier", "comes later") if entry.metric in TURNING else ("falls", "rises")
    return verbs[difference > 0]


def _amount(entry: ThresholdEntry, difference: float) -> str:
    return number(abs(difference)) + (" octaves" if entry.metric in TURNING else "")


def _step(entry: ThresholdEntry, shift: Shift) -> str:
    """How large a shift is and between which sizes."""
    near, far = sorted(-each if shift.effect < 0 else each for each in shift.effect_interval)
    wide = "" if shift.gap == shift.gap_interval else f" (90%: {_sizes(entry.axis, shift.gap_interval)})"
    named = "" if entry.low is None else "has a threshold: it "
    return (
        f"{named}{_verb(entry, shift.effect)} by {_amount(entry, shift.effect)} ({number(near)} to "
        f"{number(far)}) between {_sizes(entry.axis, shift.gap, ' and ')}{wide}{_unit(entry)}"
    )


def _sizes(axis: str, gap: tuple[float, float], between: str = " to ") -> str:
    return between.join(size_name(size) if axis.startswith("params") else f"{size:g}" for size in gap)


def _unit(entry: ThresholdEntry) -> str:
    """``heads per layer`` and the like can be counted; width and head dimension cannot."""
    name = AXES[entry.axis]
    return f" in {name}" if entry.axis in ("d_model", "d_head") else f" {name}"


def _without_one(entry: ThresholdEntry) -> str:
    """How the odds of a step vary without one model each, where they cross even."""
    if entry.stability is None:
        return ""
    low, high = entry.stability.step_odds
    return f" ({low:.1f} to {high:.1f} without one model)" if low < 1 < high else ""


def _doubts(entry: ThresholdEntry) -> list[str]:
    """Correction, stability and what else could be behind it."""
    parts = [] if entry.p_value is None else [f"permutation p = {entry.p_value:.3f}{_correction(entry)}"]
    without = entry.leave_one_out
    if without is not None and without.of:
        stays = "it stays whichever model is left out"
        lost = f"it is lost without {' or '.join(without.moved_by)}"
        parts.append(lost if without.moved_by else stays)
    others = [AXES[axis] for axis in entry.best_axes or () if axis != entry.axis]
    if others:
        parts.append(f"the data cannot separate this axis from {', '.join(others)}")
    if entry.confounded:
        parts.append(entry.confounded)
    return parts


def _correction(entry: ThresholdEntry) -> str:
    if entry.p_corrected is None:
        return ""
    corrected = f", {entry.p_corrected:.2f} corrected for every metric and axis"
    if entry.p_corrected <= LEVEL:
        return corrected
    return f"{corrected} ({len(entry.models)} models have too few orders for less: measure more sizes)"


def scale_summary(thresholds: Sequence[ThresholdEntry]) -> list[str]:
    """Return a sentence for every shift on the main axis, and for the rest one per suite."""
    main = [entry for entry in thresholds if entry.main and entry.metric not in TURNING]
    shifts = [entry for entry in main if entry.told]
    sentences = [_capital(entry.sentence) for entry in shifts]
    for suite in dict.fromkeys(entry.suite for entry in main):
        sentences += _quiet(suite, [entry for entry in main if entry.suite == suite and not entry.told])
    sentences += [_capital(entry.sentence) for entry in thresholds if entry.metric == TURNING_REPORTED]
    return sentences + _other_axes(thresholds)


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _quiet(suite: str, quiet: Sequence[ThresholdEntry]) -> list[str]:
    """What the metrics without a shift come to."""
    sizes = max((len(entry.models) for entry in quiet), default=0)
    if quiet and sizes < 2:
        return [f"{suite}: a threshold over size needs at least {ENOUGH} model sizes ({sizes} measured)."]
    valued = [entry for entry in quiet if len(entry.models) == sizes]
    if sizes < FEWEST:
        first = [entry for entry in valued if entry.metric in REPORTED_OVER_FEW_SIZES] or valued[:1]
        return [_capital(entry.sentence) for entry in first]
    names = ", ".join(titled(entry.metric) for entry in valued)
    need = "" if sizes >= ENOUGH else f"; a threshold needs at least {ENOUGH}"
    over = _models(valued[0], "model sizes") if valued else ""
    return [f"{suite}: no trend over {over} in {names}{need}."] if valued else []


def _other_axes(thresholds: Sequence[ThresholdEntry]) -> list[str]:
    """One sentence per suite: thresholds that only show on other axes or in other metrics."""
    sentences = []
    for suite in dict.fromkeys(entry.suite for entry in thresholds):
        mine = [entry for entry in thresholds if entry.suite == suite]
        found = [entry for entry in mine if not entry.main and entry.low is not None]
        tried = sum(entry.p_value is not None for entry in mine)
        if not found:
            continue
        passed = sum(entry.p_corrected is not None and entry.p_corrected <= LEVEL for entry in found)
        sentences.append(
            f"{suite}: {len(found)} of the other {tried} pairs of metric and axis have a threshold too "
            f"(analysis.json); {passed} of them stay below p = {LEVEL} when corrected for the {tried} pairs."
        )
    return sentences
