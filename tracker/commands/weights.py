"""``tracker weights``: measure the weights of checkpoints alone, without a forward pass or a probe."""

from rich.console import Console

from tracker.commands.nano import prepare_store, train
from tracker.commands.swept import store_argument
from tracker.config import Config, NanoSuite
from tracker.console.output import DONE, SOME_FAILED, print_holes, print_line, print_table, readable_time
from tracker.console.progress import Bars
from tracker.console.tables import by_model
from tracker.console.weight_tables import rotary_lines, weights_table
from tracker.errors import counted
from tracker.planning.resolve import ResolvedSweep, checkpoint_cache, resolve, suite_name
from tracker.records import Outcome, PlannedUnit
from tracker.store import Store, kept_in_sight, read_table


def run(config: Config, console: Console) -> int:
    """Measure the weights of every planned checkpoint that lacks them, and print each run's first and last.

    What is measured goes into the records of the checkpoint, whatever their probe; a checkpoint without any
    gets a record of its own. 1 where a checkpoint could not be measured.
    """
    from tracker.engines.weight_pass import weight_tasks

    sweep = resolve(config)
    units = sweep.plan.units
    prepare_store(Store(config.store))
    tasks = weight_tasks(units, sweep.ledger, again=config.remeasure == "all")
    with kept_in_sight(config.store) as store:
        if tasks and isinstance(config.suite, NanoSuite):
            train(config, console, {task.planned.unit.checkpoint.model for task in tasks}, store)
        outcomes = measure_weights(config, sweep, console, store)
    failed = [each for each in outcomes if each.status != "ok"]
    already = len(units) - len(outcomes)
    print_line(
        console,
        f"{suite_name(config)}, weights of {counted(len(units), 'checkpoint')}: "
        f"{len(outcomes) - len(failed)} measured now, {already} before, {len(failed)} not measured",
    )
    print_holes(console, failed)
    _print_runs(store, units, console)
    print_line(
        console,
        f"Before, with or after the transition: tracker analyse{store_argument(config)}   drawn: tracker "
        f"dashboard{store_argument(config)}",
    )
    return SOME_FAILED if failed else DONE


def measure_weights(
    config: Config, sweep: ResolvedSweep, console: Console, store: Store, *, alone: bool = True
) -> list[Outcome]:
    """Measure the weights of planned checkpoints that lack them, with a bar per model and seed.

    Args:
        config: the request.
        sweep: its plan.
        console: shows the bars.
        store: where they go.
        alone: as for ``weight_tasks``.
    """
    from tracker.engines.placement import chosen_device
    from tracker.engines.prefetch import Prefetch
    from tracker.engines.weight_pass import run_weights, weight_tasks

    again = alone and config.remeasure == "all"  # a sweep has just measured them
    tasks = weight_tasks(sweep.plan.units, store.recorded(), again=again, alone=alone)
    if not tasks:
        return []
    units = tuple(task.planned for task in tasks)
    groups = by_model(units)
    bars, done = Bars(console, "weights of"), dict.fromkeys(groups, 0)
    for name, members in groups.items():
        bars.add(name, len(members))
    supply = Prefetch(units, checkpoint_cache(config), depth=config.engine.prefetch)
    outcomes: list[Outcome] = []
    with bars.running():
        for outcome in run_weights(tasks, store, supply, chosen_device(config.device)):
            at = outcome.unit.checkpoint
            name = f"{at.model} seed {at.seed}"
            done[name] += 1
            outcomes.append(outcome)
            bars.advance_to(name, done[name], f"step {at.step} in {readable_time(outcome.seconds)}")
    return outcomes


def _print_runs(store: Store, units: tuple[PlannedUnit, ...], console: Console) -> None:
    """Print a table per run, and once each what of its weights is not known."""
    from tracker.engines.weight_pass import name_of, weight_rows
    from tracker.measurement.weight_tables import note_in

    places = weight_rows(store, store.recorded())
    notes: dict[str, None] = {}
    for name, members in by_model(units).items():
        known = sorted(name_of(each) for each in members if name_of(each) in places)
        if known:
            console.print()
            ends = [places[known[0]], places[known[-1]]][: len(known)]
            rows = [read_table(place, "checkpoint").row(0, named=True) for place in ends]
            print_table(console, weights_table(name, rows))
            for line in rotary_lines(rows):
                print_line(console, line)
            notes |= {f"{known[0][1]}: {note}": None for row in rows if (note := note_in(row["reason"]))}
    for note in notes:
        print_line(console, note)
    console.print()
