"""``tracker roles``: what each head does, and since when."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tracker.commands.results import chosen_results, write_report
from tracker.config import Config
from tracker.console.output import DONE, print_damaged, print_line

if TYPE_CHECKING:
    from tracker.analysis.schema import ModelRoles

SHOWN_HEADS = 64
"""Heads of one model in the terminal; roles.json has all."""


def run(config: Config, console: Console) -> int:
    """Print the role of every head at the last checkpoint of each model and write roles.json."""
    from tracker.analysis.roles import COLUMNS, head_roles
    from tracker.analysis.schema import to_dict

    results = chosen_results(config)
    print_damaged(console, results.damaged)
    entries = head_roles(results.heads(COLUMNS), results.checkpoints(), config.conventions)
    for entry in entries:
        if any(any(counts[-1:]) for counts in entry.counts.values()):
            console.print(roles_table(entry))
        print_line(console, entry.sentence)
    write_report(config.store / "roles.json", {"roles": to_dict(entries)})
    print_line(console, f"Details: {config.store / 'roles.json'}")
    return DONE


def roles_table(entry: "ModelRoles") -> Table:
    """Return one row per head with a role, in order of layer and head; of many the highest scores."""
    from tracker.analysis.text.roles import born

    title = f"{entry.model} seed {entry.seed}, step {entry.step}"
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    table.add_column("layer, head", no_wrap=True)
    table.add_column("role")
    for name in ("sure share", "band", "scale, tokens", "since step"):
        table.add_column(name, justify="right")
    named = [each for each in entry.heads if each.birth is not None]
    shown = sorted(named, key=lambda each: -(each.margin or 0.0))[:SHOWN_HEADS]
    for each in sorted(shown, key=lambda each: (each.layer, each.head)):
        table.add_row(
            f"{each.layer}, {each.head}",
            each.role,
            f"{each.margin:.0%}",
            "" if each.band_share is None else f"{each.band} {each.band_share:.0%}",
            "" if each.scale is None else f"{each.scale:.1f}",
            born(each.birth or ()),
        )
    return table
