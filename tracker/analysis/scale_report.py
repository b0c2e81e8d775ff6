"""Thresholds over the models of a suite: every metric against every axis of size, for analysis.json.

M: models; S: sequences of the probe.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tracker.analysis.axes import AXES, FEWEST_VALUES, indistinct, size_on, support
from tracker.analysis.corrections import Trial, corrected_p_values
from tracker.analysis.labels import ENTROPY, SELECTIVITY
from tracker.analysis.scale_wording import threshold_sentence
from tracker.analysis.splits import places_of
from tracker.analysis.thresholds import ENOUGH, Verdict, judge_threshold, leave_one_out
from tracker.analysis.trajectories import Trajectory
from tracker.facts import table

_SCALED = (ENTROPY, SELECTIVITY, "band_power_low", "scale_sensitivity_0.5", "scale_sensitivity_0.25")
THRESHOLD_METRICS = _SCALED + tuple(f"averaged_{name}" for name in _SCALED)
"""Metrics whose thresholds are told in words; the others stand in the table alone."""
AXIS = "params_non_embedding"
"""The axis that is told in words."""
Entry = dict[str, Any]


@dataclass(frozen=True)
class Sized:
    """One metric of every model at one step, seeds averaged."""

    metric: str
    step: int
    models: list[str]
    facts: list[dict[str, int | None]]
    values: np.ndarray
    """(M,)."""
    samples: np.ndarray | None
    """(M, S) where every model has the same number of sequences."""
    spread: list[float | None]
    """Standard deviation over sequences."""
    left_out: list[dict[str, str]]


def last_common_step(runs: list[Trajectory]) -> int | None:
    """The last step that every model has, with any of its seeds."""
    steps: dict[str, set[int]] = {}
    for run in runs:
        steps.setdefault(run.model, set()).update(int(step) for step in run.steps)
    common = set.intersection(*steps.values()) if steps else set()
    return max(common, default=None)


def _value_at(run: Trajectory, metric: str, step: int) -> tuple[float, np.ndarray | None]:
    at = int(np.searchsorted(run.steps, step))
    sample = run.samples.get(metric)
    value = run.metrics.get(metric)
    return float("nan") if value is None else float(value[at]), None if sample is None else sample[at]


def sized(runs: list[Trajectory], metric: str, step: int) -> Sized:
    """The models of ``runs`` at ``step``, in order of non-embedding parameters."""
    models = {
        model: [run for run in runs if run.model == model and step in run.steps]
        for model in dict.fromkeys(run.model for run in runs)
    }
    rows, lost = [], []
    for model, members in models.items():
        at = [_value_at(run, metric, step) for run in members]
        value = float(np.mean([each for each, _ in at])) if at else float("nan")
        size = members[0].facts[AXIS] if members else None
        if not size or not np.isfinite(value):
            lost.append({"model": model, "reason": f"{metric if size else AXIS} is not known there"})
            continue
        samples = [each for _, each in at if each is not None]
        even = len(samples) == len(at) and len({len(each) for each in samples}) == 1
        rows.append((size, model, members[0].facts, value, np.mean(samples, axis=0) if even else None))
    rows.sort(key=lambda row: row[:2])
    drawn = [row[4] for row in rows]
    paired = rows and all(each is not None for each in drawn) and len({len(each) for each in drawn}) == 1
    spread = [None if each is None or len(each) < 2 else float(np.std(each, ddof=1)) for each in drawn]
    return Sized(
        metric,
        step,
        [row[1] for row in rows],
        [row[2] for row in rows],
        np.array([row[3] for row in rows]),
        np.array(drawn) if paired else None,
        spread,
        lost,
    )


def _blank(suite: str, metric: str, axis: str, step: int | None) -> Entry:
    entry: Entry = {
        "suite": suite,
        "metric": metric,
        "axis": axis,
        "step": step,
        "models": [],
        "scale": [],
        "values": [],
        "spread": [],
        "left_out": [],
        "sizes": 0,
    }
    told = (
        "low",
        "high",
        "interval",
        "effect",
        "p_value",
        "p_corrected",
        "factor",
        "confidence",
        "shape",
        "aicc",
        "best_axes",
        "leave_one_out",
        "confounded",
    )
    return entry | dict.fromkeys(told)


@dataclass(frozen=True)
class _Judged:
    """An entry in the making: the models known on this axis, in the order of the axis."""

    entry: Entry
    verdict: Verdict
    scale: np.ndarray
    values: np.ndarray
    whole: bool
    """Whether every model of the metric is known on this axis."""
    order: np.ndarray


def _on_axis(suite: str, table_: Sized, axis: str) -> _Judged:
    sizes = [size_on(facts, axis) for facts in table_.facts]
    known = np.array([number for number, size in enumerate(sizes) if size is not None], dtype=int)
    scale = np.array([sizes[number] for number in known], dtype=float)
    order = np.argsort(scale, kind="stable")
    kept, scale = known[order], scale[order]
    values = table_.values[kept]
    verdict = judge_threshold(scale, values, None if table_.samples is None else table_.samples[kept])
    entry = _blank(suite, table_.metric, axis, table_.step)
    entry |= {
        "models": [table_.models[number] for number in kept],
        "scale": list(scale),
        "values": list(values),
        "spread": [table_.spread[number] for number in kept],
        "left_out": list(table_.left_out),
        "sizes": len(np.unique(scale)),
        "p_value": verdict.p_value,
        "factor": verdict.factor,
    }
    found = verdict.found
    if found:
        entry |= {
            "low": found.low,
            "high": found.high,
            "interval": found.interval,
            "effect": found.effect,
            "confidence": found.confidence,
            "confounded": _confounded(entry, found.low, found.high),
            "leave_one_out": leave_one_out(scale, values, entry["models"], found),
        }
    return _Judged(entry, verdict, scale, values, len(known) == len(table_.models), kept)


def _confounded(entry: Entry, low: float, high: float) -> str | None:
    """What else sets the models on either side apart: Pythia's 6.9b and 12b were initialised differently."""
    facts = table("pythia_suite")
    start = dict(facts.select("size", "init_std").iter_rows())
    below = {start.get(m) for m, s in zip(entry["models"], entry["scale"], strict=True) if s <= low}
    above = {start.get(m) for m, s in zip(entry["models"], entry["scale"], strict=True) if s >= high}
    if "pythia" not in entry["suite"] or None in below | above or below & above:
        return None
    return (
        "the models above it were also initialised differently "
        f"({', '.join(sorted(map(str, above)))} against {', '.join(sorted(map(str, below)))})"
    )


def _supports(judged: list[_Judged]) -> None:
    """Writes into the entries of one metric which axis explains it best, over the models known on all."""
    supports = {}
    for each in judged:
        if each.whole and each.entry["sizes"] >= FEWEST_VALUES and np.ptp(each.values) > 0:
            found = supports[each.entry["axis"]] = support(each.scale, each.values)
            each.entry.update(shape=found.shape, aicc=found.aicc)
    best = indistinct(supports)
    for each in judged:
        each.entry["best_axes"] = best


def _correct(tables: list[list[_Judged]]) -> None:
    """Writes p-values corrected for every metric and axis of the suite into the entries."""
    judged = [each for family in tables for each in family if each.whole and each.verdict.p_value is not None]
    most = max((len(each.values) for each in judged), default=0)
    judged = [each for each in judged if len(each.values) == most]
    tests = []
    for each in judged:
        base = np.empty(most)
        base[each.order] = each.values
        tests.append(Trial(base, each.order, places_of(each.scale)))
    for each, p_value in zip(judged, corrected_p_values(tests), strict=True):
        each.entry["p_corrected"] = p_value


def threshold_entries(suite: str, runs: list[Trajectory]) -> list[Entry]:
    """One entry per metric and axis; where the sizes are too few, the main metrics on the main axis alone.

    Args:
        suite: name of the suite.
        runs: its trajectories.
    """
    measured = [run for run in runs if len(run.steps)]
    unmeasured = sorted({run.model for run in runs} - {run.model for run in measured})
    lost = [{"model": model, "reason": "no checkpoint of it was measured"} for model in unmeasured]
    step = last_common_step(measured)
    known = {name for run in runs for name in run.metrics}
    main = [name for name in THRESHOLD_METRICS if name in known]
    if step is None:
        return [_told(_blank(suite, name, AXIS, None) | {"left_out": lost}, None) for name in main]
    many = len({run.model for run in measured}) >= ENOUGH
    others = sorted(known - set(main)) if many else []
    tables = []
    for metric in [*main, *others]:
        values = sized(measured, metric, step)
        if metric in main or len(values.models) >= ENOUGH:
            tables.append([_on_axis(suite, values, axis) for axis in (AXES if many else (AXIS,))])
    for family in tables:
        for each in family:
            each.entry["left_out"] = lost + each.entry["left_out"]
        _supports(family)
    _correct(tables)
    return [_told(each.entry, each.verdict) for family in tables for each in family]


def _told(entry: Entry, verdict: Verdict | None) -> Entry:
    entry["main"] = entry["metric"] in THRESHOLD_METRICS and entry["axis"] == AXIS
    entry["sentence"] = threshold_sentence(entry, verdict)
    return entry
