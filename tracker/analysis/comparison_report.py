"""What ``tracker compare`` reports: models of a store, two stores, or position encodings side by side."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl

from tracker.analysis.comparison import (
    COMPARED,
    Archetype,
    Column,
    Difference,
    StoreDifference,
    archetype,
    columns,
    differences,
    store_differences,
)
from tracker.analysis.comparison_timing import ModelTransition, model_transitions
from tracker.analysis.encodings import compare_encodings, encodings_of
from tracker.analysis.json_types import stored_as, to_dict
from tracker.analysis.paper_ranges import Placed, among_paper, paper_columns
from tracker.analysis.paper_tables import PaperRow, against_paper
from tracker.analysis.phase_report import analyse_phases
from tracker.analysis.schema import EncodingComparison
from tracker.analysis.text.comparison import (
    archetype_sentences,
    difference_sentence,
    paper_sentences,
    range_sentences,
    store_sentences,
    timing_sentences,
)
from tracker.analysis.trajectories import Suspects, Trajectory, trajectories
from tracker.errors import RequestError, known_steps

RUN = ("suite", "model", "seed", "step")
ONE_MODEL = (
    "One model is measured; measure another to compare it with, or compare two stores with compare.other=DIR."
)


@dataclass(frozen=True)
class ComparedAt:
    """At which checkpoint models are compared."""

    at: str = "end"
    """``end`` (the last checkpoint of each), ``step`` (that one; None: the last that all share), ``tokens``
    (the last checkpoint up to so many tokens; None: as many as all have seen)."""
    step: int | None = None
    tokens: int | None = None


class _Report:
    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``compare.json`` in JSON's types."""
        return to_dict(self)


@dataclass(frozen=True)
class ModelComparison(_Report):
    """Models side by side at one checkpoint each, and beside the paper's tables."""

    at: str
    models: tuple[Column, ...]
    archetypes: tuple[Archetype, ...]
    differences: tuple[Difference, ...]
    paper: tuple[PaperRow, ...]
    sentences: tuple[str, ...]
    transitions: tuple[ModelTransition, ...] = ()
    placed: tuple[Placed, ...] = field(default=(), metadata=stored_as("among_paper"))
    """Models that the paper does not name, among those that it does."""


@dataclass(frozen=True)
class StoreComparison(_Report):
    """Two stores checkpoint by checkpoint."""

    stores: tuple[str, str]
    checkpoints: tuple[StoreDifference, ...]
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class EncodingsReport(_Report):
    """Models that differ in their position encoding, over training."""

    encodings: tuple[EncodingComparison, ...]
    sentences: tuple[str, ...]
    by: str = "encoding"


@dataclass(frozen=True)
class Tables:
    """The tables of a store that are compared."""

    name: str
    checkpoints: pl.DataFrame
    sequences: pl.DataFrame | None = None
    suspects: Suspects | None = None
    """Checkpoints that are left out, and why."""

    def runs(self) -> list[Trajectory]:
        """The trajectories that have a measured checkpoint."""
        runs = trajectories(self.checkpoints, self.sequences, self.suspects)
        return [run for run in runs if len(run.steps)]


def compare_models(tables: Tables, choice: ComparedAt) -> ModelComparison:
    """Compare the models of a store with each other and with the paper's.

    Raises:
        RequestError: nothing is measured, or there is no checkpoint of that choice.
    """
    runs, spreads = tables.runs(), _spreads(tables.checkpoints)
    if len({run.suite for run in runs}) > 1:
        spreads = {(key[0], f"{key[0]}/{key[1]}", *key[2:]): value for key, value in spreads.items()}
        runs = [replace(run, model=f"{run.suite}/{run.model}") for run in runs]
    if not runs:
        raise RequestError(f"{tables.name}: nothing measured to compare; run `tracker sweep` first")
    steps = choose_steps(runs, choice)
    found = columns(runs, spreads, steps)
    gaps, paper = differences(found), against_paper(found, runs)
    placed = among_paper(columns(runs, spreads, steps, paper_columns()), [row.model for row in paper])
    kinds, timing = [archetype(column) for column in found], model_transitions(runs)
    sentences = [
        *timing_sentences(timing),
        *archetype_sentences(kinds),
        difference_sentence(found, gaps) if len(found) > 1 else ONE_MODEL,
        *paper_sentences(paper),
        *range_sentences(placed),
    ]
    return ModelComparison(
        choice.at,
        models=tuple(found),
        archetypes=tuple(kinds),
        differences=tuple(gaps),
        paper=tuple(paper),
        sentences=tuple(sentences),
        transitions=tuple(timing),
        placed=tuple(placed),
    )


def compare_stores(tables: Tables, other: Tables) -> StoreComparison:
    """Compare two stores checkpoint by checkpoint.

    Raises:
        RequestError: they share no checkpoint.
    """
    rows = store_differences(tables.runs(), other.runs())
    return StoreComparison((tables.name, other.name), tuple(rows), tuple(store_sentences(rows)))


def report_encodings(tables: Tables) -> EncodingsReport:
    """Compare models of one shape that differ in their position encoding, over training.

    Raises:
        RequestError: no two models of one suite and shape differ in their position encoding.
    """
    found = analyse_phases(tables.checkpoints, tables.sequences, tables.suspects)
    entries = compare_encodings(
        [run for run, _ in found], encodings_of(tables.checkpoints), [entry for _, entry in found]
    )
    if not entries:
        raise RequestError(
            f"compare.by=encoding: in {tables.name} no two models of one suite and shape differ in their "
            "position encoding; train some: tracker sweep encodings=[rotary,alibi] suite.seeds=3"
        )
    return EncodingsReport(tuple(entries), tuple(line for each in entries for line in each.sentences))


def _spreads(checkpoints: pl.DataFrame) -> dict[tuple[Any, ...], float]:
    known = dict.fromkeys((*COMPARED, *paper_columns()))
    names = [name for name in known if f"{name}_std" in checkpoints.columns and name != "loss"]
    rows = checkpoints.select(*RUN, *(f"{name}_std" for name in names)).iter_rows()
    return {
        (*row[: len(RUN)], name): value
        for row in rows
        for name, value in zip(names, row[len(RUN) :], strict=True)
        if value is not None
    }


def choose_steps(runs: Sequence[Trajectory], choice: ComparedAt) -> dict[str, int]:
    """Choose, for each model, the step at which it is compared: the last that all its seeds have, or before.

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
    if choice.at == "end":
        return {model: those[-1] for model, those in common.items()}
    if choice.at == "step":
        return _at_step(common, choice.step)
    return _at_tokens(common, seen, choice.tokens)


def _at_step(common: dict[str, list[int]], step: int | None) -> dict[str, int]:
    shared = set.intersection(*map(set, common.values()))
    wanted = max(shared, default=None) if step is None else step
    if wanted is None:
        raise RequestError("compare.at=step: the models share no measured step; measure one in all of them")
    for model, those in common.items():
        if wanted not in those:
            raise RequestError(
                f"compare.step={wanted}: not measured in {model}; {known_steps([wanted], those)}"
            )
    return dict.fromkeys(common, wanted)


def _at_tokens(
    common: dict[str, list[int]], seen: dict[str, dict[int, float]], tokens: int | None
) -> dict[str, int]:
    for model, those in common.items():
        if any(not np.isfinite(seen[model][step]) for step in those):
            raise RequestError(
                f"compare.at=tokens: training tokens of {model} are unknown; use compare.at=step"
            )
    most = min(max(seen[model][step] for step in those) for model, those in common.items())
    wanted = most if tokens is None else tokens
    chosen = {}
    for model, those in common.items():
        upto = [step for step in those if seen[model][step] <= wanted]
        if not upto:
            raise RequestError(f"compare.tokens={wanted}: {model} has no checkpoint of so few tokens")
        chosen[model] = upto[-1]
    return chosen
