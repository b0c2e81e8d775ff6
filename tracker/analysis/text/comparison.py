"""Sentences about models side by side, against the paper's tables, and about two stores."""

from collections.abc import Sequence

from tracker.analysis.comparison import Archetype, Column, Difference, StoreDifference
from tracker.analysis.comparison_timing import ModelTransition
from tracker.analysis.paper_ranges import Placed
from tracker.analysis.paper_tables import TRAINING_TABLE, PaperRow
from tracker.analysis.text import listed, number, titled
from tracker.analysis.text.transitions import dated, lag_order, move_words

MOST_DIFFERENCES = 2
CAUTION = (
    "The paper leaves its signal, length and scaling open, and its tables 5 and 6 differ on the same final "
    "6.9b (scale sensitivity 0.740 and 0.062), so a deviation may lie in conventions as well as in models."
)

MOST_NAMED = 3


def timing_sentences(found: Sequence[ModelTransition]) -> list[str]:
    """Say when every model's transition is half way, from where to where, and which comes first."""
    moving = [each for each in found if each.structure is not None]
    if not moving:
        return ["No model has a transition beyond noise."]
    parts = []
    for each in moving:
        assert each.structure is not None
        moves = ", ".join(move_words(name, move) for name, move in each.moves.items())
        order = "" if each.lag is None else f", {lag_order(each.lag, f'that of {moving[0].model}')}"
        parts.append(f"{each.model} half way in {dated(each.structure.half)}{order} ({moves})")
    still = [each.model for each in found if each.structure is None]
    without = f"; none beyond noise in {', '.join(still)}" if still else ""
    return [f"Transitions: {'; '.join(parts)}{without}."]


def archetype_sentences(archetypes: Sequence[Archetype]) -> list[str]:
    """Name the archetype of every model that has one, and the limits."""
    parts = [
        f"{each.model} {each.kind} (averaged spectral entropy {number(each.entropy or 0)}, sd over heads "
        f"{number(each.entropy_over_heads or 0)}; selectivity {number(each.selectivity or 0)})"
        for each in archetypes
        if each.kind
    ]
    if not parts:
        return []
    return [f"Heads: {'; '.join(parts)}. {archetype_limits(archetypes)}"]


def archetype_limits(archetypes: Sequence[Archetype]) -> str:
    """Say where archetypes part; empty where there are none."""
    if not archetypes:
        return ""
    limits = archetypes[0].limits
    return (
        f"Heads are specialised from an sd of {number(limits.entropy_over_heads)}, broad below a selectivity "
        f"of {number(limits.selectivity)}: half of the least in the paper's table 3."
    )


def _sure(found: Sequence[Column], gaps: Sequence[Difference]) -> list[Difference]:
    """What differs so that it matters from the smallest to the largest model, relatively largest first."""
    first, last = found[0], found[-1]

    def relative(gap: Difference) -> float:
        largest = max(abs(column.samples[gap.metric].value) for column in (first, last))
        return abs(gap.difference) / max(largest, 1e-12)

    ends = [gap for gap in gaps if (gap.first, gap.second) == (first.model, last.model) and gap.matters]
    return sorted(ends, key=relative, reverse=True)


def difference_sentence(found: Sequence[Column], gaps: Sequence[Difference]) -> str:
    """Say what differs so that it matters, from the smallest to the largest model."""
    first, last = found[0], found[-1]
    parts = [
        f"{titled(gap.metric)} {number(first.samples[gap.metric].value)} to "
        f"{number(last.samples[gap.metric].value)} (difference {number(gap.difference)} ± "
        f"{number(gap.half or 0.0)})"
        for gap in _sure(found, gaps)
    ]
    head = (
        f"Differences of a tenth or more that are sure at 95% for all {len(gaps)} comparisons "
        f"together: {sum(gap.matters for gap in gaps)}"
    )
    if parts:
        return f"{head}. From {first.model} to {last.model}: {'; '.join(parts)}."
    return f"{head}. Between {first.model} and {last.model}: none."


def difference_line(found: Sequence[Column], gaps: Sequence[Difference]) -> str:
    """Say in one line how many differences matter, and which most from the smallest to the largest model."""
    sure = [f"{titled(gap.metric)} {gap.difference:+.2g}" for gap in _sure(found, gaps)[:MOST_DIFFERENCES]]
    ends = f"; {found[0].model} to {found[-1].model}: {', '.join(sure)}" if sure else ""
    return (
        f"{sum(gap.matters for gap in gaps)} of {len(gaps)} differences are sure and a tenth or more{ends}."
    )


def paper_sentences(rows: Sequence[PaperRow]) -> list[str]:
    """Put the deviations from the paper into words, model by model, and why they may be there."""
    if not rows:
        return ["The paper's tables name none of these models."]
    sentences = []
    for model in dict.fromkeys(row.model for row in rows):
        parts = [
            f"{titled(row.metric)} {number(row.ours)} against {number(row.paper)}"
            f"{f' at step {row.step}' if row.table == TRAINING_TABLE else ''}: {row.words}"
            for row in rows
            if row.model == model
        ]
        sentences.append(f"{model} against the paper: {'; '.join(parts)}.")
    return [*sentences, CAUTION]


def range_sentences(placed: Sequence[Placed]) -> list[str]:
    """Say which signal of each model lies among the paper's trained models, and in which metrics."""
    return [
        f"{model} among the paper's models of 410M and more (tables 1, 2, 3 and 6): "
        f"averaged {_places(model, placed, True)}; rows {_places(model, placed, False)}."
        for model in dict.fromkeys(each.model for each in placed)
    ]


def _places(model: str, placed: Sequence[Placed], averaged: bool) -> str:
    mine = [
        each for each in placed if each.model == model and each.metric.startswith("averaged_") == averaged
    ]
    middle = sum(each.place == "middle half" for each in mine)
    within = sum(each.place == "range" for each in mine)
    outside = [each.metric.removeprefix("averaged_") for each in mine if each.place in ("below", "above")]
    others = f" ({listed(outside)})" if 0 < len(outside) <= MOST_NAMED else ""
    return (
        f"{middle} of {len(mine)} metrics in their middle half, {within} more in their range, "
        f"{len(outside)} outside{others}"
    )


def store_sentences(rows: Sequence[StoreDifference]) -> list[str]:
    """Say, per metric, at how many checkpoints two stores differ, and where most."""
    sentences = []
    for name in dict.fromkeys(row.metric for row in rows):
        mine = [row for row in rows if row.metric == name]
        apart = [row for row in mine if not row.same]
        if not apart:
            sentences.append(f"{titled(name)}: the same at all {len(mine)} checkpoints.")
            continue
        most = max(apart, key=lambda row: abs(row.difference))
        sentences.append(
            f"{titled(name)}: differs at {len(apart)} of {len(mine)} checkpoints, "
            f"{sum(row.sure for row in apart)} of them beyond the 95% interval over sequences; most in "
            f"{most.model} seed {most.seed} step {most.step}: {number(most.ours)} here, "
            f"{number(most.other)} there."
        )
    return sentences
