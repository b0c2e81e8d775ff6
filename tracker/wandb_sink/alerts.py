"""Alerts of one run, each to be sent once: where its results break what the paper's mechanisms need, and
where its training enters another phase."""

from dataclasses import dataclass
from typing import Any

from tracker.records import digest
from tracker.wandb_sink.identity import RunIdentity
from tracker.wandb_sink.words import entries_of

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


def alerts_for(identity: RunIdentity, analysis: dict[str, Any]) -> list[Alert]:
    """The alerts in ``analysis.json`` that are of this run.

    Args:
        identity: the run.
        analysis: content of ``analysis.json``, empty where there is none.
    """
    return [*_broken(identity, analysis), *_phase_changes(identity, analysis)]


def _broken(identity: RunIdentity, analysis: dict[str, Any]) -> list[Alert]:
    return [
        Alert(
            digest([entry.get("condition"), entry.get("steps")]),
            f"{entry.get('condition')}: {identity.name}"[:LONGEST_TITLE],
            str(entry.get("sentence")),
            entry.get("level") or "WARN",
        )
        for entry in entries_of(identity, analysis, "alerts")
    ]


def _phase_changes(identity: RunIdentity, analysis: dict[str, Any]) -> list[Alert]:
    """One alert per change point, known by its number and the phase it leads to.

    Not by its steps: those narrow with every checkpoint that is measured between them, which is no news.
    """
    found = []
    for entry in entries_of(identity, analysis, "phases"):
        phases = entry.get("phases") or []
        for number, point in enumerate(entry.get("change_points") or [], start=1):
            label = phases[number].get("label") if number < len(phases) else None
            sure = point.get("confidence")
            found.append(
                Alert(
                    digest(["phase change", number, label]),
                    f"Phase change {number}: {identity.name}"[:LONGEST_TITLE],
                    f"{identity.label}: {label or 'another phase'} begins in steps ({point.get('step_low')}, "
                    f"{point.get('step_high')}]" + ("" if sure is None else f", in {sure:.0%} of resamples"),
                    "INFO",
                )
            )
    return found
