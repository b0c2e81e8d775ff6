"""Sentences for people: what was found, with its numbers, or what cannot be said and what to measure."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from tracker.analysis.labels import RECOVERY, label_columns
from tracker.analysis.phases import ChangePoint, Phase, Phases
from tracker.analysis.thresholds import Verdict
from tracker.analysis.trajectories import Trajectory
from tracker.columns import BY_NAME, title_of

Entry = dict[str, Any]
TOLD_OVER_FEW_SIZES = ("frequency_selectivity", "averaged_scale_sensitivity_0.5")
"""Metrics whose plain trend the summary tells where the sizes are too few for a threshold."""


def _number(value: float) -> str:
    return f"{value:.3g}"


def size_name(parameters: float) -> str:
    """A model size for people: 12300 -> 12.3k, 85056000 -> 85.1M."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if parameters >= unit:
            return f"{parameters / unit:.3g}{name}"
    return f"{parameters:.3g}"


def _titled(column: str) -> str:
    known = column.removeprefix("averaged_") in BY_NAME
    title = title_of(column) if known else column
    return title[0].lower() + title[1:]


def _bracket(point: ChangePoint) -> str:
    sure = "" if point.confidence is None else f" (in {point.confidence:.0%} of resamples)"
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
        f"selectivity lowest ({_number(low['extremum'])}) at step {low['extremum_step']}, "
        f"entropy highest ({_number(high['extremum'])}) at step {high['extremum_step']}"
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
        f"(to {_number(entropy)}) and selectivity {back[1]:.0%} (to {_number(selectivity)}); "
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
    doubted = sum(reason.startswith("suspect") for _, reason in run.left_out)
    holes = len(run.left_out) - doubted
    parts = [f"{holes} checkpoints that were not measured"] if holes else []
    parts += [f"{doubted} that an audit found suspect"] if doubted else []
    return f" Left out: {' and '.join(parts)}." if parts else ""


def phase_sentence(run: Trajectory, found: Phases | None) -> str:
    """What one run shows, or why it shows nothing."""
    lost = _left_out(run)
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


def _trend(entry: Entry) -> str:
    """In words how the values go over the sizes, with the spread over sequences at both ends."""
    values, models, spread = (entry[key] for key in ("values", "models", "spread"))
    if len(values) < 2:
        return ""
    rises = np.diff(np.asarray(values, dtype=float))
    way = "rises" if values[-1] > values[0] else "falls"
    steady = bool(np.all(rises > 0) or np.all(rises < 0))
    path = f"{way} from size to size" if steady else f"{way} from end to end, not at every size"

    def end(at: int) -> str:
        sd = "" if spread[at] is None else f" (sd over sequences {_number(spread[at])})"
        return f"{_number(values[at])}{sd} in {models[at]}"

    return f" Over the {len(values)} sizes it {path}: {end(0)} to {end(-1)}."


def threshold_sentence(entry: Entry, verdict: Verdict | None) -> str:
    """What one metric shows over model size at the last common step."""
    title = _titled(str(entry["metric"]))
    if verdict is None:
        return f"{title}: no threshold can be told, the models share no measured step: measure one in all."
    where = f"at step {entry['step']}"
    if not verdict.sizes:
        return (
            f"{title} {where}: no threshold can be told, it has no value there in any model of known size: "
            "measure checkpoints where it is defined."
        )
    found = verdict.found
    if found is None:
        return f"{title} {where}: {verdict.reason}.{_trend(entry)}"
    values, scale = (np.asarray(entry[key], dtype=float) for key in ("values", "scale"))
    below, above = values[scale <= found.low].mean(), values[scale >= found.high].mean()
    return (
        f"{title} {where} breaks between {size_name(found.low)} and {size_name(found.high)} non-embedding "
        f"parameters: {_number(below)} up to there, {_number(above)} beyond; {verdict.reason}."
    )


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
        f"; selectivity lowest at {_number(values[0])} to {_number(values[-1])}, "
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


def summary_of(phases: list[Entry], thresholds: list[Entry]) -> list[str]:
    """The sentences that matter: every model's, every break's, and for the rest one per suite."""
    sentences = _runs_told(phases)
    sentences += [str(entry["sentence"]) for entry in thresholds if entry["low"] is not None]
    for suite in dict.fromkeys(entry["suite"] for entry in thresholds):
        quiet = [entry for entry in thresholds if entry["suite"] == suite and entry["low"] is None]
        sizes = max((len(entry["models"]) for entry in quiet), default=0)
        if not quiet:
            continue
        if 2 <= sizes < 8:
            told = [entry for entry in quiet if entry["models"]]
            first = [entry for entry in told if entry["metric"] in TOLD_OVER_FEW_SIZES] or told[:1]
            sentences += [str(entry["sentence"]) for entry in first]
        elif sizes < 2:
            sentences.append(f"{suite}: {sizes} model size{'s' * (sizes != 1)} measured, so nothing can be "
                             "said about size: measure at least 8.")  # fmt: skip
        else:
            names = ", ".join(_titled(entry["metric"]) for entry in quiet if len(entry["models"]) == sizes)
            sentences.append(f"{suite}: no break over {sizes} model sizes in {names}.")
    return sentences
