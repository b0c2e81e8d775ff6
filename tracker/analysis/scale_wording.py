"""Sentences about model size: what breaks where, how sure that is, or what cannot be said."""

from typing import Any

import numpy as np

from tracker.analysis.axes import AXES
from tracker.analysis.thresholds import ENOUGH, LEVEL, Threshold, Verdict
from tracker.analysis.words import number, size_name, titled

Entry = dict[str, Any]
TOLD_OVER_FEW_SIZES = ("frequency_selectivity", "averaged_scale_sensitivity_0.5")
"""Metrics whose plain trend the summary tells where the sizes are too few for a threshold."""


def _trend(entry: Entry) -> str:
    """In words how the values go over the sizes, with the spread over sequences at both ends."""
    values, models, spread = (entry[key] for key in ("values", "models", "spread"))
    if len(values) < 2:
        return ""
    rises = np.diff(np.asarray(values, dtype=float))
    way = "rises" if values[-1] > values[0] else "falls"
    steady = bool(np.all(rises > 0) or np.all(rises < 0))
    path = f"{way} from size to size" if steady else f"{way} from end to end, not at every size"

    def end(at: int) -> str:
        sd = "" if spread[at] is None else f" (sd over sequences {number(spread[at])})"
        return f"{number(values[at])}{sd} in {models[at]}"

    return f" Over the {len(values)} sizes it {path}: {end(0)} to {end(-1)}."


def threshold_sentence(entry: Entry, verdict: Verdict | None) -> str:
    """What one metric shows over one axis of size at the last common step."""
    title = titled(str(entry["metric"]))
    if verdict is None:
        return f"{title}: no threshold can be told, the models share no measured step: measure one in all."
    where = f"at step {entry['step']}"
    if not verdict.sizes:
        return (
            f"{title} {where}: no threshold can be told, it has no value there in any model of known size: "
            "measure checkpoints where it is defined."
        )
    if verdict.found is None:
        return f"{title} {where}: {verdict.reason}.{_trend(entry)}"
    return f"{title} {where} {_break(entry, verdict.found)}; {verdict.reason}{_doubts(entry)}."


def _break(entry: Entry, found: Threshold) -> str:
    values, scale = (np.asarray(entry[key], dtype=float) for key in ("values", "scale"))
    below, above = values[scale <= found.low].mean(), values[scale >= found.high].mean()
    interval = ""
    if found.interval != (found.low, found.high):
        interval = f" (at 90% in ({size_name(found.interval[0])}, {size_name(found.interval[1])}])"
    return (
        f"breaks between {size_name(found.low)} and {size_name(found.high)} {AXES[entry['axis']]}{interval}: "
        f"{number(below)} up to there, {number(above)} beyond"
    )


def _doubts(entry: Entry) -> str:
    """Correction, stability and what else could be behind it."""
    parts = []
    if entry["p_corrected"] is not None:
        parts.append(_correction(entry))
    out = entry["leave_one_out"]
    if out["moved_by"]:
        parts.append(f"it does not stay without {' or '.join(out['moved_by'])}")
    else:
        parts.append("it stays whichever model is left out")
    others = [AXES[axis] for axis in entry["best_axes"] or () if axis != entry["axis"]]
    if others:
        parts.append(f"by AICc the data cannot separate this axis from {', '.join(others)}")
    if entry["confounded"]:
        parts.append(str(entry["confounded"]))
    return "; " + "; ".join(parts)


def _correction(entry: Entry) -> str:
    p_value = entry["p_corrected"]
    told = f"corrected for every metric and axis p = {p_value:.2f}"
    if p_value <= LEVEL:
        return told
    return (
        f"{told}, so by permutation alone it could be chance among so many: {len(entry['models'])} models "
        "have too few orders, seeds or more sizes would tell"
    )


def scale_summary(thresholds: list[Entry]) -> list[str]:
    """Every break on the main axis, and for the rest one sentence per suite."""
    main = [entry for entry in thresholds if entry["main"]]
    sentences = [str(entry["sentence"]) for entry in main if entry["low"] is not None]
    for suite in dict.fromkeys(entry["suite"] for entry in main):
        quiet = [entry for entry in main if entry["suite"] == suite and entry["low"] is None]
        sizes = max((len(entry["models"]) for entry in quiet), default=0)
        if 2 <= sizes < ENOUGH:
            told = [entry for entry in quiet if entry["models"]]
            first = [entry for entry in told if entry["metric"] in TOLD_OVER_FEW_SIZES] or told[:1]
            sentences += [str(entry["sentence"]) for entry in first]
        elif quiet and sizes < 2:
            sentences.append(
                f"{suite}: {sizes} model size{'s' * (sizes != 1)} measured, so nothing can be "
                f"said about size: measure at least {ENOUGH}."
            )
        elif quiet:
            names = ", ".join(titled(entry["metric"]) for entry in quiet if len(entry["models"]) == sizes)
            sentences.append(f"{suite}: no break over {sizes} model sizes in {names}.")
    return sentences + _other_axes(thresholds)


def _other_axes(thresholds: list[Entry]) -> list[str]:
    """One sentence per suite: breaks that only show on other axes or in other metrics."""
    sentences = []
    for suite in dict.fromkeys(entry["suite"] for entry in thresholds):
        mine = [entry for entry in thresholds if entry["suite"] == suite]
        found = [entry for entry in mine if not entry["main"] and entry["low"] is not None]
        tried = sum(entry["p_value"] is not None for entry in mine)
        if not found:
            continue
        passed = sum(entry["p_corrected"] is not None and entry["p_corrected"] <= LEVEL for entry in found)
        sentences.append(
            f"{suite}: {len(found)} of the other {tried} pairs of metric and axis break too (analysis.json); "
            f"{passed} of them stay below p = {LEVEL} when corrected for the {tried} pairs."
        )
    return sentences
