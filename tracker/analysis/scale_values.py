"""Values of one metric of every model of a suite, in order of size, with what their seeds and sequences show.

M: models; K: seeds; S: sequences of the probe.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tracker.analysis.schema import EndToEnd, ModelLeftOut
from tracker.analysis.t_interval import t_half_width, t_quantile
from tracker.analysis.trajectories import Trajectory

AXIS = "params_non_embedding"
"""The axis that the summary reports."""
COVERAGE = 0.9
ALIKE = 1e-9
"""Seeds that differ by less, as a share of their values, show no noise."""
TURNING_REPORTED = "transition_half"
TURNING = {
    "transition_onset": "onset of the transition",
    TURNING_REPORTED: "half-way point of the transition",
    "transition_end": "end of the transition",
}
"""Dates of the main move of the joint curve, in log2(step + 1), and their titles."""


@dataclass(frozen=True)
class Sized:
    """One metric of every model at one step."""

    metric: str
    step: int
    models: tuple[str, ...]
    facts: tuple[Mapping[str, int | None], ...]
    seeds: np.ndarray
    """(M, K) of every seed, NaN where a model has fewer."""
    samples: np.ndarray | None = None
    """(M, S), seeds averaged, where every model has the same number of sequences."""
    spread: tuple[float | None, ...] = ()
    """Standard deviation over sequences."""
    left_out: tuple[ModelLeftOut, ...] = ()


@dataclass(frozen=True)
class ModelValues:
    """One model's values of a metric."""

    model: str
    facts: Mapping[str, int | None]
    seeds: tuple[float, ...]
    draws: np.ndarray | None = None
    """(S,) seeds averaged."""

    @property
    def known(self) -> tuple[float, ...]:
        """The values that are numbers."""
        return tuple(value for value in self.seeds if np.isfinite(value))


def gather(metric: str, step: int, models: Sequence[ModelValues]) -> Sized:
    """Put models in order of non-embedding parameters; those without a size or a value are left out.

    Args:
        metric: name of the metric.
        step: at which it was measured.
        models: one each.
    """
    lost = [
        ModelLeftOut(each.model, f"{metric if each.facts.get(AXIS) else AXIS} is not known there")
        for each in models
        if not each.known or not each.facts.get(AXIS)
    ]
    rows = [each for each in models if each.known and each.facts.get(AXIS)]
    rows.sort(key=lambda each: (each.facts[AXIS], each.model))
    most = max((len(each.known) for each in rows), default=1)
    seeds = [[*each.known, *[np.nan] * (most - len(each.known))] for each in rows]
    draws = [each.draws for each in rows]
    known = [each for each in draws if each is not None]
    paired = bool(rows) and len(known) == len(rows) and len({len(each) for each in known}) == 1
    return Sized(
        metric,
        step,
        models=tuple(each.model for each in rows),
        facts=tuple(each.facts for each in rows),
        seeds=np.array(seeds).reshape(-1, most),
        samples=np.array(known) if paired else None,
        spread=tuple(None if d is None or len(d) < 2 else float(np.std(d, ddof=1)) for d in draws),
        left_out=tuple(lost),
    )


def last_common_step(runs: Sequence[Trajectory]) -> int | None:
    """Return the last step that every model has, with any of its seeds."""
    steps: dict[str, set[int]] = {}
    for run in runs:
        steps.setdefault(run.model, set()).update(int(step) for step in run.steps)
    common = set.intersection(*steps.values()) if steps else set()
    return max(common, default=None)


def values_at(runs: Sequence[Trajectory], metric: str, step: int) -> Sized:
    """Gather the models of ``runs`` at ``step``."""
    models = []
    for model in dict.fromkeys(run.model for run in runs):
        members = [run for run in runs if run.model == model and step in run.steps]
        at = [_value_at(run, metric, step) for run in members]
        draws = [each for _, each in at if each is not None]
        even = draws and len(draws) == len(at) and len({len(each) for each in draws}) == 1
        facts = next(run.facts for run in members or runs if run.model == model)
        seeds = tuple(value for value, _ in at)
        models.append(ModelValues(model, facts, seeds, np.mean(draws, axis=0) if even else None))
    return gather(metric, step, models)


def _value_at(run: Trajectory, metric: str, step: int) -> tuple[float, np.ndarray | None]:
    at = int(np.searchsorted(run.steps, step))
    sample, value = run.samples.get(metric), run.metrics.get(metric)
    return float("nan") if value is None else float(value[at]), None if sample is None else sample[at]


def end_to_end(seeds: np.ndarray, samples: np.ndarray | None) -> EndToEnd | None:
    """Compute the difference of the largest model from the smallest, with a 90 % interval.

    Over seeds by Welch's t where both have two or more; else over the probe's sequences, which both models
    read, by a paired t, and then it says nothing about other seeds.

    Args:
        seeds: (M, K) with NaN for seeds that a model does not have, in order of size.
        samples: (M, S) or None.
    """
    if len(seeds) < 2:
        return None
    first, last = (row[np.isfinite(row)] for row in (seeds[0], seeds[-1]))
    difference = float(last.mean() - first.mean())
    spread = max(np.ptp(each) for each in (first, last)) / max(abs(first).max(), abs(last).max(), 1e-300)
    if min(len(first), len(last)) > 1 and spread > ALIKE:
        half = _welch_half_width(first, last)
        return EndToEnd(difference, (difference - half, difference + half), "seeds")
    if samples is not None and samples.shape[1] > 1:
        half = t_half_width(samples[-1] - samples[0], COVERAGE) or 0.0
        return EndToEnd(difference, (difference - half, difference + half), "sequences")
    return EndToEnd(difference)


def _welch_half_width(first: np.ndarray, last: np.ndarray) -> float:
    """Half width of Welch's interval of a difference of means; scipy's warns where one side is constant."""
    errors = np.array([each.var(ddof=1) / len(each) for each in (first, last)])
    freedom = errors.sum() ** 2 / (errors**2 / (np.array([len(first), len(last)]) - 1)).sum()
    return t_quantile(COVERAGE, float(freedom)) * float(np.sqrt(errors.sum()))


def step_at(octaves: float) -> float:
    """Return the step of a date in log2(step + 1)."""
    return 2.0**octaves - 1
