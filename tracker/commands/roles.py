"""``tracker roles``: what each head does, and since when."""

from typing import Any

from rich.console import Console
from rich.table import Table

from tracker.commands.results import chosen_results, write_report
from tracker.config import Config
from tracker.console.terminal import DONE, say

SHOWN_HEADS = 64
"""Heads of one model in the terminal; roles.json has all."""


def run(config: Config, console: Console) -> int:
    """Print the role of every head at the last checkpoint of each model and write roles.json."""
    from tracker.analysis.roles import COLUMNS, head_roles

    results = chosen_results(config)
    entries = head_roles(results.heads(COLUMNS), results.checkpoints())
    for entry in entries:
        if any(any(counts[-1:]) for counts in entry["counts"].values()):
            console.print(roles_table(entry))
        say(console, entry["sentence"])
    write_report(config.store / "roles.json", {"roles": entries})
    say(console, f"Details: {config.store / 'roles.json'}")
    return DONE


def roles_table(entry: dict[str, Any]) -> Table:
    """Return one row per head with a role, in order of layer and head; of many the highest scores."""
    from tracker.analysis.roles import NO_ROLE, born

    title = f"{entry['model']} seed {entry['seed']}, step {entry['step']}"
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    table.add_column("layer, head", no_wrap=True)
    table.add_column("role")
    for name in ("sure share", "band", "scale, tokens", "since step"):
        table.add_column(name, justify="right")
    named = [each for each in entry["heads"] if each["role"] != NO_ROLE]
    shown = sorted(named, key=lambda each: -each["margin"])[:SHOWN_HEADS]
    for each in sorted(shown, key=lambda each: (each["layer"], each["head"])):
        scale = "" if each["scale"] is None else f"{each['scale']:.1f}"
        table.add_row(
            f"{each['layer']}, {each['head']}",
            each["role"],
            f"{each['margin']:.0%}",
            f"{each['band']} {each['band_share']:.0%}",
            scale,
            born(each["birth"]),
        )
    return table
