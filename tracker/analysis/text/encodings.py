"""Sentences about position encodings side by side, whichever way the comparison comes out."""

import math
from collections.abc import Sequence

from tracker.analysis.labels import ENTROPY, SELECTIVITY
from tracker.analysis.schema import EncodedModel, EncodingComparison, EncodingDifference
from tracker.analysis.text import listed, number, titled
from tracker.facts import table

PAPER_NAMES = {"rotary": "RoPE", "relative": "T5 relative bias", "learned": "learned absolute"}
"""Our encodings and those of the paper's table 4 (its "none" is GPT-2, which has learned positions)."""
NAMES = {"none": "no positional encoding"}
"""What sentences call otherwise."""


def encoding_sentences(entry: EncodingComparison) -> tuple[str, ...]:
    """Return every finding of one comparison in a sentence or two."""
    one_body = [each for each in entry.models if not each.own_body]
    found = [_differences(entry, one_body or entry.models)]
    if one_body:
        found += [*_phases(one_body), *_start_and_end(one_body), _paper(one_body)]
    own = [each.model for each in entry.models if each.own_body]
    if own:
        found.append(f"{listed(own)}: bodies of their own, so what differs there need not be the encoding.")
    return tuple(sentence for sentence in found if sentence)


def _differences(entry: EncodingComparison, models: Sequence[EncodedModel]) -> str:
    reference, found = entry.reference, entry.differences
    if not found:
        return f"{reference} and its variants share no checkpoint or no seed: nothing can be compared."
    head = f"Position encodings, {entry.suite}, step {found[0].step}, against {reference} seed by seed"
    if all(each.p_value is None for each in found):
        return f"{head}: one seed cannot separate a difference from chance; train more (suite.seeds=3)."
    parts = []
    for model in (each.model for each in models if each.model != reference):
        tested = [each for each in found if each.model == model and each.p_value is not None]
        matter = [_gap(each) for each in tested if each.matters]
        nothing = "none" if tested else "not tested, fewer than two seeds of the reference"
        parts.append(f"{model}: {', '.join(matter) or nothing}")
    seeds = sorted({each.seeds for each in found})
    return (
        f"{head} ({'/'.join(map(str, seeds))} seeds). Differences of a tenth or more that are sure at 95% "
        f"for all {len(found)} comparisons together: {'; '.join(parts)}."
    )


def _gap(each: EncodingDifference) -> str:
    return f"{titled(each.metric)} {each.difference:+.2g} ± {each.half or 0:.1g}"


def _phases(models: Sequence[EncodedModel]) -> list[str]:
    """Is the pattern over training one of rotary embeddings alone?"""
    sentences = []
    for label in ("exploratory", "specialisation"):
        counts = [f"{each.model} {each.phases[label]} of {len(each.seeds)}" for each in models]
        sentences.append(f"Runs with phase {label}: {', '.join(counts)}; {_unique(models, label)}.")
    return sentences


def _unique(models: Sequence[EncodedModel], label: str) -> str:
    def shows_it(each: EncodedModel) -> bool:
        return 2 * each.phases[label] > len(each.seeds)

    rotary = any(shows_it(each) for each in models if each.encoding == "rotary")
    with_it = [_called(each, models) for each in models if each.encoding != "rotary" and shows_it(each)]
    shows = "show" if len(with_it) > 1 else "shows"
    if not rotary and not with_it:
        return "no encoding shows it in most of its seeds"
    if not with_it:
        return "only rotary shows it in most of its seeds"
    if not rotary:
        measured = any(each.encoding == "rotary" for each in models)
        without = "rotary does not show it in most of its seeds; " if measured else ""
        return f"{without}{listed(with_it)} {shows} it"
    return f"rotary is not needed for it: {listed(with_it)} {shows} it too"


def _start_and_end(models: Sequence[EncodedModel]) -> list[str]:
    """Is it built in, or learned? At step 0 all share their weights but those of the encoding."""
    shared = set.intersection(*(set(each.steps) for each in models))
    if 0 not in shared or len(shared) < 2:
        return []
    sentences = []
    for metric in (ENTROPY, SELECTIVITY):
        ends = {_called(each, models): _at(each, metric, [0, max(shared)]) for each in models}
        known = {name: values for name, values in ends.items() if all(map(math.isfinite, values))}
        if len(known) < 2:
            continue
        first, last = ([(values[end], name) for name, values in known.items()] for end in (0, 1))
        moved = [abs(values[1] - values[0]) for values in known.values()]
        apart = max(first)[0] - min(first)[0]
        sentences.append(
            f"{titled(metric).capitalize()}: from {number(min(first)[0])} ({min(first)[1]}) to "
            f"{number(max(first)[0])} ({max(first)[1]}) before training, where the weights are the same, "
            f"and from {number(min(last)[0])} ({min(last)[1]}) to {number(max(last)[0])} ({max(last)[1]}) at "
            f"step {max(shared)}; training moves it by {number(min(moved))} to {number(max(moved))}, "
            f"{'more' if apart < min(moved) else 'not more'} in every encoding than the encodings differ "
            f"before it: its level is {'mostly learned' if apart < min(moved) else 'in part built in'}."
        )
    return sentences


def _called(model: EncodedModel, models: Sequence[EncodedModel]) -> str:
    """A model's encoding, or its name where others have that encoding too, in another share or base."""
    alike = [each for each in models if each.encoding == model.encoding]
    return model.model if len(alike) > 1 else NAMES.get(model.encoding, model.encoding)


def _at(model: EncodedModel, metric: str, steps: Sequence[int]) -> list[float]:
    """Means at some steps; NaN where there are none."""
    band = model.metrics.get(metric)
    means = [None if band is None else band.mean[model.steps.index(step)] for step in steps]
    return [float("nan") if mean is None else mean for mean in means]


def _paper(models: Sequence[EncodedModel]) -> str:
    """The order in which the paper's table 4 puts the encodings, and ours."""
    paper = {row["position_encoding"]: row for row in table("paper_table4_position_encodings").to_dicts()}
    plain = [each for each in models if "-" not in each.model or each.encoding != "rotary"]
    parts = []
    for metric in (ENTROPY, SELECTIVITY, "scale_sensitivity_0.5"):
        ours = {
            each.encoding: _at(each, metric, each.steps[-1:])[0]
            for each in plain
            if each.encoding in PAPER_NAMES and metric in each.metrics
        }
        if len(ours) < 2:
            continue
        theirs = {name: paper[PAPER_NAMES[name]][metric] for name in ours}
        by_ours, by_theirs = sorted(ours, key=ours.__getitem__), sorted(theirs, key=theirs.__getitem__)
        same = "as here" if by_ours == by_theirs else f"here {' < '.join(by_ours)}"
        parts.append(f"{titled(metric)} {' < '.join(by_theirs)} ({same})")
    if not parts:
        return ""
    return (
        f"The paper's table 4 (Llama 3.2 3B, flan-t5-base, bert-base: other sizes, texts and bodies) has "
        f"{'; '.join(parts)}."
    )
