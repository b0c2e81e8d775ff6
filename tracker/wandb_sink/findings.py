"""What W&B shows of a run beside its rows: the summary, and alerts that are each sent once."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracker.analysis.json_types import from_dict, to_dict
from tracker.analysis.labels import label_columns
from tracker.analysis.schema import AnalysisReport, RunTransitions
from tracker.records import Recorded, digest
from tracker.side_files import read_typed
from tracker.store.journal import live_alerts
from tracker.wandb_sink.charts import Table
from tracker.wandb_sink.identity import RunIdentity
from tracker.wandb_sink.rows import KEY, ROW, Row, Scalar
from tracker.wandb_sink.stored import RunFiles

SECTIONS = ("transitions", "phases", "thresholds")
"""Of analysis.json, those that runs are told of."""
MOST_HOLES = 50
"""Failed and missing checkpoints that a summary spells out; the rest are counted."""
LONGEST_TITLE = 63
"""W&B refuses alerts whose title has 64 characters or more."""


@dataclass(frozen=True)
class Alert:
    """One alert as W&B gets it."""

    id: str
    """The same for the same news, so that a replay sends nothing twice."""
    title: str
    text: str
    level: str = "WARN"
    """W&B's levels: ``INFO`` for a detected phase change, ``WARN`` for a failed validation."""


@dataclass(frozen=True)
class RunReport:
    """What a run says beside its rows when it is finished."""

    summary: dict[str, Scalar]
    alerts: tuple[Alert, ...]
    files: RunFiles | None
    """Its part of the store, for an artifact; None where none is to be sent."""
    tables: dict[str, Table] = dataclasses.field(default_factory=dict)
    """What custom charts draw, by name in the summary."""

    @property
    def digest(self) -> str:
        """The same as long as summary and tables are."""
        tables = {name: [table.columns, table.rows] for name, table in self.tables.items()}
        return digest([self.summary, tables] if tables else self.summary)


def summarise_rows(last: Row | None, holes: Sequence[Recorded]) -> dict[str, Scalar]:
    """Return a run's summary: the values of its highest step, and what was not measured.

    Args:
        last: its row of the highest step, whatever the order of arrival; None where nothing is measured.
        holes: its records that are not ok, in step order.
    """
    summary: dict[str, Scalar] = {}
    if last is not None:
        summary |= {name: value for name, value in last.scalars.items() if name not in (KEY, ROW)}
        summary["last_step"] = last.step
    summary["checkpoints_failed"] = sum(record.status == "failed" for record in holes)
    summary["checkpoints_missing"] = sum(record.status == "missing" for record in holes)
    spelled = [f"step {r.step} {r.status}: {r.reason or 'no reason recorded'}" for r in holes[:MOST_HOLES]]
    more = len(holes) - len(spelled)
    summary["holes"] = "; ".join(spelled) + (f"; and {more} more" if more else "")
    return summary


def first_step_of(label: str) -> str:
    """Return the summary's name for the step at which a labelled phase begins."""
    return f"phase/{label}_first_step"


def transition(name: str) -> str:
    """Return the summary's name for a number of the run's transition, such as ``half_step``."""
    return f"transition/{name}"


def read_analysis(folder: Path) -> dict[str, Any]:
    """Read a store's ``analysis.json``, with the alerts of live training as they are now.

    Empty where there is neither, or it does not read back.
    """
    content = read_typed(folder / "analysis.json", dict[str, Any], {})
    typed = from_dict(AnalysisReport, content)
    # Each entry is whole then, whichever version wrote it.
    content |= {name: to_dict(getattr(typed, name)) for name in SECTIONS if name in content}
    live = live_alerts(folder)
    stored = content.get("alerts")
    known = [alert for alert in stored if alert not in live] if isinstance(stored, list) else []
    return content | {"alerts": [*known, *live]}


class Findings:
    """What the analysis of a store says of each run."""

    def __init__(self, analysis: dict[str, Any]) -> None:
        self._analysis = analysis

    def summary(self, identity: RunIdentity) -> dict[str, Scalar]:
        """Return the dates of the transition and of each phase as numbers, what moves from where to where,
        and phases and thresholds as sentences."""
        phases = self._of_run(identity, "phases")
        found: dict[str, Scalar] = {
            first_step_of(phase["label"]): phase["first_step"]
            for entry in phases
            for phase in reversed(entry.get("phases") or [])
            if phase.get("label") and phase.get("first_step") is not None
        }
        thresholds = [
            entry
            for entry in self._entries(identity, "thresholds")
            if entry.get("suite") == identity.suite and entry.get("main", True)
        ]
        if moves := self.transitions(identity):
            found |= _transition(moves)
        for name, entries in (("phases", phases), ("thresholds", thresholds)):
            text = " ".join(str(entry["sentence"]) for entry in entries if entry.get("sentence"))
            found |= {name: text} if text else {}
        return found

    def transitions(self, identity: RunIdentity) -> RunTransitions | None:
        """Return the moves of a run; None where the analysis says nothing of it."""
        entries = from_dict(
            AnalysisReport, {"transitions": self._of_run(identity, "transitions")}
        ).transitions
        return entries[-1] if entries else None

    def alerts(self, identity: RunIdentity) -> tuple[Alert, ...]:
        """Return a run's alerts: conditions of the analysis that do not hold, and changes of phase."""
        failed = [
            Alert(
                digest([entry.get("condition"), entry.get("steps")]),
                f"{entry.get('condition')}: {identity.name}"[:LONGEST_TITLE],
                str(entry.get("sentence")),
                entry.get("level") or "WARN",
            )
            for entry in self._of_run(identity, "alerts")
        ]
        changes = [
            _phase_change(identity, entry, number)
            for entry in self._of_run(identity, "phases")
            for number in range(1, len(entry.get("change_points") or []) + 1)
        ]
        return (*failed, *changes)

    def _of_run(self, identity: RunIdentity, name: str) -> list[dict[str, Any]]:
        run = (identity.suite, identity.model, identity.seed)
        entries = self._entries(identity, name)
        return [each for each in entries if (each.get("suite"), each.get("model"), each.get("seed")) == run]

    def _entries(self, identity: RunIdentity, name: str) -> list[dict[str, Any]]:
        """The entries under ``name``; none where the analysis is of another probe or other conventions."""
        for field in ("probe", "conventions"):
            if self._analysis.get(field, getattr(identity, field)) != getattr(identity, field):
                return []
        entries = self._analysis.get(name)
        return [each for each in entries if isinstance(each, dict)] if isinstance(entries, list) else []


def _transition(entry: RunTransitions) -> dict[str, Scalar]:
    """The main move of the joint curve: checkpoints by which it begins, is half way and ends, its width,
    where it turns and what comes back; entropy and selectivity before and after."""
    main = entry.structure.main
    if main is None:
        return {}
    found: dict[str, Scalar] = {
        transition("onset_step"): main.onset.step_high,
        transition("half_step"): main.half.step_high,
        transition("end_step"): main.end.step_high,
        transition("octaves"): main.octaves,
        transition("pace"): main.pace,
    }
    turn = entry.structure.ending_at(main)
    if turn is not None:
        found |= {transition("turn_step"): turn.step, transition("recovered"): turn.recovered}
    for name in label_columns(list(entry.curves)) or ():
        if move := entry.curves[name].main:
            found |= {transition(f"{name}_from"): move.start, transition(f"{name}_to"): move.finish}
    return found


def _phase_change(identity: RunIdentity, entry: dict[str, Any], number: int) -> Alert:
    """Return the alert of one change point, identified by its number and the phase it leads to.

    Not by its steps: those narrow with every checkpoint that is measured between them, which is no news.
    """
    point, phases = entry["change_points"][number - 1], entry.get("phases") or []
    label = phases[number].get("label") if number < len(phases) else None
    support = point.get("confidence")
    return Alert(
        digest(["phase change", number, label]),
        f"Phase change {number}: {identity.name}"[:LONGEST_TITLE],
        f"{identity.label}: {label or 'another phase'} begins in steps ({point.get('step_low')}, "
        f"{point.get('step_high')}]" + ("" if support is None else f", {support:.0%} of draws of its noise"),
        "INFO",
    )
