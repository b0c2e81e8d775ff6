"""Position encodings side by side over training: what the paper's table 4 shows at the end, and more.

T: checkpoints; E: encodings; N: seeds.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from tracker.analysis.labels import ENTROPY, SELECTIVITY
from tracker.analysis.schema import (
    Band,
    EncodedModel,
    EncodingComparison,
    EncodingDifference,
    RunPhases,
)
from tracker.analysis.t_interval import t_half_width
from tracker.analysis.text.encodings import encoding_sentences
from tracker.analysis.trajectories import Trajectory

TABLE4 = (
    ENTROPY,
    SELECTIVITY,
    "scale_sensitivity_0.5",
    "scale_sensitivity_0.25",
    "position_spectrum_correlation",
    "reconstruction_error",
)
"""Columns of the paper's table 4."""
METRICS = (*TABLE4, "loss")
TESTED = tuple(name for name in METRICS if name != "reconstruction_error")
"""Reconstruction errors are rounding errors of float32: shown, and no difference between encodings."""
OWN_BODY = ("gpt2", "bloom")
"""Models of these names differ from the others in more than their encoding."""
ROTARY = re.compile(r"rotary(\d+)?(base\d+)?")
"""Models of such names differ from another in the share or the base of their rotary dimensions."""
LEVEL = 0.95
MATTERS = 0.1
"""A difference matters that is sure and at least this share of the larger value."""


@dataclass(frozen=True)
class Encoded:
    """The seeds of one model, at the checkpoints that all of them have."""

    model: str
    encoding: str
    runs: tuple[Trajectory, ...]
    steps: tuple[int, ...]

    @property
    def own_body(self) -> bool:
        """Whether it differs in more than its encoding."""
        return self.variant in OWN_BODY

    @property
    def variant(self) -> str:
        """What follows the size in its name."""
        return self.model.partition("-")[2]

    def values(self, metric: str) -> np.ndarray:
        """(N, T); NaN where the metric does not exist."""
        return np.array([_at(run, metric, self.steps) for run in self.runs])


def _at(run: Trajectory, metric: str, steps: Sequence[int]) -> np.ndarray:
    if metric not in run.metrics:
        return np.full(len(steps), np.nan)
    return run.metrics[metric][np.searchsorted(run.steps, steps)]


def encodings_of(checkpoints: pl.DataFrame) -> dict[tuple[str, str], str]:
    """Return (suite, model) -> position encoding, of measured checkpoints."""
    if "position_encoding" not in checkpoints.columns:
        return {}
    known = checkpoints.drop_nulls("position_encoding").unique(["suite", "model"], keep="first")
    return {
        (suite, model): name
        for suite, model, name in known.select("suite", "model", "position_encoding").iter_rows()
    }


def encoding_groups(
    runs: Sequence[Trajectory], encodings: Mapping[tuple[str, str], str]
) -> list[list[Encoded]]:
    """Group models of one suite and shape that differ in their position encoding, the reference first.

    Args:
        runs: the trajectories.
        encodings: (suite, model) -> position encoding.

    Returns:
        One group per suite and shape that has two encodings or more, or two kinds of rotary; the reference
        is the rotary model with the shortest name, else the first by name.
    """
    groups = []
    measured = [run for run in runs if len(run.steps)]
    for _, same in groupby(sorted(measured, key=_shape), key=_shape):
        members = sorted(same, key=lambda run: (run.model, run.seed))
        found = [
            _encoded(model, tuple(own), encodings)
            for model, own in groupby(members, key=lambda run: run.model)
        ]
        shares = any(ROTARY.fullmatch(each.variant) for each in found)
        if len({each.encoding for each in found}) > 1 or (shares and len(found) > 1):
            groups.append(sorted(found, key=_rank))
    return groups


def _shape(run: Trajectory) -> tuple[str | int, ...]:
    return run.suite, *(run.facts[fact] or 0 for fact in ("n_layers", "n_heads", "d_model"))


def _rank(each: Encoded) -> tuple[bool, bool, int, str]:
    rotary = each.encoding == "rotary"
    return each.own_body, not rotary, len(each.model) if rotary else 0, each.model


def _encoded(model: str, runs: tuple[Trajectory, ...], encodings: Mapping[tuple[str, str], str]) -> Encoded:
    common = sorted(set.intersection(*(set(map(int, run.steps)) for run in runs)))
    return Encoded(model, encodings.get((runs[0].suite, model), "unknown"), runs, tuple(common))


def differences(group: Sequence[Encoded], metrics: Sequence[str] = TESTED) -> list[EncodingDifference]:
    """Test how each model differs from the reference at the last step that all share, seed by seed.

    Runs of one seed start from the same weights and read the same batches, so differences are taken within
    a seed: a paired t-test, its p-values corrected for all models and metrics together (Holm).

    Returns:
        One entry per model and metric; ``matters``: sure at 5 % after correction, and at least a tenth of
        the larger value.
    """
    reference, *others = group
    shared = set.intersection(*(set(each.steps) for each in group))
    if not shared:
        return []
    step = max(shared)
    found = []
    for other in others:
        for metric in metrics:
            pairs = [
                (float(_at(ours, metric, [step])[0]), float(_at(theirs, metric, [step])[0]))
                for ours in reference.runs for theirs in other.runs if ours.seed == theirs.seed
            ]  # fmt: skip
            known = np.array([pair for pair in pairs if np.all(np.isfinite(pair))])
            if len(known):
                found.append(_paired(other.model, metric, step, known))
    return _corrected(found)


def _paired(model: str, metric: str, step: int, known_N2: np.ndarray) -> EncodingDifference:
    """The t-test of (N, 2) values of the reference and of another model."""
    gaps = known_N2[:, 1] - known_N2[:, 0]
    gap, half = float(gaps.mean()), t_half_width(gaps, LEVEL)
    p_value = None
    if half is not None:
        tested: Any = stats.ttest_1samp(gaps, 0.0)
        p_value = float(tested.pvalue) if gaps.std() > 0 else float(gap == 0)
    size = float(np.abs(known_N2.mean(axis=0)).max())
    relative = abs(gap) / size if size else 0.0
    return EncodingDifference(model, metric, step, gap, half, len(gaps), p_value, relative)


def _corrected(found: Sequence[EncodingDifference]) -> list[EncodingDifference]:
    """Holm's step-down over all entries that have a p-value, and which differences matter."""
    tested = sorted(
        (n for n, each in enumerate(found) if each.p_value is not None), key=lambda n: found[n].p_value or 0.0
    )
    corrected, largest = {}, 0.0
    for rank, number in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * (found[number].p_value or 0.0)))
        corrected[number] = largest
    return [
        replace(
            each,
            p_corrected=corrected.get(number),
            matters=corrected.get(number, 1.0) < 1 - LEVEL and each.relative >= MATTERS,
        )
        for number, each in enumerate(found)
    ]


def compare_encodings(
    runs: Sequence[Trajectory], encodings: Mapping[tuple[str, str], str], phases: Sequence[RunPhases]
) -> list[EncodingComparison]:
    """Compare the models of every group of ``encoding_groups``.

    Args:
        runs, encodings: as for ``encoding_groups``.
        phases: the phases of the runs, for how many seeds show which phase.
    """
    labels = {(each.suite, each.model, each.seed): {phase.label for phase in each.phases} for each in phases}
    found = []
    for group in encoding_groups(runs, encodings):
        entry = EncodingComparison(
            group[0].runs[0].suite,
            group[0].model,
            tuple(_model(each, labels) for each in group),
            tuple(differences(group)),
        )
        found.append(replace(entry, sentences=encoding_sentences(entry)))
    return found


def _model(each: Encoded, labels: Mapping[tuple[str, str, int], set[str | None]]) -> EncodedModel:
    metrics = {}
    for name in METRICS:
        values_NT = each.values(name)
        if np.isfinite(values_NT.mean(axis=0)).any():
            means = tuple(float(mean) for mean in values_NT.mean(axis=0))
            metrics[name] = Band(means, tuple(t_half_width(column, LEVEL) for column in values_NT.T))
    seen = [labels.get((run.suite, run.model, run.seed), set()) for run in each.runs]
    return EncodedModel(
        each.model,
        each.encoding,
        each.own_body,
        seeds=tuple(run.seed for run in each.runs),
        steps=each.steps,
        metrics=metrics,
        phases={name: sum(name in found for found in seen) for name in ("exploratory", "specialisation")},
    )
