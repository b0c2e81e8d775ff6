"""What a finished sweep says: what it measured and found, what is missing, where to look, what to do next."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rich.console import Console

from tracker.config import Config, NanoSuite
from tracker.console.output import hole_lines
from tracker.errors import counted
from tracker.planning.resolve import ResolvedSweep, suite_name
from tracker.records import Outcome, PlannedUnit

USUAL_STORE = "tracker-store"
"""Where results go unless the request says otherwise (``store`` in conf/config.yaml)."""
SHOWN_HOLES = 3
MORE_SEEDS, LONGER = 3, 4000
"""What is proposed to whoever has swept the embedded suite."""


@dataclass(frozen=True)
class Swept:
    """A sweep that has ended."""

    config: Config
    sweep: ResolvedSweep
    outcomes: list[Outcome]
    analysis: dict[str, Any]
    """The content of analysis.json."""
    sent: Sequence[str]
    """Sentences of the publisher to W&B."""

    @cached_property
    def holes(self) -> list[Outcome | PlannedUnit]:
        """Every planned checkpoint that is not measured."""
        ended = {outcome.unit.id for outcome in self.outcomes}
        failed = [outcome for outcome in self.outcomes if outcome.status != "ok"]
        planned = [each for each in self.sweep.plan.units if each.unit.id not in ended]
        return [*failed, *(each for each in planned if each.state != "done")]


def print_swept(swept: Swept, console: Console) -> None:
    """Print the end of a sweep."""
    from tracker.analysis.schema import AnalysisReport
    from tracker.console.closing import print_closing

    report = AnalysisReport.from_dict(swept.analysis)
    lacking = [*zip(["Unmeasured", *[""] * SHOWN_HOLES], hole_lines(swept.holes, SHOWN_HOLES), strict=False)]
    dot = " · " if console.encoding.lower().startswith("utf") else " - "
    print_closing(console, dot.join(_heading(swept)), report, lacking, [*_places(swept), *_next(swept)])


def _heading(swept: Swept) -> list[str]:
    checkpoints = [planned.unit.checkpoint for planned in swept.sweep.plan.units]
    steps = [each.step for each in checkpoints]
    seeds: dict[str, set[int]] = {}
    for each in checkpoints:
        seeds.setdefault(each.model, set()).add(each.seed)
    counts = sorted({len(each) for each in seeds.values()})
    each = f"{counts[0]} to {counts[-1]} seeds" if len(counts) > 1 else counted(counts[0], "seed")
    measured = [outcome for outcome in swept.outcomes if outcome.status == "ok"]
    others = sum(outcome.elsewhere for outcome in measured)
    elsewhere = f", {others} by concurrent sweeps" if others else ""
    span = f"steps {min(steps)} to {max(steps)}" if len(set(steps)) > 1 else f"step {steps[0]}"
    return [
        suite_name(swept.config),
        f"{counted(len(seeds), 'model')}, {each}{' each' if len(seeds) > 1 else ''}",
        f"{counted(len(steps), 'checkpoint')}, {span}",
        f"{len(measured) - others} measured now{elsewhere}, {len(swept.holes)} not measured",
    ]


def store_argument(config: Config) -> str:
    """Return `` store=DIR`` as other commands need it; empty for the usual store."""
    return "" if str(config.store) == USUAL_STORE else f" store={shlex.quote(str(config.store))}"


def _places(swept: Swept) -> list[tuple[str, str]]:
    config, store = swept.config, store_argument(swept.config)
    # The publisher is a process of its own that knows the whole path only.
    whole, given = str(config.store.resolve()), str(config.store)
    sent = [re.sub(r"^W&B:? ", "", sentence).replace(whole, given) for sentence in swept.sent]
    sent = sent or [
        f"nothing was sent (sink={config.sink['name']}); to send: tracker stream sink=wandb{store}"
    ]
    figures = [("Figures", str(config.figures))] if config.figures else []
    return [
        ("Look", f"{config.store / 'dashboard.html'}   (live: tracker dashboard serve=true{store})"),
        (
            "Numbers",
            f'{config.store / "analysis.json"}   python: tracker.open_store("{config.store}").heads()',
        ),
        ("In full", f"tracker analyse{store}"),
        *figures,
        *zip(["W&B", *[""] * len(sent)], sent, strict=False),
    ]


def _can_be_tried_again(hole: Outcome | PlannedUnit) -> bool:
    """Whether a checkpoint failed; one that its source does not have is not there next time either."""
    return hole.status == "failed" if isinstance(hole, Outcome) else hole.state == "retry"


def _next(swept: Swept) -> list[tuple[str, str]]:
    config, proposals = swept.config, []
    changed = any(each["change_points"] for each in swept.analysis["phases"])
    if any(_can_be_tried_again(hole) for hole in swept.holes):
        proposals = ["fix the reason above, then run the same command again"]
    elif isinstance(config.suite, NanoSuite):
        plain = suite_name(config) == "nano" and not store_argument(config)
        command = "tracker sweep" if plain else "the same command with"
        if config.suite.seeds == 1:
            proposals.append(f"more seeds: {command} suite.seeds={MORE_SEEDS}")
        if config.suite.train_steps < LONGER:
            begin = "" if proposals else f"{command} "
            proposals.append(f"longer: {begin}suite.train_steps={LONGER}")
    elif changed and config.steps.name not in ("refine", "all"):
        proposals = ["to narrow these step ranges: the same command with steps=refine"]
    return [("Next", "   ".join(proposals))] if proposals else []
