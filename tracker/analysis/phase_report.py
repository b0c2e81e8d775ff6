"""Phases of every run, and of the seeds of a model together, for analysis.json."""

from typing import Any

import numpy as np

from tracker.analysis.curves import gather_curves
from tracker.analysis.hidden_states import agreement, second_opinion
from tracker.analysis.labels import ENTROPY, SELECTIVITY
from tracker.analysis.phases import ChangePoint, Phases, find_phases
from tracker.analysis.trajectories import Trajectory
from tracker.analysis.wording import phase_sentence

PHASE_METRICS = (
    ENTROPY,
    SELECTIVITY,
    "band_power_low",
    "scale_sensitivity_0.5",
    "scale_sensitivity_0.25",
    "averaged_scale_sensitivity_0.5",
    "averaged_scale_sensitivity_0.25",
)
"""Curves that phases are read from, as far as they are measured."""
Entry = dict[str, Any]


def phase_curves(run: Trajectory) -> dict[str, np.ndarray]:
    """The run's phase metrics: samples where every one of them has some, else means."""
    names = [name for name in PHASE_METRICS if np.isfinite(run.metrics.get(name, np.nan)).any()]
    if all(name in run.samples for name in names):
        return {name: run.samples[name] for name in names}
    return {name: run.metrics[name] for name in names}


def point_entry(point: ChangePoint) -> Entry:
    """A change point in plain types."""
    return {
        "step_low": point.step_low,
        "step_high": point.step_high,
        "confidence": point.confidence,
        "interval": point.interval,
    }


def reach(point: Entry) -> tuple[int, int]:
    """Where a change point may lie: its interval, or the gap where it has none."""
    return tuple(point["interval"] or (point["step_low"], point["step_high"]))


def phases_entry(run: Trajectory) -> Entry:
    """One run's phases with a second opinion."""
    curves = phase_curves(run)
    found: Phases | None = None
    if len(run.steps) and curves:
        found = find_phases(run.steps, curves)
    entry: Entry = {
        "suite": run.suite,
        "model": run.model,
        "seed": run.seed,
        "steps": list(found.steps) if found else list(run.steps),
        "metrics": list(found.metrics) if found else [],
        "criterion": Phases.criterion,
        "change_points": [],
        "phases": [],
        "p_value": None,
        "note": None,
        "left_out": [{"step": step, "reason": reason} for step, reason in run.left_out],
        "hidden_markov": None,
    }
    if found:
        entry |= {"p_value": found.p_value, "note": found.note}
        entry["change_points"] = [point_entry(each) for each in found.change_points]
        entry["phases"] = [
            {
                "label": each.label,
                "first_step": each.first_step,
                "last_step": each.last_step,
                "peak_step": each.peak_step,
                "evidence": each.evidence,
            }
            for each in found.phases
        ]
        entry["hidden_markov"] = _opinion(run, curves, entry["change_points"])
    entry["sentence"] = phase_sentence(run, found, entry["hidden_markov"])
    return entry


def _opinion(run: Trajectory, curves: dict[str, np.ndarray], points: list[Entry]) -> Entry | None:
    opinion = second_opinion(gather_curves(run.steps, curves))
    if opinion is None:
        return None
    return {
        "states": opinion.states,
        "boundaries": [list(each) for each in opinion.boundaries],
        "agreeing": agreement([reach(point) for point in points], opinion),
        "changes": len(points),
    }


def seeds_entry(runs: list[Trajectory], entries: list[Entry]) -> Entry:
    """Changes of the mean over the seeds of one model, intervals over seeds, and how many seeds share each.

    Args:
        runs: the seeds of one model, two or more.
        entries: their own entries, in the same order.
    """
    common = sorted(set.intersection(*(set(map(int, run.steps)) for run in runs)))
    rows = [np.searchsorted(run.steps, common) for run in runs]
    names = [
        name
        for name in PHASE_METRICS
        if all(np.isfinite(run.metrics.get(name, np.nan)).any() for run in runs)
    ]
    curves = {
        name: np.stack([run.metrics[name][at] for run, at in zip(runs, rows, strict=True)], axis=1)
        for name in names
    }
    found = find_phases(common, curves) if common and names else None
    points = [point_entry(each) for each in found.change_points] if found else []
    for point in points:
        low, high = reach(point)
        point["seeds"] = sum(
            any(
                low < other_high and other_low < high
                for other_low, other_high in map(reach, e["change_points"])
            )
            for e in entries
        )
    return {
        "suite": runs[0].suite,
        "model": runs[0].model,
        "seeds": [run.seed for run in runs],
        "steps": common,
        "change_points": points,
        "p_value": found.p_value if found else None,
        "note": found.note if found else "the seeds share no measured checkpoint",
    }
