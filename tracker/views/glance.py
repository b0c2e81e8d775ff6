"""What was found, model by model in a few words each: the table that the page opens with."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from tracker.analysis.labels import label_columns

Entry = Mapping[str, Any]
NOT_SURE = "not known: one sequence"


def glance(analysis: Entry) -> list[dict[str, Any]]:
    """One row per model that was analysed.

    Args:
        analysis: content of analysis.json.

    Returns:
        Per model suite, model, and in words: exploratory, exploratory_sure, extremum, specialisation,
        specialisation_sure (share of resamples), p_value. Seeds that differ are counted, and ranges run
        over the seeds.
    """
    entries = [each for each in analysis.get("phases", []) if each.get("steps")]
    return [_row(list(members)) for _, members in groupby(entries, key=lambda e: (e["suite"], e["model"]))]


def _row(seeds: Sequence[Entry]) -> dict[str, Any]:
    exploratory = [_start(each, "exploratory") for each in seeds]
    specialised = [_start(each, "specialisation") for each in seeds]
    lowest = [step for each in seeds if (step := _lowest(each)) is not None]
    p_values = [each["p_value"] for each in seeds if each.get("p_value") is not None]
    return {
        "suite": seeds[0]["suite"],
        "model": seeds[0]["model"],
        "exploratory": _places(exploratory),
        "exploratory_sure": _sure(exploratory),
        "extremum": _range(lowest) if lowest else None,
        "specialisation": _places(specialised),
        "specialisation_sure": _sure(specialised),
        "p_value": _range([float(f"{value:.2g}") for value in p_values]) if p_values else None,
    }


def _start(entry: Entry, label: str) -> Entry | None:
    """The change point that a labelled phase begins with; None where there is no such phase."""
    first = next((phase["first_step"] for phase in entry["phases"] if phase["label"] == label), None)
    return next((point for point in entry["change_points"] if point["step_high"] == first), None)


def _lowest(entry: Entry) -> int | None:
    """The step at which selectivity is lowest, of a run that has an exploratory phase."""
    if _start(entry, "exploratory") is None:
        return None
    columns = label_columns(list(entry["phases"][0]["evidence"]))
    if columns is None:
        return None
    found = [phase["evidence"][columns[1]] for phase in entry["phases"]]
    return min(found, key=lambda each: each["extremum"])["extremum_step"]


def _places(points: Sequence[Entry | None]) -> str:
    """``(32, 64] in 2 of 3 seeds, (16, 32] in 1``."""
    brackets = Counter(f"({point['step_low']}, {point['step_high']}]" for point in points if point)
    if not brackets:
        return "not seen" if len(points) == 1 else f"not seen in {len(points)} seeds"
    if len(points) == 1:
        return next(iter(brackets))
    (first, times), *others = brackets.most_common()
    rest = "".join(f", {bracket} in {number}" for bracket, number in others)
    return f"{first} in {times} of {len(points)} seeds{rest}"


def _sure(points: Sequence[Entry | None]) -> str | None:
    found = [point for point in points if point]
    if not found:
        return None
    shares = [round(100 * point["confidence"]) for point in found if point["confidence"] is not None]
    return f"{_range(shares)} %" if shares else NOT_SURE


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
