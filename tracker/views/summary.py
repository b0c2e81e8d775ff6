"""Phases model by model: the table that the page opens with."""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from tracker.analysis.labels import label_columns
from tracker.analysis.schema import AnalysisReport, ChangePoint, RunPhases

NO_SAMPLES = "turning point"
"""Turning points have an interval and no support of a bracket."""
LEAST_CHECKPOINTS = 5
"""Fewer than these cannot show a change of phase."""


def summary_rows(report: AnalysisReport) -> list[dict[str, Any]]:
    """Summarise the phases of each model that was analysed.

    Returns:
        Per model suite, model, and as text: exploratory, exploratory_support, minimum, specialisation,
        specialisation_support (bootstrap support), p_value. Seeds that differ are counted, and ranges run
        over the seeds.
    """
    analysed = [entry for entry in report.phases if entry.steps]
    return [_row(list(seeds)) for _, seeds in groupby(analysed, key=lambda entry: (entry.suite, entry.model))]


def _row(seeds: Sequence[RunPhases]) -> dict[str, Any]:
    exploratory = [_start(entry, "exploratory") for entry in seeds]
    specialised = [_start(entry, "specialisation") for entry in seeds]
    minima = [step for entry in seeds if (step := _minimum(entry)) is not None]
    p_values = [float(f"{entry.p_value:.2g}") for entry in seeds if entry.p_value is not None]
    return {
        "suite": seeds[0].suite,
        "model": seeds[0].model,
        "exploratory": _brackets(exploratory, seeds),
        "exploratory_support": _support(exploratory),
        "minimum": _range(minima) if minima else None,
        "specialisation": _brackets(specialised, seeds),
        "specialisation_support": _support(specialised),
        "p_value": _range(p_values) if p_values else None,
    }


def _start(entry: RunPhases, label: str) -> ChangePoint | None:
    """The change point that a labelled phase begins with; None where there is no such phase."""
    first = next((phase.first_step for phase in entry.phases if phase.label == label), None)
    return next((point for point in entry.change_points if point.step_high == first), None)


def _minimum(entry: RunPhases) -> int | None:
    """The step of the selectivity minimum of a run that has an exploratory phase."""
    if _start(entry, "exploratory") is None:
        return None
    columns = label_columns(list(entry.phases[0].evidence))
    if columns is None:
        return None
    found = [phase.evidence[columns[1]] for phase in entry.phases if columns[1] in phase.evidence]
    return min(found, key=lambda each: each.extremum).extremum_step if found else None


def _brackets(points: Sequence[ChangePoint | None], seeds: Sequence[RunPhases]) -> str:
    """``between 32 and 64 in 2 of 3 seeds, between 16 and 32 in 1``."""
    counts = Counter(f"between {point.step_low} and {point.step_high}" for point in points if point)
    if not counts:
        few = all(len(entry.steps) < LEAST_CHECKPOINTS for entry in seeds)
        text = "too few checkpoints" if few else "none detected"
        return text if len(points) == 1 else f"{text} in {len(points)} seeds"
    if len(points) == 1:
        return next(iter(counts))
    (first, times), *others = counts.most_common()
    rest = "".join(f", {bracket} in {number}" for bracket, number in others)
    return f"{first} in {times} of {len(points)} seeds{rest}"


def _support(points: Sequence[ChangePoint | None]) -> str | None:
    found = [point for point in points if point]
    if not found:
        return None
    shares = [round(100 * point.confidence) for point in found if point.confidence is not None]
    return f"{_range(shares)} %" if shares else NO_SAMPLES


def _range(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
