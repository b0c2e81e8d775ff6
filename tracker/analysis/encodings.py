"""Position encodings side by side over training: what the paper's table 4 shows at the end, and more.

T: checkpoints; E: encodings; N: seeds.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from scipy import stats

from tracker.analysis.labels import ENTROPY, SELECTIVITY
from tracker.analysis.t_interval import t_half_width
from tracker.analysis.trajectories import Trajectory

Entry = dict[str, Any]
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
        """What its name says behind its size."""
        return self.model.partition("-")[2]

    def values(self, metric: str) -> np.ndarray:
        """(N, T); NaN where the metric does not exist."""
        return np.array([_at(run, metric, self.steps) for run in self.runs])


def _at(run: Trajectory, metric: str, steps: Sequence[int]) -> np.ndarray:
    if metric not in run.metrics:
        return np.full(len(steps), np.nan)
    return run.metrics[metric][np.searchsorted(run.steps, steps)]


def interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float | None]:
    """Mean over seeds and half width of its interval by Student's t; None where there is one seed."""
    return float(values.mean()), t_half_width(values, level)


def encoding_groups(
    runs: Sequence[Trajectory], encodings: Mapping[tuple[str, str], str]
) -> list[list[Encoded]]:
    """Models of one suite and shape that differ in their position encoding, the reference first.

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


def _shape(run: Trajectory) -> tuple[Any, ...]:
    return run.suite, *(run.facts[fact] or 0 for fact in ("n_layers", "n_heads", "d_model"))


def _rank(each: Encoded) -> tuple[Any, ...]:
    return (
        each.own_body,
        each.encoding != "rotary",
        len(each.model) if each.encoding == "rotary" else 0,
        each.model,
    )


def _encoded(model: str, runs: tuple[Trajectory, ...], encodings: Mapping[tuple[str, str], str]) -> Encoded:
    common = sorted(set.intersection(*(set(map(int, run.steps)) for run in runs)))
    return Encoded(model, encodings.get((runs[0].suite, model), "unknown"), runs, tuple(common))


def differences(group: Sequence[Encoded], metrics: Sequence[str] = TESTED) -> list[Entry]:
    """How each model differs from the reference at the last step that all share, seed by seed.

    Runs of one seed start from the same weights and read the same batches, so differences are taken within
    a seed: a paired t-test, its p-values corrected for all models and metrics together (Holm).

    Returns:
        One entry per model and metric: difference, half (of its own 95 % interval), seeds, p_value,
        p_corrected, and ``matters``: sure at 5 % after correction, and at least a tenth of the larger value.
    """
    reference, *others = group
    shared = set.intersection(*(set(each.steps) for each in group))
    if not shared:
        return []
    step = max(shared)
    entries = []
    for other in others:
        for metric in metrics:
            pairs = [
                (float(_at(ours, metric, [step])[0]), float(_at(theirs, metric, [step])[0]))
                for ours in reference.runs for theirs in other.runs if ours.seed == theirs.seed
            ]  # fmt: skip
            known = np.array([pair for pair in pairs if np.all(np.isfinite(pair))])
            if len(known):
                entries.append({"model": other.model, "metric": metric, "step": step} | _paired(known))
    _correct(entries)
    return entries


def _paired(known: np.ndarray) -> Entry:
    """Of (N, 2) values of the reference and of another."""
    gaps = known[:, 1] - known[:, 0]
    gap, half = interval(gaps)
    p_value = None
    if half is not None:
        spread = gaps.std(ddof=1)
        tested: Any = stats.ttest_1samp(gaps, 0.0)
        p_value = float(tested.pvalue) if spread > 0 else float(gap == 0)
    size = float(np.abs(known.mean(axis=0)).max())
    return {
        "difference": gap,
        "half": half,
        "seeds": len(gaps),
        "p_value": p_value,
        "relative": abs(gap) / size if size else 0.0,
    }


def _correct(entries: list[Entry]) -> None:
    """Holm's step-down over all entries that have a p-value; says which differences matter."""
    tested = sorted(
        (each for each in entries if each["p_value"] is not None), key=lambda each: each["p_value"]
    )
    largest = 0.0
    for rank, each in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * each["p_value"]))
        each["p_corrected"] = largest
    for each in entries:
        corrected = each.setdefault("p_corrected", None)
        sure = corrected is not None and corrected < 1 - LEVEL
        each["matters"] = bool(sure and each["relative"] >= MATTERS)


def encoding_entries(
    runs: Sequence[Trajectory], encodings: Mapping[tuple[str, str], str], phases: Sequence[Entry]
) -> list[Entry]:
    """The ``encodings`` of analysis.json: one entry per group.

    Args:
        runs, encodings: as ``encoding_groups``.
        phases: their entries among the phases, for how many seeds show which phase.

    Returns:
        Per group suite, reference, models (each with steps, and mean and half width over seeds of every
        metric at each step, and how many seeds show an exploratory phase and a specialisation), differences,
        and sentences.
    """
    from tracker.analysis.encoding_wording import encoding_sentences

    labels = {
        (each["suite"], each["model"], each["seed"]): {phase["label"] for phase in each["phases"]}
        for each in phases
    }
    entries = []
    for group in encoding_groups(runs, encodings):
        entry = {
            "suite": group[0].runs[0].suite,
            "reference": group[0].model,
            "models": [_model(each, labels) for each in group],
            "differences": differences(group),
        }
        entries.append(entry | {"sentences": encoding_sentences(entry)})
    return entries


def _model(each: Encoded, labels: Mapping[tuple[str, str, int], set[str]]) -> Entry:
    metrics = {}
    for name in METRICS:
        told = [interval(column) for column in each.values(name).T]
        if any(np.isfinite(mean) for mean, _ in told):
            metrics[name] = {"mean": [mean for mean, _ in told], "half": [half for _, half in told]}
    seen = [labels.get((run.suite, run.model, run.seed), set()) for run in each.runs]
    return {
        "model": each.model,
        "encoding": each.encoding,
        "own_body": each.own_body,
        "seeds": [run.seed for run in each.runs],
        "steps": list(each.steps),
        "metrics": metrics,
        "phases": {name: sum(name in found for found in seen) for name in ("exploratory", "specialisation")},
    }
