"""``tracker roles``: what each head does, since when, and which heads could be pruned."""

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from tracker.commands.reporting import view, write_json
from tracker.config import Config
from tracker.console.terminal import DONE, SOME_FAILED, say
from tracker.errors import CheckpointError

if TYPE_CHECKING:
    from tracker.analysis.schema import ModelRoles
    from tracker.records import Checkpoint

SHOWN_HEADS = 64
"""Heads of one model in the terminal; roles.json has all."""


def roles(config: Config, console: Console) -> int:
    """The role of every head at the last checkpoint of each model; with ``prune=true`` heads that look alike
    are switched off and the loss is told."""
    from tracker.analysis.roles import COLUMNS, head_roles
    from tracker.analysis.schema import to_dict

    results = view(config)
    entries = head_roles(results.heads(COLUMNS), results.checkpoints(), config.conventions)
    for entry in entries:
        if any(any(counts[-1:]) for counts in entry.counts.values()):
            console.print(roles_table(entry))
        say(console, entry.sentence)
    report: dict[str, Any] = {"roles": to_dict(entries)}
    failed = False
    if config.prune:
        report["pruning"], failed = _pruned(config, entries, console)
    write_json(config.store / "roles.json", report)
    say(console, f"Details: {config.store / 'roles.json'}")
    return SOME_FAILED if failed else DONE


def roles_table(entry: "ModelRoles") -> Table:
    """One row per head with a role, in order of layer and head; of many the surest."""
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


def _pruned(
    config: Config, entries: "list[ModelRoles]", console: Console
) -> tuple[list[dict[str, Any]], bool]:
    """Tries the last measured checkpoint of each model; whether any could not be tried."""
    from tracker.engines.load import load_with_probe
    from tracker.models.pruning import prune, pruned_entry, pruning_sentences
    from tracker.planning.resolve import resolve

    surveyed = resolve(config)
    found, failed = [], False
    for entry in entries:
        label = f"{entry.model} seed {entry.seed} step {entry.step}"
        try:
            checkpoint = _checkpoint(surveyed.plan.units, entry)
            model, ids = load_with_probe(surveyed, checkpoint, config.dtype)
            groups = prune(model, ids)
        except CheckpointError as error:
            say(console, f"{label}: {error}")
            failed = True
            continue
        for sentence in pruning_sentences(label, groups):
            say(console, sentence)
        keys = {name: getattr(entry, name) for name in ("suite", "model", "seed", "step")}
        found.append(keys | {"groups": pruned_entry(groups)})
    return found, failed


def _checkpoint(planned: Any, entry: "ModelRoles") -> "Checkpoint":
    wanted = tuple(getattr(entry, name) for name in ("suite", "model", "seed", "step"))
    for each in planned:
        at = each.unit.checkpoint
        if (at.suite, at.model, at.seed, at.step) == wanted:
            return at
    raise CheckpointError(
        "it is not among the checkpoints of this request; give the suite and models that were swept"
    )
