"""Models side by side at one checkpoint each: means with intervals, archetypes, differences that matter.

H: heads; S: sequences of the probe.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats

from tracker.analysis.labels import ENTROPY, SELECTIVITY
from tracker.analysis.t_interval import t_quantile
from tracker.analysis.trajectories import Trajectory
from tracker.errors import RequestError
from tracker.facts import table

Entry = dict[str, Any]
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


@dataclass(frozen=True)
class Sample:
    """One metric of one model at one checkpoint."""

    value: float
    half: float | None
    """Half width of the 95 % interval over sequences, and over seeds where there are several."""
    spread: float | None
    """Standard deviation over heads."""
    draws: np.ndarray | None
    """(S,) values per sequence, seeds averaged."""
    seed_error: float
    """Standard error that differences between seeds add."""
    seeds: int = 1


@dataclass(frozen=True)
class Column:
    """One model at the checkpoint that is compared."""

    suite: str
    model: str
    seeds: tuple[int, ...]
    step: int
    tokens: float
    samples: dict[str, Sample]


def chosen_steps(runs: Sequence[Trajectory], at: str, step: int | None, tokens: int | None) -> dict[str, int]:
    """For each model the step at which it is compared.

    Args:
        runs: the trajectories of the models.
        at: ``end`` (the last checkpoint of each), ``step`` (that one; None: the last that all share),
            ``tokens`` (the last checkpoint up to so many tokens; None: as many as all have seen).
        step: for ``at=step``.
        tokens: for ``at=tokens``.

    Raises:
        RequestError: a model has no such checkpoint, or tokens are not known.
    """
    steps: dict[str, list[np.ndarray]] = {}
    seen: dict[str, dict[int, float]] = {}
    for run in runs:
        steps.setdefault(run.model, []).append(run.steps)
        seen.setdefault(run.model, {}).update(zip(map(int, run.steps), run.tokens, strict=True))
    common = {
        model: sorted(set.intersection(*(set(map(int, each)) for each in those)))
        for model, those in steps.items()
    }
    for model, those in common.items():
        if not those:
            raise RequestError(f"{model}: its seeds share no measured checkpoint; measure one step in all")
    if at == "end":
        return {model: those[-1] for model, those in common.items()}
    if at == "step":
        return _at_step(common, step)
    return _at_tokens(common, seen, tokens)


def _at_step(common: dict[str, list[int]], step: int | None) -> dict[str, int]:
    shared = set.intersection(*map(set, common.values()))
    wanted = max(shared, default=None) if step is None else step
    if wanted is None:
        raise RequestError("compare.at=step: the models share no measured step; measure one in all of them")
    for model, those in common.items():
        if wanted not in those:
            raise RequestError(
                f"compare.step={wanted}: not measured in {model}; it has {', '.join(map(str, those[-8:]))}"
            )
    return dict.fromkeys(common, wanted)


def _at_tokens(
    common: dict[str, list[int]], seen: dict[str, dict[int, float]], tokens: int | None
) -> dict[str, int]:
    for model, those in common.items():
        if any(not np.isfinite(seen[model][step]) for step in those):
            raise RequestError(f"compare.at=tokens: {model} does not tell its training tokens; use at=step")
    most = min(max(seen[model][step] for step in those) for model, those in common.items())
    wanted = most if tokens is None else tokens
    chosen = {}
    for model, those in common.items():
        upto = [step for step in those if seen[model][step] <= wanted]
        if not upto:
            raise RequestError(f"compare.tokens={wanted}: {model} has no checkpoint of so few tokens")
        chosen[model] = upto[-1]
    return chosen


def columns(
    runs: Sequence[Trajectory],
    spreads: Mapping[tuple[Any, ...], float],
    steps: dict[str, int],
    names: Sequence[str] = COMPARED,
) -> list[Column]:
    """One column per model, smallest first.

    Args:
        runs: the trajectories.
        spreads: (suite, model, seed, step, metric) -> standard deviation over heads.
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


def _sample(
    members: list[Trajectory], spreads: Mapping[tuple[Any, ...], float], name: str, step: int
) -> Sample | None:
    values, draws, stds = [], [], []
    for run in members:
        at = int(np.searchsorted(run.steps, step))
        values.append(float(run.metrics[name][at]) if name in run.metrics else float("nan"))
        draws.append(run.samples[name][at] if name in run.samples else None)
        stds.append(spreads.get((run.suite, run.model, run.seed, step, name)))
    if not np.all(np.isfinite(values)):
        return None
    known = [each for each in draws if each is not None and np.all(np.isfinite(each))]
    even = len(known) == len(draws) and len({len(each) for each in known}) == 1 and len(known[0]) > 1
    mean = np.mean(known, axis=0) if even else None
    seeds = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
    half = None
    if mean is not None or seeds:
        own = 0.0 if mean is None else float(np.std(mean, ddof=1) / np.sqrt(len(mean)))
        half = _half(LEVEL, own, seeds, len(values) - 1)
    spread = [each for each in stds if each is not None]
    return Sample(
        float(np.mean(values)), half, float(np.mean(spread)) if spread else None, mean, seeds, len(values)
    )


def archetype(column: Column) -> Entry:
    """Whether a model's heads are uniform or specialised, and whether they are broad or selective.

    Limits come from the paper's table 3: specialised from half of the smallest spread of spectral entropy
    over heads there; broad below half of the smallest mean selectivity of its models but the odd
    pythia-2.8b, which lies below it.

    Returns:
        kind: ``uniform`` or ``specialised``, ``broad`` or ``selective``; the mean, the spread over heads, and
        both limits. kind is None where heads or one of the metrics are not measured.
    """
    paper = table("paper_table3_heads").filter(~table("paper_table3_heads")["model"].is_in(["pythia-2.8b"]))
    apart = float(paper["spectral_entropy_std"].min()) / 2  # type: ignore[arg-type]
    broad = float(paper["frequency_selectivity_mean"].min()) / 2  # type: ignore[arg-type]
    entropy, selectivity = column.samples.get(ENTROPY), column.samples.get(SELECTIVITY)
    spread = entropy.spread if entropy else None
    kind = None
    if spread is not None and selectivity is not None:
        kind = (
            f"{'specialised' if spread >= apart else 'uniform'}, "
            f"{'broad' if selectivity.value < broad else 'selective'}"
        )
    return {
        "model": column.model,
        "kind": kind,
        "entropy": entropy.value if entropy else None,
        "entropy_over_heads": spread,
        "selectivity": selectivity.value if selectivity else None,
        "limits": {"entropy_over_heads": apart, "selectivity": broad},
    }


def difference(one: Sample, other: Sample, level: float = LEVEL) -> tuple[float, float | None]:
    """``other`` less ``one``, and the half width of its interval; paired where the sequences are as many.

    Args:
        one: a metric of one model.
        other: the same of another.
        level: of the interval.
    """
    gap = other.value - one.value
    if one.draws is None or other.draws is None:
        return gap, None
    if len(one.draws) == len(other.draws):
        pairs = other.draws - one.draws
        error = float(np.std(pairs, ddof=1) / np.sqrt(len(pairs)))
    else:
        error = float(np.hypot(*(np.std(d, ddof=1) / np.sqrt(len(d)) for d in (one.draws, other.draws))))
    seeds = float(np.hypot(one.seed_error, other.seed_error))
    return gap, _half(level, error, seeds, one.seeds + other.seeds - 2)


def _half(level: float, sequences: float, seeds: float, freedom: int) -> float:
    """Half width of an interval from two standard errors; of few seeds by Student's t."""
    wide = t_quantile(level, freedom) * seeds if freedom > 0 and seeds else 0.0
    return float(np.hypot(float(stats.norm.ppf((1 + level) / 2)) * sequences, wide))


def differences(found: Sequence[Column]) -> list[Entry]:
    """Every pair of models in every metric that both have, at 95 % for all of them together (Bonferroni).

    ``matters``: the interval leaves zero out, and the difference is at least a tenth of the larger value.
    """
    pairs = [(a, b, name) for a, b in combinations(found, 2) for name in a.samples if name in b.samples]
    told = []
    for a, b, name in pairs:
        gap, half = difference(a.samples[name], b.samples[name], 1 - (1 - LEVEL) / len(pairs))
        sure = half is not None and abs(gap) > half
        size = max(abs(a.samples[name].value), abs(b.samples[name].value))
        told.append(
            {
                "from": a.model,
                "to": b.model,
                "metric": name,
                "difference": gap,
                "half": half,
                "sure": sure,
                "matters": bool(sure and abs(gap) >= MATTERS * size),
            }
        )
    return told
