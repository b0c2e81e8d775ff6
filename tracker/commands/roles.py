"""``tracker roles``: what each head does, and since when."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tracker.commands.results import chosen_results, write_report
from tracker.config import Config
from tracker.console.output import DONE, print_damaged, print_line, print_table

if TYPE_CHECKING:
    import polars as pl

    from tracker.analysis.schema import ModelRoles

SHOWN_HEADS = 64
"""Heads of one model in the terminal; roles.json has all."""


def run(config: Config, console: Console) -> int:
    """Print how many heads of each model have which role, with ``verbose`` each of them; write roles.json."""
    from tracker.analysis.json_types import to_dict
    from tracker.analysis.roles import COLUMNS, head_roles

    results = chosen_results(config)
    print_damaged(console, results.damaged)
    checkpoints = results.checkpoints()
    entries = head_roles(results.heads(COLUMNS), checkpoints, config.conventions)
    print_table(console, roles_summary(_by_size(entries, checkpoints)))
    for entry in entries if config.verbose else ():
        if any(any(counts[-1:]) for counts in entry.counts.values()):
            console.print()
            print_table(console, roles_table(entry))
    write_report(config.store / "roles.json", {"roles": to_dict(entries)})
    more = "" if config.verbose else " (a row per head: verbose=true)"
    print_line(console, f"Details: {config.store / 'roles.json'}{more}")
    return DONE


def _by_size(entries: "Sequence[ModelRoles]", checkpoints: "pl.DataFrame") -> "list[ModelRoles]":
    sizes = {model: size or 0 for model, size in checkpoints.select("model", "params_total").iter_rows()}
    return sorted(entries, key=lambda entry: (entry.suite, sizes.get(entry.model, 0), entry.seed))


def roles_summary(entries: "Sequence[ModelRoles]") -> Table:
    """Tabulate how many heads have each role at the last checkpoint, a row per model and seed."""
    roles = [role for role in dict.fromkeys(role for entry in entries for role in entry.counts)
             if any(any(entry.counts.get(role, ())[-1:]) for entry in entries)]  # fmt: skip
    table = Table(box=None, pad_edge=False)
    table.add_column("model", no_wrap=True)
    for heading in ("step", "heads", *roles, "none claimed", "with a role at the first step"):
        table.add_column(heading, justify="right")
    for entry in entries:
        last = [(entry.counts.get(role) or (0,))[-1] for role in roles]
        first = sum(counts[0] for counts in entry.counts.values() if counts)
        cells = entry.step, len(entry.heads), *last, sum(each.birth is None for each in entry.heads), first
        table.add_row(Text(f"{entry.model} seed {entry.seed}"), *map(str, cells))
    return table


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
