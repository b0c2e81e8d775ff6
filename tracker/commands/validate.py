"""``tracker validate``: metrics against ground truth, the analysis against synthetic runs, stored results
against the paper's assumptions."""

from typing import TYPE_CHECKING

from rich.console import Console

from tracker.commands.results import assumption_limits, chosen_results, without_suspects
from tracker.config import Config
from tracker.console.output import DONE, SOME_FAILED, print_damaged, print_line
from tracker.console.progress import Bars
from tracker.errors import counted
from tracker.store import Results

if TYPE_CHECKING:
    from tracker.validate import Finding


def run(config: Config, console: Console) -> int:
    """Run the checks that ``what`` chooses; 1 where any fails."""
    what = config.what
    present = what != "experiments" and (config.store / "checkpoints").is_dir()
    results = chosen_results(config) if present or what == "breaks" else None
    from tracker.validate import agreement, findings_table, ground_truth

    passed, by_chance = [], 0
    if what in ("auto", "all", "experiments"):
        findings = [*ground_truth(), *agreement()]
        console.print(findings_table("Metrics: ground truth and independent witnesses", findings))
        passed += [each.passed for each in findings]
    if what in ("all", "analysis"):
        findings = _detection(config, console)
        console.print(findings_table("Analysis: synthetic runs whose truth is known", findings))
        passed += [each.passed or each.by_chance for each in findings]
        by_chance = sum(each.by_chance for each in findings)
    if results is not None and what != "analysis":
        passed += _assumptions(results, config, console)
    failed = passed.count(False)
    chance = f"; {by_chance} beyond the limit by no more than chance" if by_chance else ""
    print_line(console, f"{counted(len(passed), 'check')}, {failed} failed{chance}")
    return SOME_FAILED if failed else DONE


def _detection(config: Config, console: Console) -> "list[Finding]":
    """Analyse synthetic runs whose change points are known, with a progress bar."""
    from tracker.validate import detection, runs_in_all

    bars, done = Bars(console, "analysing"), 0
    bars.add("synthetic runs", runs_in_all(config.validate.runs))

    def moved() -> None:
        nonlocal done
        done += 1
        bars.advance_to("synthetic runs", done)

    with bars.running():
        return detection(config.validate.runs, moved, seed=config.validate.seed)


def _assumptions(results: Results, config: Config, console: Console) -> list[bool]:
    """Print how a store meets the paper's assumptions; whether each that could be judged holds."""
    from tracker.analysis import analyse_phases
    from tracker.analysis.assumptions import break_conditions
    from tracker.validate import conditions_table

    print_damaged(console, results.damaged)
    checkpoints, suspects = without_suspects(results, config)
    phases = [entry for _, entry in analyse_phases(results.checkpoints(), results.sequences(), suspects)]
    found = break_conditions(checkpoints, phases, assumption_limits(config))
    if not found:
        print_line(console, f"{config.store}: no checkpoint is measured, so there is nothing to judge")
        return []
    console.print(conditions_table(f"Stored results in {config.store}", found))
    for each in found:
        if not each.passed:
            print_line(console, each.sentence)
    return [each.passed for each in found if each.passed is not None]
