"""Known events of a suite's training, to lay over its curves."""

import re
from typing import Any

from tracker import facts
from tracker.views.runs import Run

PYTHIA_SUITES = ("pythia", "pythia-deduped", "polypythias")
"""Suites trained on Pythia's schedule; the landmarks' steps mean nothing elsewhere."""


def landmarks_of(runs: list[Run]) -> list[dict[str, Any]]:
    """Landmarks that hold for at least one run: name, step_low, step_high, source, runs (their keys)."""
    found = []
    for row in facts.table("landmarks").to_dicts():
        keys = [run.key for run in runs if run.suite in PYTHIA_SUITES and _holds(row["models"], run.model)]
        if keys:
            shown = {name: row[name] for name in ("name", "step_low", "step_high", "source")}
            found.append(shown | {"runs": keys})
    return found


def _holds(models: str, model: str) -> bool:
    sizes = facts.table("pythia_suite")["size"].to_list()
    named = re.findall(r"\d+(?:\.\d+)?[mb]", models)
    if not named:
        return True
    size = re.search(r"\d+(?:\.\d+)?[mb]", model)
    if size is None or size.group() not in sizes:
        return False
    return sizes.index(named[0]) <= sizes.index(size.group()) <= sizes.index(named[-1])
