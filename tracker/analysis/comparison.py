"""Models side by side at one checkpoint each, and two stores checkpoint by checkpoint.

H: heads; S: sequences of the probe.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import NormalDist

import numpy as np

from tracker.analysis.json_types import stored_as
from tracker.analysis.labels import ENTROPY, SELECTIVITY
from tracker.analysis.t_interval import t_quantile
from tracker.analysis.trajectories import Trajectory
from tracker.errors import RequestError
from tracker.facts import table

COMPARED = (
    ENTROPY,
    SELECTIVITY,
    "band_power_low",
    "scale_sensitivity_0.5",
    "scale_sensitivity_0.25",
    "averaged_spectral_entropy",
    "averaged_frequency_selectivity",
    "averaged_scale_sensitivity_0.5",
    "averaged_scale_sensitivity_0.25",
    "loss",
    "prefix_matching_score",
)
"""Metrics that are set side by side, as far as they are measured."""
LEVEL = 0.95
MATTERS = 0.1
"""A difference matters that is sure and at least this share of the larger value."""
SAME = 1e-6
"""Relative difference up to which two values are the same number."""
Spreads = Mapping[tuple[str, str, int, int, str], float]
"""(suite, model, seed, step, metric) -> standard deviation over heads."""


@dataclass(frozen=True)
class Sample:
    """One metric of one model at one checkpoint."""

    value: float = field(metadata=stored_as("mean"))
    half: float | None = None
    """Half width of the 95 % interval over sequences, and over seeds where there are several."""
    spread: float | None = field(default=None, metadata=stored_as("over_heads"))
    """Standard deviation over heads."""
    draws: np.ndarray | None = field(default=None, metadata=stored_as(None))
    """(S,) values per sequence, seeds averaged."""
    seed_error: float = field(default=0.0, metadata=stored_as(None))
    """Standard error that differences between seeds add."""
    seeds: int = field(default=1, metadata=stored_as(None))


@dataclass(frozen=True)
class Column:
    """One model at the checkpoint that is compared."""

    suite: str
    model: str
    seeds: tuple[int, ...]
    step: int
    tokens: float
    samples: Mapping[str, Sample] = field(metadata=stored_as("metrics"))


@dataclass(frozen=True)
class Limits:
    """Where archetypes part."""

    entropy_over_heads: float
    selectivity: float


@dataclass(frozen=True)
class Archetype:
    """Whether a model's heads are uniform or specialised, and broad or selective."""

    model: str
    kind: str | None
    """None where heads or one of the metrics are not measured."""
    entropy: float | None
    entropy_over_heads: float | None
    selectivity: float | None
    limits: Limits


@dataclass(frozen=True)
class Difference:
    """One metric of two models."""

    first: str = field(metadata=stored_as("from"))
    second: str = field(metadata=stored_as("to"))
    metric: str
    difference: float
    half: float | None
    sure: bool
    """Whether the interval leaves zero out."""
    matters: bool


@dataclass(frozen=True)
class StoreDifference:
    """One metric of one checkpoint in two stores."""

    model: str
    seed: int
    step: int
    metric: str
    ours: float
    other: float
    difference: float
    half: float | None
    same: bool
    sure: bool


def columns(
    runs: Sequence[Trajectory], spreads: Spreads, steps: Mapping[str, int], names: Sequence[str] = COMPARED
) -> list[Column]:
    """Gather one column per model, smallest first.

    Args:
        runs: the trajectories.
        spreads: standard deviations over heads.
        steps: model -> step.
        names: metrics.
    """
    found = []
    for model, step in steps.items():
        members = [run for run in runs if run.model == model]
        samples = {name: sample for name in names if (sample := _sample(members, spreads, name, step))}
        tokens = members[0].tokens[int(np.searchsorted(members[0].steps, step))]
        found.append(
            Column(members[0].suite, model, tuple(run.seed for run in members), step, float(tokens), samples)
        )
    return found


def _sample(members: Sequence[Trajectory], spreads: Spreads, name: str, step: int) -> Sample | None:
    own = [_checkpoint_sample(run, name, step) for run in members]
    seeds = [each for each in own if each is not None]
    if len(seeds) < len(own):
        return None
    known = [each.draws for each in seeds if each.draws is not None]
    even = len(known) == len(seeds) and len({len(each) for each in known}) == 1
    mean = np.mean(known, axis=0) if even else None
    values = [each.value for each in seeds]
    seed_error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
    half = None
    if mean is not None or seed_error:
        error = 0.0 if mean is None else _standard_error(mean)
        half = _half(LEVEL, error, seed_error, len(values) - 1)
    stds = [spreads.get((run.suite, run.model, run.seed, step, name)) for run in members]
    spread = [each for each in stds if each is not None]
    return Sample(
        float(np.mean(values)), half, float(np.mean(spread)) if spread else None, mean, seed_error,
        len(values),
    )  # fmt: skip


def _checkpoint_sample(run: Trajectory, name: str, step: int) -> Sample | None:
    """One metric of one checkpoint; None where it is not measured."""
    at = int(np.searchsorted(run.steps, step))
    value = float(run.metrics[name][at]) if name in run.metrics else float("nan")
    draws = run.samples[name][at] if name in run.samples else None
    if draws is not None and (len(draws) < 2 or not np.all(np.isfinite(draws))):
        draws = None
    return Sample(value, draws=draws) if np.isfinite(value) else None


def archetype(column: Column) -> Archetype:
    """Classify a model's heads as uniform or specialised, and as broad or selective.

    Read from averaged attention, with which a published model reproduces the paper's table 3
    (docs/findings/reproduction.md). Limits come from that table: specialised from half of the smallest
    spread of spectral entropy over heads; broad below half of the smallest mean selectivity of its models
    but the odd pythia-2.8b, which lies below it.
    """
    paper = table("paper_table3_heads").filter(~table("paper_table3_heads")["model"].is_in(["pythia-2.8b"]))
    apart = float(paper["spectral_entropy_std"].min()) / 2  # type: ignore[arg-type]
    broad = float(paper["frequency_selectivity_mean"].min()) / 2  # type: ignore[arg-type]
    entropy, selectivity = (column.samples.get(f"averaged_{name}") for name in (ENTROPY, SELECTIVITY))
    spread = entropy.spread if entropy else None
    kind = None
    if spread is not None and selectivity is not None:
        kind = (
            f"{'specialised' if spread >= apart else 'uniform'}, "
            f"{'broad' if selectivity.value < broad else 'selective'}"
        )
    return Archetype(
        column.model,
        kind,
        entropy.value if entropy else None,
        spread,
        selectivity.value if selectivity else None,
        Limits(apart, broad),
    )


def _standard_error(values_S: np.ndarray) -> float:
    return float(np.std(values_S, ddof=1) / np.sqrt(len(values_S)))


def difference(one: Sample, other: Sample, level: float = LEVEL) -> tuple[float, float | None]:
    """Compute ``other`` less ``one``, and the half width of its interval.

    Paired over sequences where both have as many.

    Args:
        one: a metric of one model.
        other: the same of another.
        level: of the interval.
    """
    gap = other.value - one.value
    if one.draws is None or other.draws is None:
        return gap, None
    if len(one.draws) == len(other.draws):
        error = _standard_error(other.draws - one.draws)
    else:
        error = float(np.hypot(_standard_error(one.draws), _standard_error(other.draws)))
    seeds = float(np.hypot(one.seed_error, other.seed_error))
    return gap, _half(level, error, seeds, one.seeds + other.seeds - 2)


def _half(level: float, sequences: float, seeds: float, freedom: int) -> float:
    """Half width of an interval from two standard errors; of few seeds by Student's t."""
    wide = t_quantile(level, freedom) * seeds if freedom > 0 and seeds else 0.0
    return float(np.hypot(NormalDist().inv_cdf((1 + level) / 2) * sequences, wide))


def differences(found: Sequence[Column]) -> list[Difference]:
    """Compare every pair of models in every metric that both have.

    Intervals are at 95 % for all of them together (Bonferroni). ``matters``: the interval leaves zero out,
    and the difference is at least a tenth of the larger value.
    """
    pairs = [(a, b, name) for a, b in combinations(found, 2) for name in a.samples if name in b.samples]
    compared = []
    for a, b, name in pairs:
        one, other = a.samples[name], b.samples[name]
        gap, half = difference(one, other, 1 - (1 - LEVEL) / len(pairs))
        sure = half is not None and abs(gap) > half
        matters = sure and abs(gap) >= MATTERS * max(abs(one.value), abs(other.value))
        compared.append(Difference(a.model, b.model, name, gap, half, sure, bool(matters)))
    return compared


def store_differences(
    ours: Sequence[Trajectory], theirs: Sequence[Trajectory], names: Sequence[str] = COMPARED
) -> list[StoreDifference]:
    """Compare every metric of every checkpoint that two stores hold.

    Checkpoints are matched by model, seed and step. Intervals are at 95 % for each on its own, paired over
    sequences where both have as many.

    Args:
        ours: trajectories of the first store.
        theirs: of the second.
        names: metrics.

    Raises:
        RequestError: the stores share no checkpoint.
    """
    others = {(run.model, run.seed): run for run in theirs}
    found = [
        _store_difference(run, int(step), name, one, two)
        for run in ours if (other := others.get((run.model, run.seed))) is not None
        for step in np.intersect1d(run.steps, other.steps)
        for name in names
        if (one := _checkpoint_sample(run, name, int(step))) is not None
        and (two := _checkpoint_sample(other, name, int(step))) is not None
    ]  # fmt: skip
    if not found:
        raise RequestError(
            "compare.other: the two stores share no measured checkpoint of one model, seed and step; "
            "measure the same checkpoints in both"
        )
    return found


def _store_difference(run: Trajectory, step: int, name: str, one: Sample, two: Sample) -> StoreDifference:
    gap, half = difference(one, two, LEVEL)
    same = abs(gap) <= SAME * max(abs(one.value), abs(two.value), 1e-9)
    sure = bool(not same and half is not None and abs(gap) > half)
    return StoreDifference(run.model, run.seed, step, name, one.value, two.value, gap, half, same, sure)
