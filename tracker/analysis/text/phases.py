"""Sentences about phases: what was found, with its numbers, or what is missing and what to measure."""

from collections import Counter
from collections.abc import Sequence

from tracker.analysis.labels import label_columns
from tracker.analysis.schema import (
    ChangeContext,
    ChangePoint,
    Controls,
    RunPhases,
    RunTransitions,
    SeedChanges,
    ThresholdEntry,
)
from tracker.analysis.text.scale import scale_summary
from tracker.analysis.text.transitions import (
    context_sentence,
    dated,
    move_words,
    nothing_moves,
    span,
    turn_words,
)
from tracker.analysis.transition_types import CurveTransitions
from tracker.errors import counted

ONE_RUN = "One run of each model: only further seeds show whether a wobble is repeated."
MOST_TWINS = 3
"""Pairs that should be twins and are not, named one by one."""


def _bracket(point: ChangePoint) -> str:
    own = (point.step_low, point.step_high)
    wide = f" (90%: {span(point.interval)})" if point.interval not in (None, own) else ""
    return f"{span(own)}{wide}"


def starts(entry: RunPhases, label: str) -> ChangePoint | None:
    """Return the change point that the first phase of that name begins with; None without such a phase."""
    first = next((phase.first_step for phase in entry.phases if phase.label == label), None)
    return next((point for point in entry.change_points if point.step_high == first), None)


def _moves(entry: RunPhases, found: RunTransitions) -> list[str]:
    """What entropy and selectivity do; without them every metric that moves."""
    main = found.structure.main
    assert main is not None
    columns = label_columns(list(found.curves)) or entry.metrics
    moves = [(name, found.curves[name].during(main)) for name in columns if name in found.curves]
    return [f"{move_words(name, move)} with half in {dated(move.half)}" for name, move in moves if move]


def _told(entry: RunPhases, found: RunTransitions) -> str:
    main = found.structure.main
    assert main is not None
    begins = starts(entry, "exploratory") if main.direction == "up" else None
    moves = _moves(entry, found)
    parts = [f"exploratory phase from step {_bracket(begins)}"] if begins else []
    if not begins:
        parts.append(f"transition from step {dated(main.onset)} to {dated(main.end)}")
    parts[0] += f", {main.pace}" if main.pace != "unclear" else ""
    if moves:
        parts.append(", ".join(moves))
    turn = found.structure.ending_at(main)
    later = starts(entry, "specialisation")
    if turn is not None:
        parts.append(("specialisation after it: " if later else "") + turn_words(turn))
    elif main.open_end:
        parts.append("it may go on after the last checkpoint")
    else:
        parts.append("no way back beyond noise")
    parts += _other_moves(found.structure)
    if begins is None and label_columns(list(found.curves)) is None:
        parts.append("labels need spectral entropy and selectivity")
    return "; ".join(parts)


def _other_moves(structure: CurveTransitions) -> list[str]:
    """Moves that the page shows without a name: neither the transition nor the way back after it."""
    main = structure.main
    others = [move for move in structure.moves if move is not main and not structure.role_of(move)]
    where = [(move, span((move.onset.step_low, move.end.step_high))) for move in others]
    return [
        f"{'before' if main and move.half.step_high <= main.half.step_high else 'after'} it a smaller move "
        f"{'the other way ' if main and move.direction != main.direction else ''}in {place}"
        for move, place in where
    ]


def _left_out(entry: RunPhases) -> str:
    suspect = sum(each.reason.startswith("suspect") for each in entry.left_out)
    counts = [(len(entry.left_out) - suspect, "not measured"), (suspect, "found suspect by the audit")]
    parts = [f"{counted(count, 'checkpoint')} {why}" for count, why in counts if count]
    return f" Left out: {', '.join(parts)}." if parts else ""


def phase_sentence(entry: RunPhases, found: RunTransitions) -> str:
    """Say what one run shows, or why it shows nothing."""
    lost = _left_out(entry)
    if not entry.phases and not entry.note:
        why = "none of the metrics they need has a value" if entry.steps else "no checkpoint was measured"
        return f"{entry.name}: no phases, since {why}; run `tracker sweep`.{lost}"
    if entry.p_value is None:
        return f"{entry.name}: {entry.note or 'no phases'}.{lost}"
    note = f" ({entry.note})" if entry.note else ""
    if found.structure.moves:
        return f"{entry.name}: {_told(entry, found)}{note}.{lost}"
    known = {name: found.curves[name] for name in entry.metrics[:2] if name in found.curves}
    where = f"over {counted(len(entry.steps), 'checkpoint')}, steps {entry.steps[0]} to {entry.steps[-1]}"
    return f"{entry.name}: {nothing_moves(known, entry.p_value)}, {where}{note}.{lost}"


def _in_seeds(entries: Sequence[RunPhases], label: str) -> str:
    """``in 3 of 3 seeds, from step (16, 32] (2 seeds), (8, 16] (1 seed)``."""
    points = [point for entry in entries if (point := starts(entry, label)) is not None]
    counts = Counter(span((point.step_low, point.step_high)) for point in points).most_common()
    parts = ", ".join(f"{place} ({counted(count, 'seed')})" for place, count in counts)
    return f"in {len(points)} of {len(entries)} seeds" + (f", from step {parts}" if parts else "")


def _mean_of_seeds(entry: SeedChanges) -> str:
    """What the mean over seeds does, with the spread between them as its noise."""
    main = entry.structure.main
    if main is None:
        return f"mean of {len(entry.seeds)} seeds: no transition beyond what seeds differ by"
    columns = label_columns(list(entry.curves)) or ()
    moves = [(name, entry.curves[name].during(main)) for name in columns]
    parts = [f"mean of {len(entry.seeds)} seeds: onset in {dated(main.onset)}"]
    parts += [f"{move_words(name, move)} with half in {dated(move.half)}" for name, move in moves if move]
    turn = entry.structure.ending_at(main)
    return ", ".join(parts) + (f", {turn_words(turn)}" if turn else "")


def seeds_sentence(entries: Sequence[RunPhases], together: SeedChanges | None) -> str:
    """Say what the seeds of one model show together, and how far they agree."""
    mean = f"; {_mean_of_seeds(together)}" if together is not None and together.curves else ""
    return (
        f"{entries[0].model}, {len(entries)} seeds: exploratory phase {_in_seeds(entries, 'exploratory')}; "
        f"specialisation {_in_seeds(entries, 'specialisation')}{mean}."
    )


def summary_of(
    phases: Sequence[RunPhases], thresholds: Sequence[ThresholdEntry], seeds: Sequence[SeedChanges] = ()
) -> list[str]:
    """Return the sentences that matter: every model's, every break's, and for the rest one per suite."""
    models: dict[tuple[str, str], list[RunPhases]] = {}
    for entry in phases:
        models.setdefault((entry.suite, entry.model), []).append(entry)
    together = {(entry.suite, entry.model): entry for entry in seeds}
    sentences = [
        entries[0].sentence if len(entries) == 1 else seeds_sentence(entries, together.get(model))
        for model, entries in models.items()
    ]
    if (
        models
        and all(len(entries) == 1 for entries in models.values())
        and any(e.change_points for e in phases)
    ):
        return [*sentences, *scale_summary(thresholds), ONE_RUN]
    return [*sentences, *scale_summary(thresholds)]


def control_sentences(controls: Controls) -> list[str]:
    """Say whether checkpoints with the same weights measure alike."""
    twins = controls.twins
    apart = [twin for twin in twins if not twin.same]
    if twins and not apart:
        return [f"Controls: all {len(twins)} pairs of checkpoints with the same weights measure alike."]
    sentences = [
        f"Controls: {twin.model} seed {twin.seed} of {' and '.join(sorted(set(twin.suites)))}, "
        f"steps {twin.steps[0]} and {twin.steps[1]}, should hold the same weights but "
        f"{twin.metric} differs by {twin.difference:.2g} of its value: audit them."
        for twin in apart[:MOST_TWINS]
    ]
    if len(apart) > MOST_TWINS:
        sentences.append(f"Controls: so do {len(apart) - MOST_TWINS} more pairs (analysis.json, controls).")
    return sentences


def lead_lag_sentences(entries: Sequence[ChangeContext]) -> list[str]:
    """Say for every run what moves before, with and after its transition."""
    sentences = [sentence for entry in entries if (sentence := context_sentence(entry))]
    return [*sentences, "Temporal order does not imply causation."] if sentences else []
