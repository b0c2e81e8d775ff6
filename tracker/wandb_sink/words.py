"""The run's summary in W&B: the values of the last step, the holes, and what the analysis says in words."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tracker.records import Recorded
from tracker.store.journal import live_alerts
from tracker.wandb_sink.identity import RunIdentity
from tracker.wandb_sink.rows import KEY, ROW, Row

MOST_HOLES = 50
"""Holes that are spelled out in a summary; the rest are counted."""


def summary_of(identity: RunIdentity, last: Row | None, holes: Iterable[Recorded],
               analysis: dict[str, Any]) -> dict[str, Any]:  # fmt: skip
    """Everything the summary says of one run.

    Args:
        identity: the run.
        last: its row of the highest step, None where nothing could be measured.
        holes: its records that are not ok.
        analysis: content of ``analysis.json``, empty where there is none.
    """
    words: dict[str, Any] = {}
    if last is not None:
        words |= {name: value for name, value in last.scalars.items() if name not in (KEY, ROW)}
        words["last_step"] = last.step
    ordered = sorted(holes, key=lambda record: record.step)
    words["checkpoints_failed"] = sum(record.status == "failed" for record in ordered)
    words["checkpoints_missing"] = sum(record.status == "missing" for record in ordered)
    words["holes"] = _holes(ordered)
    return words | _findings(identity, analysis)


def _holes(records: list[Recorded]) -> str:
    spelled = [f"step {r.step} {r.status}: {r.reason or 'no reason recorded'}" for r in records[:MOST_HOLES]]
    more = len(records) - len(spelled)
    return "; ".join(spelled) + (f"; and {more} more" if more else "")


def first_step_of(label: str) -> str:
    """Name in the summary of the step at which a labelled phase begins."""
    return f"phase/{label}_first_step"


def _findings(identity: RunIdentity, analysis: dict[str, Any]) -> dict[str, Any]:
    if not _measured_alike(identity, analysis):
        return {}
    phases = entries_of(identity, analysis, "phases")
    begins = {
        first_step_of(phase["label"]): phase.get("first_step")
        for entry in phases
        for phase in reversed(entry.get("phases") or [])
        if phase.get("label")
    }
    thresholds = [
        e
        for e in _entries(analysis, "thresholds")
        if e.get("suite") == identity.suite and e.get("main", True)
    ]
    found = {"phases": _sentences(phases), "thresholds": _sentences(thresholds)}
    return begins | {name: sentences for name, sentences in found.items() if sentences}


def _measured_alike(identity: RunIdentity, analysis: dict[str, Any]) -> bool:
    fields = ("probe", "conventions")
    return all(analysis.get(field, getattr(identity, field)) == getattr(identity, field) for field in fields)


def entries_of(identity: RunIdentity, analysis: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The entries under ``name`` of an analysis that are of this run, measured in its way."""
    if not _measured_alike(identity, analysis):
        return []
    mine = (identity.suite, identity.model, identity.seed)
    return [e for e in _entries(analysis, name) if (e.get("suite"), e.get("model"), e.get("seed")) == mine]


def _entries(analysis: dict[str, Any], name: str) -> list[dict[str, Any]]:
    entries = analysis.get(name)
    return [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []


def _sentences(entries: list[dict[str, Any]]) -> str:
    return " ".join(str(entry["sentence"]) for entry in entries if entry.get("sentence"))


def read_analysis(folder: Path) -> dict[str, Any]:
    """``analysis.json`` of a store, with the alerts of live training as they are now; empty where there is
    neither, or it does not read back."""
    try:
        content = json.loads((folder / "analysis.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = {}
    content = content if isinstance(content, dict) else {}
    live = live_alerts(folder)
    known = [alert for alert in content.get("alerts") or [] if alert not in live]
    return content | {"alerts": [*known, *live]} if live else content
