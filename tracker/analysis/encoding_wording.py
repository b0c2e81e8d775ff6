"""What the comparison of position encodings says, in sentences, whichever way it comes out."""

import math
from collections.abc import Sequence
from typing import Any

from tracker.analysis.labels import ENTROPY, SELECTIVITY
from tracker.analysis.words import number, titled
from tracker.facts import table

Entry = dict[str, Any]
PAPER_NAMES = {"rotary": "RoPE", "relative": "T5 relative bias", "learned": "learned absolute"}
"""Our encodings and those of the paper's table 4 (its "none" is GPT-2, which has learned positions)."""

NAMES = {"none": "the body without an encoding"}
"""What is called otherwise in a sentence."""


def encoding_sentences(entry: Entry) -> list[str]:
    """Every finding of one group in a sentence or two.

    Args:
        entry: a group of ``encoding_entries``, without its sentences.
    """
    one_body = [each for each in entry["models"] if not each["own_body"]]
    told = [_differences(entry, one_body), *_phases(one_body), *_start_and_end(one_body), _paper(one_body)]
    own = [each for each in entry["models"] if each["own_body"]]
    if own:
        told.append(
            f"{_listed([each['model'] for each in own])}: bodies of their own, so what differs there "
            "need not be the encoding."
        )
    return [sentence for sentence in told if sentence]


def _differences(entry: Entry, models: Sequence[Entry]) -> str:
    reference, found = entry["reference"], entry["differences"]
    if not found:
        return f"{reference} and its variants share no checkpoint or no seed: nothing can be compared."
    head = f"Position encodings, {entry['suite']}, step {found[0]['step']}, against {reference} seed by seed"
    if all(each["p_value"] is None for each in found):
        return f"{head}: one seed tells no difference from chance; train more (suite.seeds=3)."
    told = []
    for model in (each["model"] for each in models if each["model"] != reference):
        tested = [each for each in found if each["model"] == model and each["p_value"] is not None]
        matter = [each for each in tested if each["matters"]]
        nothing = "none" if tested else "fewer than two seeds of the reference, so nothing can be told"
        told.append(f"{model}: {', '.join(map(_gap, matter)) or nothing}")
    seeds = sorted({each["seeds"] for each in found})
    return (
        f"{head} ({'/'.join(map(str, seeds))} seeds). Differences of a tenth or more that are sure at 95% "
        f"for all {len(found)} comparisons together: {'; '.join(told)}."
    )


def _gap(each: Entry) -> str:
    return f"{titled(each['metric'])} {each['difference']:+.2g} ± {each['half']:.1g}"


def _phases(models: Sequence[Entry]) -> list[str]:
    """Is the pattern over training one of rotary embeddings alone?"""
    told = []
    for label in ("exploratory", "specialisation"):
        counts = [
            f"{each['model']} {each['phases'][label]} of {len(each['seeds'])}"
            for each in models
        ]  # fmt: skip
        told.append(f"Runs with a phase named {label}: {', '.join(counts)}; {_unique(models, label)}.")
    return told


def _unique(models: Sequence[Entry], label: str) -> str:
    def most(those: list[Entry]) -> list[bool]:
        return [2 * each["phases"][label] > len(each["seeds"]) for each in those]

    rotary = most([each for each in models if each["encoding"] == "rotary"])
    others = [each for each in models if each["encoding"] != "rotary"]
    with_it = [_called(each, models) for each, seen in zip(others, most(others), strict=True) if seen]
    shows = "show" if len(with_it) > 1 else "shows"
    if not any(rotary) and not with_it:
        return "no encoding shows it in most of its seeds"
    if not with_it:
        return "only rotary shows it in most of its seeds"
    if not any(rotary):
        return f"rotary does not show it in most of its seeds; {_listed(with_it)} {shows} it"
    return f"rotary is not needed for it: {_listed(with_it)} {shows} it too"


def _start_and_end(models: Sequence[Entry]) -> list[str]:
    """Is it built in, or learned? At step 0 all share their weights but those of the encoding."""
    shared = set.intersection(*(set(each["steps"]) for each in models))
    if 0 not in shared or len(shared) < 2:
        return []
    told = []
    for metric in (ENTROPY, SELECTIVITY):
        ends = {_called(each, models): _at(each, metric, [0, max(shared)]) for each in models}
        known = {name: values for name, values in ends.items() if all(map(math.isfinite, values))}
        if len(known) < 2:
            continue
        first, last = ([(values[end], name) for name, values in known.items()] for end in (0, 1))
        moved = [abs(values[1] - values[0]) for values in known.values()]
        apart = max(first)[0] - min(first)[0]
        told.append(
            f"{titled(metric).capitalize()}: from {number(min(first)[0])} ({min(first)[1]}) to "
            f"{number(max(first)[0])} ({max(first)[1]}) before training, where the weights are the same, "
            f"and from {number(min(last)[0])} ({min(last)[1]}) to {number(max(last)[0])} ({max(last)[1]}) at "
            f"step {max(shared)}; training moves it by {number(min(moved))} to {number(max(moved))}, "
            f"{'more' if apart < min(moved) else 'not more'} in every encoding than the encodings differ "
            f"before it: its level is {'mostly learned' if apart < min(moved) else 'in part built in'}."
        )
    return told


def _called(model: Entry, models: Sequence[Entry]) -> str:
    """A model's encoding, or its name where others have that encoding too, in another share or base."""
    alike = [each for each in models if each["encoding"] == model["encoding"]]
    encoding: str = model["encoding"]
    return str(model["model"]) if len(alike) > 1 else NAMES.get(encoding, encoding)


def _at(model: Entry, metric: str, steps: Sequence[int]) -> list[float]:
    """Means at some steps; NaN where there are none."""
    told = model["metrics"].get(metric)
    return [float("nan") if told is None else told["mean"][model["steps"].index(step)] for step in steps]


def _paper(models: Sequence[Entry]) -> str:
    """The order in which the paper's table 4 puts the encodings, and ours."""
    paper = {row["position_encoding"]: row for row in table("paper_table4_position_encodings").to_dicts()}
    plain = [each for each in models if "-" not in each["model"] or each["encoding"] != "rotary"]
    told = []
    for metric in (ENTROPY, SELECTIVITY, "scale_sensitivity_0.5"):
        ours = {
            each["encoding"]: each["metrics"][metric]["mean"][-1]
            for each in plain
            if each["encoding"] in PAPER_NAMES and metric in each["metrics"]
        }
        if len(ours) < 2:
            continue
        theirs = {name: paper[PAPER_NAMES[name]][metric] for name in ours}
        by_ours, by_theirs = sorted(ours, key=ours.__getitem__), sorted(theirs, key=theirs.__getitem__)
        same = "as here" if by_ours == by_theirs else f"here {' < '.join(by_ours)}"
        told.append(f"{titled(metric)} {' < '.join(by_theirs)} ({same})")
    if not told:
        return ""
    return (
        f"The paper's table 4 (Llama 3.2 3B, flan-t5-base, bert-base: other sizes, texts and bodies) has "
        f"{'; '.join(told)}."
    )


def _listed(names: Sequence[str]) -> str:
    *head, last = names
    return f"{', '.join(head)} and {last}" if head else last
