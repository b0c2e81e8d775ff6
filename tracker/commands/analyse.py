"""``tracker analyse``: phases per model and thresholds over models, as text and analysis.json."""

from dataclasses import replace
from typing import Any

from rich.console import Console

from tracker.commands.results import assumption_limits, chosen_results, without_suspects, write_report
from tracker.config import Config
from tracker.console.charts import show_charts
from tracker.console.output import DONE, print_alerts, print_damaged, print_line
from tracker.store import Results
from tracker.store.journal import live_alerts


def run(config: Config, console: Console) -> int:
    """Analyse the stored results, write analysis.json and print what was found."""
    analyse_results(chosen_results(config), config, console)
    print_line(console, f"Details: {config.store / 'analysis.json'}")
    return DONE


def analyse_results(results: Results, config: Config, console: Console) -> dict[str, Any]:
    """Analyse results, write analysis.json with its alerts, and print what was found.

    Returns:
        The content of analysis.json.
    """
    from tracker.analysis import analyse
    from tracker.analysis.assumptions import alerts_of, break_conditions
    from tracker.analysis.context import HEAD_COLUMNS
    from tracker.analysis.roles import COLUMNS, head_roles

    checkpoints, suspects = without_suspects(results, config)
    found = analyse(
        results.checkpoints(), results.sequences(), results.heads(HEAD_COLUMNS), suspects=suspects
    )
    alerts = alerts_of(break_conditions(checkpoints, found.phases, assumption_limits(config)))
    roles = head_roles(results.heads(COLUMNS), checkpoints, config.conventions)
    damaged = tuple(map(str, results.damaged))
    report = replace(found, alerts=alerts, roles=tuple(roles), damaged=damaged).to_dict()
    report["alerts"] += live_alerts(config.store, found.probe, found.conventions)
    write_report(config.store / "analysis.json", report)
    show_charts(console, checkpoints, report["phases"])
    for sentence in report["summary"]:
        print_line(console, sentence)
    print_alerts(console, [alert["sentence"] for alert in report["alerts"]])
    print_damaged(console, results.damaged)
    return report
