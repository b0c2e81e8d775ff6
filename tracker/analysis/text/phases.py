"""Sentences about phases: what was found, with its numbers, or what is missing and what to measure."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from tracker.analysis.labels import RECOVERY, label_columns
from tracker.analysis.schema import (
    ChangeContext,
    ChangePoint,
    Controls,
    Phase,
    RunPhases,
    SeedChanges,
    ThresholdEntry,
)
from tracker.analysis.text import number, titled
from tracker.analysis.text.scale import scale_summary
from tracker.errors import counted

MOST_TWINS = 3
"""Pairs that should be twins and are not, named one by one."""
VERDICTS = {
    "before": "before", "with": "with", "after": "after", "still": "no change of direction",
    "cannot tell": "unclear",
}  # fmt: skip
"""Verdicts of a lag and how sentences call them."""
Pick = Callable[[Iterable[float]], float]


def _bracket(point: ChangePoint) -> str:
    parts = []
    if point.confidence is not None:
        parts.append(f"bootstrap support {point.confidence:.0%}")
    if point.interval is not None:
        low, high = point.interval
        here = (low, high) == (point.step_low, point.step_high)
        parts.append("90% interval: the same bracket" if here else f"90% interval ({low}, {high}]")
    support = f" ({', '.join(parts)})" if parts else ""
    return f"({point.step_low}, {point.step_high}]{support}"


def _start(found: RunPhases, phase: Phase) -> str:
    return next(_bracket(point) for point in found.change_points if point.step_high == phase.first_step)


def _extremum(phases: Sequence[Phase]) -> str:
    """Where selectivity is lowest and entropy highest over ``phases``; empty where neither is measured."""
    columns = label_columns(list(phases[0].evidence))
    if columns is None:
        return ""
    high = max((phase.evidence[columns[0]] for phase in phases), key=lambda each: each.extremum)
    low = min((phase.evidence[columns[1]] for phase in phases), key=lambda each: each.extremum)
    return (
        f"selectivity minimum {number(low.extremum)} at step {low.extremum_step}, "
        f"entropy maximum {number(high.extremum)} at step {high.extremum_step}"
    )


def _recovered(phases: Sequence[Phase], column: str, pick: Pick) -> float:
    """Share of the way from the first checkpoint to the extremum that is lost again at the last; 0 to 1."""
    first, last = phases[0].evidence[column].first, phases[-1].evidence[column].last
    extremum = pick(phase.evidence[column].extremum for phase in phases)
    return max(0.0, (extremum - last) / (extremum - first)) if extremum != first else 0.0


def _recovery(phases: Sequence[Phase]) -> str:
    """How far selectivity and entropy have come back by the last checkpoint."""
    columns = label_columns(list(phases[0].evidence))
    if columns is None:
        return ""
    entropy, selectivity = (phases[-1].evidence[name].last for name in columns)
    back = [_recovered(phases, name, pick) for name, pick in zip(columns, (max, min), strict=True)]
    return (
        f"by step {phases[-1].last_step} entropy has recovered {back[0]:.0%} of its rise "
        f"(to {number(entropy)}) and selectivity {back[1]:.0%} of its drop (to {number(selectivity)}); "
        f"a specialisation phase needs a recovery of {RECOVERY:.0%} on average"
    )


def _labelled(found: RunPhases) -> str:
    exploring = [phase for phase in found.phases if phase.label == "exploratory"]
    later = [phase for phase in found.phases if phase.label == "specialisation"]
    if not exploring:
        places = ", ".join(_bracket(point) for point in found.change_points)
        if label_columns(found.metrics) is None:
            return f"change points: {places}; labels need spectral entropy and selectivity"
        return (
            f"change points: {places}; none begins an exploratory phase: selectivity does not fall to a "
            f"minimum while entropy rises to a maximum; {_extremum(found.phases)}"
        )
    parts = [f"exploratory phase from step {_start(found, exploring[0])}", _extremum(exploring)]
    if later:
        parts.append(f"specialisation from {_start(found, later[0])}")
    elif all(phase.peak_step is None for phase in exploring):
        parts.append("the extremum is the last checkpoint, so a recovery needs later ones")
    else:
        parts.append(_recovery(found.phases))
    named = {_start(found, phase) for phase in [*exploring[:1], *later[:1]]}
    others = [place for place in map(_bracket, found.change_points) if place not in named]
    if others:
        parts.append(f"further change points: {', '.join(others)}")
    return "; ".join(parts)


def _left_out(entry: RunPhases) -> str:
    suspect = sum(each.reason.startswith("suspect") for each in entry.left_out)
    counts = [(len(entry.left_out) - suspect, "not measured"), (suspect, "found suspect by the audit")]
    parts = [f"{counted(count, 'checkpoint')} {why}" for count, why in counts if count]
    return f" Left out: {', '.join(parts)}." if parts else ""


def phase_sentence(entry: RunPhases) -> str:
    """Say what one run shows, or why it shows nothing."""
    lost = _left_out(entry)
    if not entry.phases and not entry.note:
        why = "none of the metrics they need has a value" if entry.steps else "no checkpoint was measured"
        return f"{entry.name}: no phases, since {why}; run `tracker sweep`.{lost}"
    note = f" ({entry.note})" if entry.note and entry.p_value is not None else ""
    if entry.change_points:
        text = _labelled(entry)
    elif entry.p_value is None:
        text = entry.note or "no phases"
    else:
        text = (
            f"no phase change over {len(entry.steps)} checkpoints (steps {entry.steps[0]} to "
            f"{entry.steps[-1]}) beyond noise or a smooth drift (p = {entry.p_value:.2f})"
        )
        text = "; ".join(each for each in (text, _extremum(entry.phases)) if each)
    return f"{entry.name}: {text}{note}.{lost}"


def _starts(entries: Sequence[RunPhases], label: str) -> list[str]:
    """The bracket in which the first phase of that name starts, for each run that has one."""
    places = []
    for entry in entries:
        first = next((phase.first_step for phase in entry.phases if phase.label == label), None)
        point = next((each for each in entry.change_points if each.step_high == first), None)
        if point is not None:
            places.append(f"({point.step_low}, {point.step_high}]")
    return places


def _in_seeds(places: list[str], runs: int) -> str:
    """``in 3 of 3 seeds, from step (16, 32] (2 seeds), (8, 16] (1 seed)``."""
    counts = Counter(places).most_common()
    parts = ", ".join(f"{place} ({counted(count, 'seed')})" for place, count in counts)
    return f"in {len(places)} of {runs} seeds" + (f", from step {parts}" if parts else "")


def _lowest(entries: Sequence[RunPhases], column: str) -> str:
    found = [
        min((phase.evidence[column] for phase in entry.phases), key=lambda each: each.extremum)
        for entry in entries
        if entry.phases and column in entry.phases[0].evidence
    ]
    if not found:
        return ""
    values, steps = sorted(each.extremum for each in found), sorted(each.extremum_step for each in found)
    return (
        f"; selectivity minimum {number(values[0])} to {number(values[-1])}, "
        f"at steps {steps[0]} to {steps[-1]}"
    )


def _recoveries(entries: Sequence[RunPhases], columns: tuple[str, str] | None) -> str:
    """How far the seeds have come back from their extremum by their last checkpoint."""
    measured = [entry.phases for entry in entries if entry.phases]
    if columns is None or not measured:
        return ""
    spans = []
    for name, pick, word in zip(columns, (max, min), ("entropy", "selectivity"), strict=True):
        shares = sorted(_recovered(phases, name, pick) for phases in measured)
        spans.append(f"{word} {shares[0]:.0%} to {shares[-1]:.0%}")
    return f" (recovered by the last checkpoint: {', '.join(spans)})"


def seeds_sentence(entries: Sequence[RunPhases]) -> str:
    """Say what the seeds of one model show together, and how far they agree."""
    runs, first = len(entries), entries[0]
    columns = label_columns(first.metrics)
    lowest = _lowest([e for e in entries if _starts([e], "exploratory")], columns[1]) if columns else ""
    return (
        f"{first.model}, {runs} seeds: exploratory phase "
        f"{_in_seeds(_starts(entries, 'exploratory'), runs)}{lowest}; "
        f"specialisation {_in_seeds(_starts(entries, 'specialisation'), runs)}"
        f"{_recoveries(entries, columns)}."
    )


def _per_model(phases: Sequence[RunPhases]) -> list[str]:
    """One sentence per model: the run's own, or where there are several seeds what they show together."""
    models: dict[tuple[str, str], list[RunPhases]] = {}
    for entry in phases:
        models.setdefault((entry.suite, entry.model), []).append(entry)
    return [
        entries[0].sentence if len(entries) == 1 else seeds_sentence(entries) for entries in models.values()
    ]


def _mean_curve(entry: SeedChanges) -> str:
    """What the seeds of a model show as one curve."""
    count = len(entry.seeds)
    places = [
        f"({point.reach[0]}, {point.reach[1]}] ({point.seeds} of {count} seeds agree)"
        for point in entry.change_points
    ]
    return f"{entry.model}, mean of {count} seeds: changes at 90% over seeds in {', '.join(places)}."


def summary_of(
    phases: Sequence[RunPhases], thresholds: Sequence[ThresholdEntry], seeds: Sequence[SeedChanges] = ()
) -> list[str]:
    """Return the sentences that matter: every model's, every break's, and for the rest one per suite."""
    means = [_mean_curve(entry) for entry in seeds if entry.change_points]
    return [*_per_model(phases), *means, *scale_summary(thresholds)]


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


def lead_lag_sentences(entries: Sequence[ChangeContext], covariates: Sequence[str]) -> list[str]:
    """Count, per suite and covariate, how often it changes before, with or after; and how heads share it."""
    sentences = []
    for suite in dict.fromkeys(entry.suite for entry in entries):
        mine = [entry for entry in entries if entry.suite == suite]
        runs = len({(entry.model, entry.seed) for entry in mine})
        parts = []
        for name in covariates:
            counts = Counter(entry.covariates[name].verdict for entry in mine if name in entry.covariates)
            words = [f"{counts[verdict]} {word}" for verdict, word in VERDICTS.items() if counts[verdict]]
            if words:
                parts.append(f"{titled(name)} {', '.join(words)}")
        if parts:
            sentences.append(
                f"{suite}, {counted(len(mine), 'change')} in {counted(runs, 'run')}; covariates change "
                f"before, with or after: {'; '.join(parts)}. Temporal order does not imply causation."
            )
        sentences += _contributions(suite, mine)
    return sentences


def _contributions(suite: str, entries: Sequence[ChangeContext]) -> list[str]:
    found = [entry.contributions.get("frequency_selectivity") for entry in entries]
    shares = [each.half_by / each.of for each in found if each is not None]
    if not shares:
        return []
    return [
        f"{suite}: half of a change of frequency selectivity is accounted for by {min(shares):.0%} to "
        f"{max(shares):.0%} of the heads (50% if all changed equally)."
    ]
