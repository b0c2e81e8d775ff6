"""Alerts of one run: where its results break what the paper's mechanisms need, each to be sent once."""

from dataclasses import dataclass
from typing import Any

from tracker.records import digest
from tracker.sinks.identity import RunIdentity
from tracker.sinks.words import entries_of

LONGEST_TITLE = 63
"""W&B refuses alerts whose title has 64 characters or more."""


@dataclass(frozen=True)
class Alert:
    """One alert as W&B gets it."""

    id: str
    """The same for one condition broken at the same steps, so that a replay sends nothing twice."""
    title: str
    text: str


def alerts_for(identity: RunIdentity, analysis: dict[str, Any]) -> list[Alert]:
    """The alerts in ``analysis.json`` that are of this run.

    Args:
        identity: the run.
        analysis: content of ``analysis.json``, empty where there is none.
    """
    return [
        Alert(
            digest([entry.get("condition"), entry.get("steps")]),
            f"{entry.get('condition')}: {identity.name}"[:LONGEST_TITLE],
            str(entry.get("sentence")),
        )
        for entry in entries_of(identity, analysis, "alerts")
    ]
