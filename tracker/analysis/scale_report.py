"""Thresholds over the models of a suite: every metric against every axis of size, for analysis.json.

M: models.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tracker.analysis.axes import AXES, FEWEST_VALUES, indistinct, size_on, support
from tracker.analysis.labels import ENTROPY, SELECTIVITY
from tracker.analysis.scale_values import AXIS, Sized, end_to_end, last_common_step, values_at
from tracker.analysis.schema import ModelLeftOut, ThresholdEntry
from tracker.analysis.shift import Shift, leave_one_out, stability_of, without_each
from tracker.analysis.splits import Trial, corrected_p_values, places_of
from tracker.analysis.text.scale import threshold_sentence
from tracker.analysis.thresholds import ENOUGH, Threshold, judge_threshold
from tracker.analysis.trajectories import Trajectory
from tracker.facts import table
from tracker.metrics.registry import option_columns

_SCALED = (ENTROPY, SELECTIVITY, "band_power_low", "scale_sensitivity_0.5", "scale_sensitivity_0.25")
THRESHOLD_METRICS = _SCALED + tuple(f"averaged_{name}" for name in _SCALED)
"""Metrics whose thresholds the summary reports; the others stand in the table alone."""


@dataclass(frozen=True)
class _Judged:
    """An entry in the making: the models known on this axis, in the order of the axis."""

    entry: ThresholdEntry
    scale: np.ndarray
    values: np.ndarray
    whole: bool
    """Whether every model of the metric is known on this axis."""
    order: np.ndarray

    def with_entry(self, **fields: object) -> "_Judged":
        """The same with some fields of the entry replaced."""
        return replace(self, entry=replace(self.entry, **fields))  # pyright: ignore[reportArgumentType]


def _on_axis(suite: str, models: Sized, axis: str, *, main: bool) -> _Judged:
    sizes = [size_on(facts, axis) for facts in models.facts]
    known = np.array([number for number, size in enumerate(sizes) if size is not None], dtype=int)
    scale = np.array([sizes[number] for number in known], dtype=float)
    order = np.argsort(scale, kind="stable")
    kept, scale = known[order], scale[order]
    seeds = models.seeds[kept]
    samples = None if models.samples is None else models.samples[kept]
    verdict = judge_threshold(scale, seeds, samples)
    values = np.nanmean(seeds, axis=1) if len(seeds) else np.empty(0)
    entry = ThresholdEntry(
        suite,
        models.metric,
        axis,
        models.step,
        models=tuple(models.models[number] for number in kept),
        scale=tuple(scale.tolist()),
        values=tuple(values.tolist()),
        spread=tuple(models.spread[number] for number in kept),
        seeds=tuple(int(number) for number in np.isfinite(seeds).sum(axis=1)),
        left_out=models.left_out,
        sizes=len(np.unique(scale)),
        p_value=verdict.p_value,
        factor=verdict.factor,
        trend=end_to_end(seeds, samples),
        shift=verdict.shift,
        main=main,
    )
    found = verdict.found
    rest = without_each(scale, seeds, entry.models) if found or (main and entry.shift) else None
    if rest is not None:
        entry = replace(entry, stability=stability_of(rest))
    if found is not None and rest is not None:
        entry = _with_threshold(entry, found, rest)
    return _Judged(entry, scale, values, len(known) == len(models.models), kept)


def _with_threshold(entry: ThresholdEntry, found: Threshold, rest: dict[str, Shift]) -> ThresholdEntry:
    return replace(
        entry,
        low=found.low,
        high=found.high,
        interval=found.interval,
        effect=found.effect,
        confidence=found.confidence,
        confounded=_confounded(entry, found.low, found.high),
        leave_one_out=leave_one_out(rest, (found.low, found.high)),
    )


def _confounded(entry: ThresholdEntry, low: float, high: float) -> str | None:
    """What else sets the models on either side apart: Pythia's 6.9b and 12b were initialised differently."""
    facts = table("pythia_suite")
    start = dict(facts.select("size", "init_std").iter_rows())
    sizes = list(zip(entry.models, entry.scale, strict=True))
    below = {start.get(model) for model, size in sizes if size <= low}
    above = {start.get(model) for model, size in sizes if size >= high}
    if "pythia" not in entry.suite or None in below | above or below & above:
        return None
    return (
        "the models above it were also initialised differently "
        f"({', '.join(sorted(map(str, above)))} against {', '.join(sorted(map(str, below)))})"
    )


def _with_best_axes(judged: list[_Judged]) -> list[_Judged]:
    """Adds which axis explains one metric best, over the models known on all."""
    supports = {
        each.entry.axis: support(each.scale, each.values)
        for each in judged
        if each.whole and each.entry.sizes >= FEWEST_VALUES and np.ptp(each.values) > 0
    }
    best = tuple(indistinct(supports))
    found = []
    for each in judged:
        own = supports.get(each.entry.axis)
        shape, aicc = (None, None) if own is None else (own.shape, own.aicc)
        found.append(each.with_entry(shape=shape, aicc=aicc, best_axes=best))
    return found


def _corrected(judged: list[_Judged]) -> list[_Judged]:
    """Adds p-values corrected for every metric and axis of the suite."""
    tested = [n for n, each in enumerate(judged) if each.whole and each.entry.p_value is not None]
    most = max((len(judged[n].values) for n in tested), default=0)
    tested = [n for n in tested if len(judged[n].values) == most]
    trials = []
    for each in (judged[n] for n in tested):
        base = np.empty(most)
        base[each.order] = each.values
        trials.append(Trial(base, each.order, places_of(each.scale)))
    corrected = dict(zip(tested, corrected_p_values(trials), strict=True))
    return [each.with_entry(p_corrected=corrected.get(n)) for n, each in enumerate(judged)]


def find_thresholds(suite: str, runs: Sequence[Trajectory]) -> list[ThresholdEntry]:
    """Judge every metric over every axis of size; of too few sizes, the main metrics on the main axis.

    Args:
        suite: name of the suite.
        runs: its trajectories.
    """
    measured = [run for run in runs if len(run.steps)]
    unmeasured = sorted({run.model for run in runs} - {run.model for run in measured})
    lost = tuple(ModelLeftOut(model, "no checkpoint of it was measured") for model in unmeasured)
    step = last_common_step(measured)
    # Weights and states go along with a run's transition; of themselves most follow the model's width.
    known = {name for run in runs for name in run.metrics} - set(option_columns())
    main = [name for name in THRESHOLD_METRICS if name in known]
    if step is None:
        blank = [ThresholdEntry(suite, name, AXIS, left_out=lost) for name in main]
        return [replace(each, sentence=threshold_sentence(each)) for each in blank]
    many = len({run.model for run in measured}) >= ENOUGH
    judged: list[_Judged] = []
    for metric in [*main, *(sorted(known - set(main)) if many else [])]:
        models = values_at(measured, metric, step)
        models = replace(models, left_out=lost + models.left_out)
        if metric in main or len(models.models) >= ENOUGH:
            axes = AXES if many else (AXIS,)
            judged += _with_best_axes(
                [_on_axis(suite, models, axis, main=metric in main and axis == AXIS) for axis in axes]
            )
    found = [each.entry for each in _corrected(judged)]
    return [replace(each, sentence=threshold_sentence(each)) for each in found]
