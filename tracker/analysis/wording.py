"""Sentences about phases: what was found, with its numbers, or what cannot be said and what to measure."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tracker.analysis.labels import RECOVERY, label_columns
from tracker.analysis.phases import ChangePoint, Phase, Phases
from tracker.analysis.scale_wording import scale_summary
from tracker.analysis.trajectories import Trajectory
from tracker.analysis.words import number

Entry = dict[str, Any]
MOST_TWINS = 3
"""Pairs that should be twins and are not, named one by one."""


def _bracket(point: ChangePoint) -> str:
    told = []
    if point.confidence is not None:
        told.append(f"in {point.confidence:.0%} of resamples")
    if point.interval is not None:
        low, high = point.interval
        here = (low, high) == (point.step_low, point.step_high)
        told.append("at 90% in this gap" if here else f"at 90% in ({low}, {high}]")
    sure = f" ({', '.join(told)})" if told else ""
    return f"({point.step_low}, {point.step_high}]{sure}"


def _start(found: Phases, phase: Phase) -> str:
    return next(_bracket(point) for point in found.change_points if point.step_high == phase.first_step)


def _extremum(phases: Sequence[Phase]) -> str:
    """Where selectivity is lowest and entropy highest over ``phases``; empty where neither is measured."""
    columns = label_columns(list(phases[0].evidence))
    if columns is None:
        return ""
    high = max((phase.evidence[columns[0]] for phase in phases), key=lambda each: each["extremum"])
    low = min((phase.evidence[columns[1]] for phase in phases), key=lambda each: each["extremum"])
    return (
        f"selectivity lowest ({number(low['extremum'])}) at step {low['extremum_step']}, "
        f"entropy highest ({number(high['extremum'])}) at step {high['extremum_step']}"
    )


def _returned(phases: Sequence[dict[str, dict[str, Any]]], column: str, pick: Any) -> float:
    """Share of the way from the first checkpoint to the extremum that is lost again at the last; 0 to 1."""
    first, last = phases[0][column]["first"], phases[-1][column]["last"]
    extremum = pick(each[column]["extremum"] for each in phases)
    return max(0.0, (extremum - last) / (extremum - first)) if extremum != first else 0.0


def _recovery(phases: Sequence[Phase]) -> str:
    """How far selectivity and entropy have come back by the last checkpoint."""
    evidence = [phase.evidence for phase in phases]
    columns = label_columns(list(evidence[0]))
    if columns is None:
        return ""
    entropy, selectivity = (evidence[-1][name]["last"] for name in columns)
    back = [_returned(evidence, name, pick) for name, pick in zip(columns, (max, min), strict=True)]
    return (
        f"by step {phases[-1].last_step} entropy has come back {back[0]:.0%} of the way "
        f"(to {number(entropy)}) and selectivity {back[1]:.0%} (to {number(selectivity)}); "
        f"a phase of its own needs {RECOVERY:.0%} on average over it"
    )


def _labelled(found: Phases) -> str:
    exploring = [phase for phase in found.phases if phase.label == "exploratory"]
    later = [phase for phase in found.phases if phase.label == "specialisation"]
    if not exploring:
        places = ", ".join(_bracket(point) for point in found.change_points)
        if label_columns(found.metrics) is None:
            return f"levels change in {places}; without spectral entropy and selectivity phases have no names"
        return (
            f"levels change in {places}, but selectivity does not fall while entropy rises to an extremum "
            f"there, so no phase is called exploratory; {_extremum(found.phases)}"
        )
    parts = [f"exploratory phase from step {_start(found, exploring[0])}", _extremum(exploring)]
    if later:
        parts.append(f"specialisation from {_start(found, later[0])}")
    elif all(phase.peak_step is None for phase in exploring):
        parts.append("the extremum is the last checkpoint, so a recovery cannot be told: measure later ones")
    else:
        parts.append(_recovery(found.phases))
    named = {_start(found, phase) for phase in [*exploring[:1], *later[:1]]}
    others = [place for place in map(_bracket, found.change_points) if place not in named]
    if others:
        parts.append(f"levels or slopes change in {', '.join(others)} too")
    return "; ".join(parts)


def _left_out(run: Trajectory) -> str:
    suspect = sum(reason.startswith("suspect") for _, reason in run.left_out)
    counts = [(len(run.left_out) - suspect, "not measured"), (suspect, "found suspect by the audit")]
    told = [f"{count} checkpoint{'s' * (count != 1)} {why}" for count, why in counts if count]
    return f" Left out: {', '.join(told)}." if told else ""


def _second(opinion: Entry | None) -> str:
    """What the hidden Markov model says about the changes found."""
    if opinion is None or not opinion["changes"]:
        return ""
    return (
        f" A hidden Markov model parts the run into {opinion['states']} states and agrees on "
        f"{opinion['agreeing']} of {opinion['changes']} changes."
    )


def phase_sentence(run: Trajectory, found: Phases | None, opinion: Entry | None = None) -> str:
    """What one run shows, or why it shows nothing."""
    lost = _second(opinion) + _left_out(run)
    if found is None:
        what = "none of the metrics they need has a value" if len(run.steps) else "no checkpoint was measured"
        return f"{run.name}: no phases can be told, {what}; `tracker sweep` measures them.{lost}"
    note = f" ({found.note})" if found.note and found.p_value is not None else ""
    if found.change_points:
        text = _labelled(found)
    elif found.p_value is None:
        text = found.note or "no phases can be told"
    else:
        text = (
            f"no phase change over {len(found.steps)} checkpoints (steps {found.steps[0]} to "
            f"{found.steps[-1]}) that noise or a smooth drift does not explain (p = {found.p_value:.2f})"
        )
        text = "; ".join(each for each in (text, _extremum(found.phases)) if each)
    return f"{run.name}: {text}{note}.{lost}"


def _starts(entries: list[Entry], label: str) -> list[str]:
    """The bracket in which the first phase of that name starts, for each run that has one."""
    places = []
    for entry in entries:
        first = next((each["first_step"] for each in entry["phases"] if each["label"] == label), None)
        point = next((each for each in entry["change_points"] if each["step_high"] == first), None)
        if point is not None:
            places.append(f"({point['step_low']}, {point['step_high']}]")
    return places


def _counted(places: list[str], runs: int) -> str:
    """``in 3 of 3 seeds, from step (16, 32] (2 seeds), (8, 16] (1 seed)``."""
    counts = Counter(places).most_common()
    told = ", ".join(f"{place} ({count} seed{'s' * (count != 1)})" for place, count in counts)
    return f"in {len(places)} of {runs} seeds" + (f", from step {told}" if told else "")


def _lowest(entries: list[Entry], column: str) -> str:
    found = [
        min((phase["evidence"][column] for phase in entry["phases"]), key=lambda each: each["extremum"])
        for entry in entries
        if entry["phases"] and column in entry["phases"][0]["evidence"]
    ]
    if not found:
        return ""
    values, steps = (sorted(each[key] for each in found) for key in ("extremum", "extremum_step"))
    return (
        f"; selectivity lowest at {number(values[0])} to {number(values[-1])}, "
        f"at steps {steps[0]} to {steps[-1]}"
    )


def seeds_sentence(entries: list[Entry]) -> str:
    """What the seeds of one model show together, and how far they agree."""
    runs = len(entries)
    columns = label_columns(list(entries[0]["metrics"]))
    lowest = _lowest([e for e in entries if _starts([e], "exploratory")], columns[1]) if columns else ""
    return (
        f"{entries[0]['model']}, {runs} seeds: exploratory phase "
        f"{_counted(_starts(entries, 'exploratory'), runs)}{lowest}; "
        f"specialisation {_counted(_starts(entries, 'specialisation'), runs)}{_returns(entries, columns)}."
    )


def _returns(entries: list[Entry], columns: tuple[str, str] | None) -> str:
    """How far the seeds have come back from their extremum by their last checkpoint."""
    told = [[phase["evidence"] for phase in entry["phases"]] for entry in entries if entry["phases"]]
    if columns is None or not told:
        return ""
    spans = []
    for name, pick, word in zip(columns, (max, min), ("entropy", "selectivity"), strict=True):
        shares = sorted(_returned(evidence, name, pick) for evidence in told)
        spans.append(f"{word} {shares[0]:.0%} to {shares[-1]:.0%}")
    return f" (come back at the end, of the way to the extremum: {', '.join(spans)})"


def _runs_told(phases: list[Entry]) -> list[str]:
    """One sentence per model: the run's own, or where there are several seeds what they show together."""
    models: dict[tuple[str, str], list[Entry]] = {}
    for entry in phases:
        models.setdefault((entry["suite"], entry["model"]), []).append(entry)
    return [
        str(entries[0]["sentence"]) if len(entries) == 1 else seeds_sentence(entries)
        for entries in models.values()
    ]


def _together(entry: Entry) -> str:
    """What the seeds of a model show as one curve."""
    count = len(entry["seeds"])
    if not entry["change_points"]:
        return ""
    places = []
    for point in entry["change_points"]:
        low, high = point["interval"] or (point["step_low"], point["step_high"])
        places.append(f"({low}, {high}] ({point['seeds']} of {count} seeds agree)")
    return f"{entry['model']}, mean of {count} seeds: changes at 90% over seeds in {', '.join(places)}."


def control_sentences(controls: Entry) -> list[str]:
    """Whether the controls came out as they should."""
    sentences = []
    alarms = controls["false_alarms"]
    if alarms["permuted"]["curves"]:
        told = [f"{each['claimed']} of {each['curves']} {what}" for each, what in (
            (alarms["permuted"], "curves of the runs' own scatter in random order"),
            (alarms["resampled"], "flat curves with noise as large as theirs"))]  # fmt: skip
        sentences.append(f"Controls: a change is claimed in {' and '.join(told)}.")
    twins = controls["twins"]
    apart = [twin for twin in twins if not twin["same"]]
    if twins and not apart:
        sentences.append(
            f"Controls: all {len(twins)} pairs of checkpoints with the same weights measure alike."
        )
    for twin in apart[:MOST_TWINS]:
        sentences.append(
            f"Controls: {twin['model']} seed {twin['seed']} of {' and '.join(sorted(set(twin['suites'])))}, "
            f"steps {twin['steps'][0]} and {twin['steps'][1]}, should hold the same weights but "
            f"{twin['metric']} differs by {twin['difference']:.2g} of its value: audit them."
        )
    if len(apart) > MOST_TWINS:
        sentences.append(f"Controls: so do {len(apart) - MOST_TWINS} more pairs (analysis.json, controls).")
    return sentences


def summary_of(phases: list[Entry], thresholds: list[Entry], seeds: Sequence[Entry] = ()) -> list[str]:
    """The sentences that matter: every model's, every break's, and for the rest one per suite."""
    sentences = _runs_told(phases) + [told for entry in seeds if (told := _together(entry))]
    return sentences + scale_summary(thresholds)
