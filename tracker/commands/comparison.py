"""``tracker compare``: the stored results of models, or of two stores, set side by side."""

from dataclasses import replace
from typing import Any

from tracker.analysis import trajectories
from tracker.analysis.comparison import COMPARED, Column, archetype, chosen_steps, columns, differences
from tracker.analysis.encodings import encoding_entries
from tracker.analysis.paper_tables import against_paper, paper_sentences
from tracker.analysis.report import analyse_phases, encodings_of
from tracker.analysis.trajectories import Suspects, Trajectory
from tracker.analysis.two_stores import between, store_sentences
from tracker.analysis.words import number, titled
from tracker.config import Compare
from tracker.errors import RequestError
from tracker.store import Results

RUN = ("suite", "model", "seed", "step")


def _measured(results: Results, suspects: Suspects | None = None) -> list[Trajectory]:
    runs = trajectories(results.checkpoints(), results.sequences(), suspects)
    return [run for run in runs if len(run.steps)]


def _spreads(results: Results) -> dict[tuple[Any, ...], float]:
    """(suite, model, seed, step, metric) -> standard deviation over heads."""
    names = [name for name in COMPARED if name not in ("loss", "in_context_score")]
    table = results.checkpoints([*RUN, *(f"{name}_std" for name in names)])
    return {
        (*row[: len(RUN)], name): value
        for row in table.iter_rows()
        for name, value in zip(names, row[len(RUN) :], strict=True)
        if value is not None
    }


def compare_models(
    results: Results, choice: Compare, suspects: Suspects | None = None
) -> tuple[list[Column], dict[str, Any]]:
    """The models of a store side by side.

    Args:
        results: the opened store.
        choice: at which checkpoints.
        suspects: checkpoints that are left out.

    Returns:
        The columns of the table, and the content of ``compare.json``.

    Raises:
        RequestError: there is one model only, or no checkpoint of that choice.
    """
    runs, spreads = _measured(results, suspects), _spreads(results)
    if len({run.suite for run in runs}) > 1:
        spreads = {(key[0], f"{key[0]}/{key[1]}", *key[2:]): value for key, value in spreads.items()}
        runs = [replace(run, model=f"{run.suite}/{run.model}") for run in runs]
    if len({run.model for run in runs}) < 2:
        named = runs[0].model if runs else "none"
        raise RequestError(
            f"tracker compare needs two models; measured in {results.folder}: {named}; measure another, or "
            "compare two stores with compare.other=DIR"
        )
    steps = chosen_steps(runs, choice.at, choice.step, choice.tokens)
    found = columns(runs, spreads, steps)
    gaps, paper = differences(found), against_paper(found, runs)
    kinds = [archetype(column) for column in found]
    return found, {
        "at": choice.at,
        "models": [_plain(column) for column in found],
        "archetypes": kinds,
        "differences": gaps,
        "paper": paper,
        "sentences": [*_kinds_told(kinds), *_gaps_told(found, gaps), *paper_sentences(paper)],
    }


def compare_stores(results: Results, other: Results) -> dict[str, Any]:
    """Two stores checkpoint by checkpoint.

    Raises:
        RequestError: they share no checkpoint.
    """
    rows = between(_measured(results), _measured(other))
    return {
        "stores": [str(results.folder), str(other.folder)],
        "checkpoints": rows,
        "sentences": store_sentences(rows),
    }


def compare_encodings(results: Results, suspects: Suspects | None = None) -> dict[str, Any]:
    """Models of one shape that differ in their position encoding, over training.

    Returns:
        The content of ``compare.json``: ``encodings`` (as in analysis.json) and ``sentences``.

    Raises:
        RequestError: no two models of one suite and shape differ in their position encoding.
    """
    checkpoints = results.checkpoints()
    found = analyse_phases(checkpoints, results.sequences(), suspects)
    entries = encoding_entries(
        [run for run, _ in found], encodings_of(checkpoints), [entry for _, entry in found]
    )
    if not entries:
        raise RequestError(
            f"compare.by=encoding: in {results.folder} no two models of one suite and shape differ in their "
            "position encoding; train some: tracker sweep encodings=[rotary,alibi] suite.seeds=3"
        )
    return {
        "by": "encoding",
        "encodings": entries,
        "sentences": [sentence for each in entries for sentence in each["sentences"]],
    }


def _plain(column: Column) -> dict[str, Any]:
    return {
        "suite": column.suite,
        "model": column.model,
        "seeds": list(column.seeds),
        "step": column.step,
        "tokens": column.tokens if column.tokens == column.tokens else None,
        "metrics": {
            name: {"mean": each.value, "half": each.half, "over_heads": each.spread}
            for name, each in column.samples.items()
        },
    }


def _kinds_told(kinds: list[dict[str, Any]]) -> list[str]:
    known = [each for each in kinds if each["kind"]]
    if not known:
        return []
    told = [
        f"{each['model']} {each['kind']} (spectral entropy {number(each['entropy'])}, sd over heads "
        f"{number(each['entropy_over_heads'])}; selectivity {number(each['selectivity'])})"
        for each in known
    ]
    limits = known[0]["limits"]
    return [
        f"Heads: {'; '.join(told)}. Specialised from an sd of {number(limits['entropy_over_heads'])}, broad "
        f"below a selectivity of {number(limits['selectivity'])}: half of the least in the paper's table 3."
    ]


def _gaps_told(found: list[Column], gaps: list[dict[str, Any]]) -> list[str]:
    """From the smallest to the largest model, what differs so that it matters."""
    first, last = found[0], found[-1]
    ends = [gap for gap in gaps if (gap["from"], gap["to"]) == (first.model, last.model)]
    matter = sorted((gap for gap in ends if gap["matters"]), key=_relative(first, last), reverse=True)
    told = [
        f"{titled(gap['metric'])} {number(first.samples[gap['metric']].value)} to "
        f"{number(last.samples[gap['metric']].value)} (difference {number(gap['difference'])} ± "
        f"{number(gap['half'])})"
        for gap in matter
    ]
    counted = sum(gap["matters"] for gap in gaps)
    head = (
        f"Differences of a tenth or more that are sure at 95% for all {len(gaps)} comparisons "
        f"together: {counted}"
    )
    if told:
        return [f"{head}. From {first.model} to {last.model}: {'; '.join(told)}."]
    return [f"{head}. Between {first.model} and {last.model}: none."]


def _relative(first: Column, last: Column) -> Any:
    def size(gap: dict[str, Any]) -> float:
        largest = max(abs(column.samples[gap["metric"]].value) for column in (first, last))
        return abs(gap["difference"]) / max(largest, 1e-12)

    return size
