"""What a sweep found, in brief: a row per model and findings of one line each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from tracker.analysis.labels import label_columns
from tracker.analysis.scale_values import TURNING, TURNING_REPORTED
from tracker.analysis.schema import AnalysisReport, RunPhases, RunTransitions, SeedChanges, ThresholdEntry
from tracker.analysis.shift import STEP_LIKELY
from tracker.analysis.text import number, size_name, titled
from tracker.analysis.text.phases import starts
from tracker.analysis.text.scale import REPORTED_OVER_FEW_SIZES
from tracker.analysis.text.transitions import span
from tracker.analysis.thresholds import ENOUGH
from tracker.analysis.transition_types import Move
from tracker.errors import counted

SHOWN_NAMES = 16
"""Characters of models' names that a line lists."""
Names = tuple[str, str]


@dataclass(frozen=True)
class ModelRow:
    """One model in the table that a sweep ends with, its seeds together; empty texts where there is none."""

    model: str
    transition: str
    onset: str = ""
    half: str = ""
    end: str = ""
    interval: str = ""
    """From the onset to the end of the transition at 90 %; ``1000+`` where it may go on after the last."""
    selectivity: str = ""
    entropy: str = ""


def model_rows(report: AnalysisReport) -> list[ModelRow]:
    """Return a row per model of a report, in its order; the suite is named where there are several."""
    moves = {(each.suite, each.model, each.seed): each for each in report.transitions}
    means = {(each.suite, each.model): each for each in report.seeds}
    several = len({entry.suite for entry in report.phases}) > 1
    rows = []
    for (suite, model), members in groupby(report.phases, key=lambda entry: (entry.suite, entry.model)):
        runs = list(members)
        name = f"{suite} {model}" if several else model
        found: RunTransitions | SeedChanges | None = means.get((suite, model))
        if len(runs) == 1 or found is None:
            found = moves.get((suite, model, runs[0].seed))
        rows.append(_row(name, runs, found))
    return rows


def _row(name: str, runs: Sequence[RunPhases], found: RunTransitions | SeedChanges | None) -> ModelRow:
    main = None if found is None else found.structure.main
    if found is None and any(entry.change_points for entry in runs):
        return _row_of_phases(name, runs)
    if found is None or main is None:
        selectivity, entropy = _levels({}, runs)
        return ModelRow(name, _absence(runs), selectivity=selectivity, entropy=entropy)
    selectivity, entropy = _levels({name: each.during(main) for name, each in found.curves.items()}, runs)
    return ModelRow(
        name,
        _named(runs, main),
        onset=span((main.onset.step_low, main.onset.step_high)),
        half=span((main.half.step_low, main.half.step_high)),
        end="may go on" if main.open_end else span((main.end.step_low, main.end.step_high)),
        interval=f"({main.onset.interval[0]}, {main.end.interval[1]}{'+' * main.open_end}]",
        selectivity=selectivity,
        entropy=entropy,
    )


def _row_of_phases(name: str, runs: Sequence[RunPhases]) -> ModelRow:
    """A report of before transitions were stored: where the first change lies."""
    point = next(entry.change_points[0] for entry in runs if entry.change_points)
    selectivity, entropy = _levels({}, runs)
    onset = span((point.step_low, point.step_high))
    return ModelRow(name, _label(runs[0]), onset, selectivity=selectivity, entropy=entropy)


def _named(runs: Sequence[RunPhases], main: Move) -> str:
    """``exploratory, gradual``: the phase that the transition leads into, and its pace or its seeds."""
    labels = [_label(entry) for entry in runs]
    label = max(dict.fromkeys(labels), key=labels.count)
    if len(runs) > 1:
        return f"{label}, {labels.count(label)}/{len(runs)} seeds"
    return label if main.pace == "unclear" else f"{label}, {main.pace}"


def _label(entry: RunPhases) -> str:
    return next((each for each in ("exploratory", "specialisation") if starts(entry, each)), "transition")


def _absence(runs: Sequence[RunPhases]) -> str:
    if not any(entry.steps for entry in runs):
        return "not measured"
    return "too few checkpoints" if all(each.p_value is None for each in runs) else "none beyond noise"


def _levels(moves: Mapping[str, Move | None], runs: Sequence[RunPhases]) -> tuple[str, str]:
    """Selectivity and entropy before and after; without a move at the first and the last checkpoint."""
    columns = label_columns(list(moves)) or _evident(runs)
    if columns is None:
        return "", ""
    entropy, selectivity = (
        f"{number(move.start)} -> {number(move.finish)}" if (move := moves.get(name)) else _ends(name, runs)
        for name in columns
    )
    return selectivity, entropy


def _evident(runs: Sequence[RunPhases]) -> Names | None:
    return label_columns([name for entry in runs for phase in entry.phases[:1] for name in phase.evidence])


def _ends(name: str, runs: Sequence[RunPhases]) -> str:
    """A metric at the first and the last checkpoint, as means over the seeds that have both."""
    ends = [
        (entry.phases[0].evidence[name].first, entry.phases[-1].evidence[name].last)
        for entry in runs
        if entry.phases and all(name in phase.evidence for phase in (entry.phases[0], entry.phases[-1]))
    ]
    if not ends:
        return ""
    first, last = (sum(each) / len(ends) for each in zip(*ends, strict=True))
    return f"{number(first)} -> {number(last)}"


def findings(report: AnalysisReport) -> list[tuple[str, str]]:
    """Return what was found as (heading, one line): phases, size, controls, and what else there is."""
    lines = [
        ("Phases", _phases(report)),
        ("Size", _size(report.thresholds)),
        ("Timing", _timing(report.thresholds)),
        ("Encodings", _encodings(report)),
        ("Controls", _controls(report)),
        ("Left out", _left_out(report.phases)),
        ("Suspect", _suspicious(report)),
        ("Alerts", _alerts(report)),
    ]
    return [(heading, line) for heading, line in lines if line]


def _phases(report: AnalysisReport) -> str:
    runs = [entry for entry in report.phases if entry.steps]
    if not runs:
        return "No checkpoint is measured."
    tested = [entry for entry in runs if entry.p_value is not None]
    if not tested:
        return "Too few checkpoints to find transitions; measure more steps."
    thing = "model" if len({(each.suite, each.model) for each in runs}) == len(runs) else "run"
    exploring = [entry for entry in tested if starts(entry, "exploratory")]
    turning = [entry for entry in tested if starts(entry, "specialisation")]
    moving = sum(bool(entry.change_points) for entry in tested)
    if exploring:
        back = f"; specialisation in {_turning(turning, len(runs), report)}" if turning else ""
        where = exploring[0].model if len(runs) == 1 else _of(len(exploring), len(runs), thing)
        return f"In {where} selectivity falls and entropy rises{back}."
    if moving:
        return f"Transitions in {_of(moving, len(runs), thing)}, none of them exploratory."
    return f"No transition beyond noise in {counted(len(runs), thing)}."


def _turning(entries: Sequence[RunPhases], all_of: int, report: AnalysisReport) -> str:
    """``0.8m (2 % back)`` where it is one run, else as ``_some``."""
    if len(entries) > 1:
        return _some(entries, all_of)
    only = entries[0]
    key = (only.suite, only.model, only.seed)
    found = next((each for each in report.transitions if (each.suite, each.model, each.seed) == key), None)
    main = None if found is None else found.structure.main
    turn = None if found is None or main is None else found.structure.ending_at(main)
    back = "" if turn is None else f" ({turn.recovered:.0%} back)".replace("%", " %")
    return f"{'it too' if all_of == 1 else only.model}{back}"


def _some(entries: Sequence[RunPhases], all_of: int) -> str:
    """``2 (0.2m, 0.8m)``; of many only the number."""
    names = ", ".join(dict.fromkeys(entry.model for entry in entries))
    if all_of == 1:
        return "it too"
    if len(entries) == all_of:
        return f"all {all_of}"
    return f"{len(entries)} ({names})" if len(names) <= SHOWN_NAMES else str(len(entries))


def _of(count: int, all_of: int, thing: str) -> str:
    """``all 3 models``, ``2 of 3 models``, ``1 model``."""
    if 1 < count == all_of:
        return f"all {counted(all_of, thing)}"
    return counted(1, thing) if all_of == 1 else f"{count} of {counted(all_of, thing)}"


def _size(thresholds: Sequence[ThresholdEntry]) -> str:
    main = [entry for entry in thresholds if entry.main]
    metrics = [entry for entry in main if entry.metric not in TURNING]
    told = [entry for entry in metrics if entry.told]
    sizes = max((len(entry.models) for entry in metrics), default=0)
    if not sizes:
        return ""
    told.sort(key=lambda entry: (entry.low is None, entry.metric not in REPORTED_OVER_FEW_SIZES))
    if told:
        more = f"; so do {len(told) - 1} more" if len(told) > 1 else ""
        return f"{_shift(told[0])}{more}."
    if sizes < ENOUGH:
        few = f"A threshold needs {ENOUGH} sizes."
        return f"{few} {_trend(metrics)}".rstrip()
    return f"No trend over {sizes} sizes in {counted(len(metrics), 'metric')}."


def _trend(metrics: Sequence[ThresholdEntry]) -> str:
    """``Selectivity 0.151 in 0.05m, 0.137 in 0.8m: 0.0111-0.0182 less.``"""
    entry = next((each for each in metrics if each.metric.endswith("frequency_selectivity")), None)
    if entry is None or entry.trend is None:
        return ""
    each = [f"{number(entry.values[at])} in {entry.models[at]}" for at in (0, -1)]
    ends = f"Selectivity {', '.join(each)}"
    if entry.trend.interval is None:
        return f"{ends}."
    low, high = entry.trend.interval
    if low <= 0 <= high:
        return f"{ends}: no difference beyond noise."
    near, far = sorted((abs(low), abs(high)))
    return f"{ends}: {number(near)}-{number(far)} {'less' if low < 0 else 'more'}."


def _shift(entry: ThresholdEntry) -> str:
    shift = entry.shift
    effect = (entry.effect or 0.0) if shift is None else shift.effect
    verb = "falls" if effect < 0 else "rises"
    moved = f"{titled(entry.metric).capitalize()} {verb} by {number(abs(effect))}"
    if shift is not None and entry.low is None and shift.step_odds < 1 / STEP_LIKELY:
        return f"{moved}, smoothly, from {size_name(entry.scale[0])} to {size_name(entry.scale[-1])}"
    low, high = (entry.low or 0.0, entry.high or 0.0) if shift is None else shift.gap
    return f"{moved} between {size_name(low)} and {size_name(high)}{'' if entry.low is None else ', a step'}"


def _timing(thresholds: Sequence[ThresholdEntry]) -> str:
    """Whether larger models turn earlier, where that is sure."""
    trend = next((entry.trend for entry in thresholds if entry.metric == TURNING_REPORTED), None)
    if trend is None or trend.interval is None or trend.interval[0] <= 0 <= trend.interval[1]:
        return ""
    near, far = sorted((abs(trend.interval[0]), abs(trend.interval[1])))
    way = "later" if trend.difference > 0 else "earlier"
    return f"The largest model is half way {near:.1f} to {far:.1f} octaves {way} than the smallest."


def _encodings(report: AnalysisReport) -> str:
    if not report.encodings:
        return ""
    differences = [each for entry in report.encodings for each in entry.differences]
    others = sum(len(entry.models) - 1 for entry in report.encodings)
    matter = sum(each.matters for each in differences)
    return f"{counted(others, 'variant')} beside rotary: {matter} of {len(differences)} differences are sure."


def _controls(report: AnalysisReport) -> str:
    twins = report.controls.twins
    apart = sum(not twin.same for twin in twins)
    parts = []
    if twins:
        parts.append(
            f"{apart} of {counted(len(twins), 'pair')} of equal weights differ: tracker audit."
            if apart
            else f"{counted(len(twins), 'pair')} of equal weights measure alike."
        )
    p_values = [entry.p_value for entry in report.phases if entry.change_points and entry.p_value is not None]
    if p_values:
        share = f"{100 * max(p_values):.1g} %"
        parts.append(f"Noise alone moves as clearly in at most {share} of simulated curves.")
    return " ".join(parts)


def _left_out(entries: Sequence[RunPhases]) -> str:
    suspect = sum(each.reason.startswith("suspect") for entry in entries for each in entry.left_out)
    if not suspect:
        return ""
    return f"{counted(suspect, 'checkpoint')} whose weights may not match their names: tracker audit"


def _suspicious(report: AnalysisReport) -> str:
    if not report.suspicious:
        return ""
    first, *others = report.suspicious
    more = f"; and {len(others)} more" if others else ""
    return f"{first}{more}; `tracker audit` marks such checkpoints."


def _alerts(report: AnalysisReport) -> str:
    count = len(report.alerts)
    verb = "contradicts" if count == 1 else "contradict"
    return f"{counted(count, 'result')} {verb} the paper's mechanisms: tracker analyse" if count else ""
