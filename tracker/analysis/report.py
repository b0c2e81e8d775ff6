"""The content of analysis.json: phases of every run, thresholds over the models of every suite."""

import math
from itertools import groupby
from typing import Any

import numpy as np
import polars as pl

from tracker.analysis.labels import ENTROPY, SELECTIVITY
from tracker.analysis.phases import Phases, find_phases
from tracker.analysis.thresholds import Verdict, judge_threshold
from tracker.analysis.trajectories import Suspects, Trajectory, single_value, trajectories
from tracker.analysis.wording import phase_sentence, summary_of, threshold_sentence

PHASE_METRICS = (
    ENTROPY, SELECTIVITY, "band_power_low", "scale_sensitivity_0.5", "scale_sensitivity_0.25",
    "averaged_scale_sensitivity_0.5", "averaged_scale_sensitivity_0.25",
)  # fmt: skip
"""Curves that phases are read from, as far as they are measured."""
_SCALED = (ENTROPY, SELECTIVITY, "band_power_low", "scale_sensitivity_0.5", "scale_sensitivity_0.25")
THRESHOLD_METRICS = _SCALED + tuple(f"averaged_{name}" for name in _SCALED)
AXIS = "params_non_embedding"


def _plain(value: Any) -> Any:
    """``value`` in types that JSON has; what is not finite becomes None."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _curves(run: Trajectory) -> dict[str, np.ndarray]:
    """The run's phase metrics: samples where every one of them has some, else means."""
    names = [name for name in PHASE_METRICS if np.isfinite(run.metrics.get(name, np.nan)).any()]
    if all(name in run.samples for name in names):
        return {name: run.samples[name] for name in names}
    return {name: run.metrics[name] for name in names}


def _phases_entry(run: Trajectory) -> dict[str, Any]:
    curves = _curves(run)
    found: Phases | None = None
    if len(run.steps) and curves:
        found = find_phases(run.steps, curves)
    entry: dict[str, Any] = {
        "suite": run.suite, "model": run.model, "seed": run.seed,
        "steps": list(found.steps) if found else list(run.steps),
        "metrics": list(found.metrics) if found else [],
        "criterion": Phases.criterion, "change_points": [], "phases": [], "p_value": None, "note": None,
        "left_out": [{"step": step, "reason": reason} for step, reason in run.left_out],
    }  # fmt: skip
    if found:
        entry["p_value"], entry["note"] = found.p_value, found.note
        entry["change_points"] = [
            {"step_low": each.step_low, "step_high": each.step_high, "confidence": each.confidence}
            for each in found.change_points
        ]
        entry["phases"] = [
            {"label": each.label, "first_step": each.first_step, "last_step": each.last_step,
             "peak_step": each.peak_step, "evidence": each.evidence}
            for each in found.phases
        ]  # fmt: skip
    entry["sentence"] = phase_sentence(run, found)
    return entry


def _last_common_step(runs: list[Trajectory]) -> int | None:
    """The last step that every model has, with any of its seeds."""
    steps: dict[str, set[int]] = {}
    for run in runs:
        steps.setdefault(run.model, set()).update(int(step) for step in run.steps)
    common = set.intersection(*steps.values()) if steps else set()
    return max(common, default=None)


def _value_at(run: Trajectory, metric: str, step: int) -> tuple[float, np.ndarray | None]:
    at = int(np.searchsorted(run.steps, step))
    sample = run.samples.get(metric)
    return float(run.metrics[metric][at]), None if sample is None else sample[at]


def _judged(models: dict[str, list[Trajectory]], metric: str, step: int) -> tuple[dict, Verdict]:
    """Values of the models at ``step``, seeds averaged, and what they show over size."""
    rows, lost = [], []
    for model, runs in models.items():
        size = runs[0].facts[AXIS]
        at = [_value_at(run, metric, step) for run in runs if step in run.steps]
        value = float(np.mean([each for each, _ in at]))
        if size is None or not math.isfinite(value):
            lost.append({"model": model, "reason": f"{metric if size else AXIS} is not known there"})
            continue
        samples = [each for _, each in at if each is not None]
        even = len(samples) == len(at) and len({len(each) for each in samples}) == 1
        rows.append((model, size, value, np.mean(samples, axis=0) if even else None))
    rows.sort(key=lambda row: row[1])
    drawn = [row[3] for row in rows]
    paired = rows and all(each is not None for each in drawn) and len({len(each) for each in drawn}) == 1
    verdict = judge_threshold(
        [row[1] for row in rows], [row[2] for row in rows], np.array(drawn) if paired else None
    )
    spread = [None if each is None or len(each) < 2 else float(np.std(each, ddof=1)) for each in drawn]
    return {"models": [row[0] for row in rows], "scale": [row[1] for row in rows],
            "values": [row[2] for row in rows], "spread": spread, "left_out": lost}, verdict  # fmt: skip


def _threshold_entry(suite: str, runs: list[Trajectory], metric: str) -> dict[str, Any]:
    unmeasured = {run.model for run in runs} - {run.model for run in runs if len(run.steps)}
    measured = [run for run in runs if len(run.steps)]
    models = {model: [run for run in measured if run.model == model] for model in
              dict.fromkeys(run.model for run in measured)}  # fmt: skip
    step = _last_common_step(measured)
    entry: dict[str, Any] = {"suite": suite, "metric": metric, "axis": AXIS, "step": step, "models": [],
                                "scale": [], "values": [], "spread": [], "left_out": []}  # fmt: skip
    verdict = None
    if step is not None:
        table, verdict = _judged(models, metric, step)
        entry |= table
    entry["left_out"] = [
        {"model": model, "reason": "no checkpoint of it was measured"} for model in sorted(unmeasured)
    ] + entry["left_out"]
    found = verdict.found if verdict else None
    for name in ("low", "high", "effect", "p_value", "confidence"):
        entry[name] = getattr(found, name) if found else None
    entry["sentence"] = threshold_sentence(entry, verdict)
    return entry


def analyse(
    checkpoints: pl.DataFrame, sequences: pl.DataFrame | None = None, suspects: Suspects | None = None
) -> dict:
    """Phases per model and seed, thresholds over the models of each suite, and a summary in words.

    Args:
        checkpoints: the store's checkpoint table (one probe, one set of conventions), holes included.
        sequences: its table of sequences; without it nothing has a confidence.
        suspects: measured checkpoints that are left out of every fit, and why; listed in ``left_out``.

    Returns:
        The content of ``analysis.json`` in plain types without NaN: probe, conventions, phases,
        thresholds, summary.

    Raises:
        StoreError: several probes or conventions are mixed, or a checkpoint is there twice.
    """
    runs = trajectories(checkpoints, sequences, suspects)
    phases = [_phases_entry(run) for run in runs]
    thresholds = []
    for suite, members in groupby(runs, key=lambda run: run.suite):
        group = list(members)
        for metric in THRESHOLD_METRICS:
            if any(metric in run.metrics for run in group):
                thresholds.append(_threshold_entry(suite, group, metric))
    result = {
        "probe": single_value(checkpoints, "probe"),
        "conventions": single_value(checkpoints, "conventions"),
        "phases": phases,
        "thresholds": thresholds,
        "summary": summary_of(phases, thresholds),
    }
    return _plain(result)
