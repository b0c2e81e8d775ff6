"""What each verb does with a checked configuration. Heavy imports wait until they are needed."""

import uuid
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tracker.commands.drivers import drivers
from tracker.commands.inspection import audit, cache_of, look_first, opening, plan
from tracker.commands.measuring import check_workers, measuring, sweep_results
from tracker.commands.reporting import analyse_store, compare, dashboard, show, validate
from tracker.commands.roles import roles
from tracker.config import Config, NanoSuite
from tracker.console.terminal import (
    DONE,
    SOME_FAILED,
    Bars,
    by_model,
    readable_time,
    say,
    tell_holes,
)
from tracker.errors import RequestError, counted
from tracker.planning.estimate import note_transfer
from tracker.planning.resolve import ResolvedSweep, nano_recipe, resolve
from tracker.records import Outcome, PlannedUnit
from tracker.store import Store, require_store
from tracker.store.progress import Telling, telling

if TYPE_CHECKING:
    from tracker.wandb_sink import PublisherHandle, SinkOptions

Verb = Callable[[Config, Console], int]


def sweep(config: Config, console: Console) -> int:
    """Measures what is not measured yet, streams it, then analyses and draws."""
    from tracker.wandb_sink import start_publisher

    options = sink_options(config)
    surveyed = resolve(config)
    pending = surveyed.plan.pending
    if pending:
        check_workers(config)
    say(console, opening(config, surveyed))
    if not surveyed.plan.units:
        say(console, f"shard {config.shard[0]}/{config.shard[1]} of this plan is empty: nothing to do")
        return DONE
    store = Store(config.store)
    prepare_store(store)
    with telling(config.store) as told:
        if pending and isinstance(config.suite, NanoSuite):
            train(config, console, {planned.unit.checkpoint.model for planned in pending}, told)
        publisher = start_publisher(config.store, options)
        try:
            _tidy(config, surveyed, needed=True)
            outcomes = _measure_pending(config, surveyed, store, console, told) if pending else []
            _tidy(config, surveyed, needed=False)
            told.begin("analysing")
            views = show(sweep_results(config, surveyed), config, console)
        finally:
            sentences = _finish(publisher)
    for sentence in [*views, *sentences]:
        say(console, sentence)
    return _closing(surveyed, store, outcomes, console)


def prepare_store(store: Store) -> None:
    """Makes the store's folder, and clears what killed sweeps left half-written.

    Raises:
        RequestError: it cannot be written to.
    """
    try:
        store.checkpoints.mkdir(parents=True, exist_ok=True)
        probe = store.folder / f".writable-{uuid.uuid4().hex}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise RequestError(
            f"store={store.folder}: cannot be written: {error}; choose another folder"
        ) from error
    store.sweep_partial()


def train(config: Config, console: Console, models: Iterable[str], told: Telling | None = None) -> None:
    """Trains what the embedded suite lacks, with a bar per model and seed; ``told`` is told of them too."""
    from tracker.nano import suite_checkpoints, train_suite

    suite = config.suite
    assert isinstance(suite, NanoSuite)
    recipe, folder = nano_recipe(suite), config.store / "nano"
    wanted = [model for model in suite.models if model in set(models)]
    lacking = {
        (c.model, c.seed) for c in suite_checkpoints(recipe, folder, wanted, suite.seeds) if not c.exists
    }
    if not lacking:
        return
    bars = Bars(console, "training", told)
    for model, seed in sorted(lacking):
        bars.add(f"{model} seed {seed}", recipe.train_steps)

    def moved(model: str, seed: int, step: int, total: int, loss: float) -> None:
        bars.advance_to(f"{model} seed {seed}", step, f"loss {loss:.2f}")

    with bars.running():
        train_suite(recipe, folder, wanted, suite.seeds, moved, suite.threads)


def _measure_pending(
    config: Config, surveyed: ResolvedSweep, store: Store, console: Console, told: Telling
) -> list[Outcome]:
    """Runs the engine over the pending units."""
    pending = surveyed.plan.pending
    groups = by_model(pending)
    bars, done = Bars(console, "measuring", told), dict.fromkeys(groups, 0)
    for name, units in groups.items():
        bars.add(name, len(units))
    listed = look_first(config, surveyed, console)
    outcomes: list[Outcome] = []
    with (
        measuring(config, surveyed, store, {} if listed is None else listed.inspected) as run,
        bars.running(),
    ):
        for outcome in run.outcomes:
            checkpoint = outcome.unit.checkpoint
            name = f"{checkpoint.model} seed {checkpoint.seed}"
            done[name] += 1
            outcomes.append(outcome)
            note = f"step {checkpoint.step} in {readable_time(outcome.seconds)}"
            bars.advance_to(name, done[name], note, run.received[checkpoint.model, checkpoint.seed])
            if outcome.status != "ok":
                say(console, str(outcome.reason))
    note_transfer(config.store, run.received.total(), run.seconds())
    return outcomes


def _tidy(config: Config, surveyed: ResolvedSweep, *, needed: bool) -> None:
    """Cleans the cache of what killed sweeps left; ``needed``: not of what this plan is about to fetch."""
    cache = cache_of(config)
    # Where nothing is to be removed, what arrived of a checkpoint that failed is kept for the next try.
    kept = needed or cache.max_bytes is None
    pending = [planned.unit.checkpoint for planned in surveyed.plan.pending]
    cache.tidy({(each.location, each.revision) for each in pending if each.kind == "hub"} if kept else ())


def _finish(publisher: "PublisherHandle") -> list[str]:
    try:
        return publisher.finish()
    except KeyboardInterrupt:
        return ["W&B was not waited for; `tracker stream` sends the rest"]


def _closing(surveyed: ResolvedSweep, store: Store, outcomes: list[Outcome], console: Console) -> int:
    """Says how many units were measured and names every hole; the exit code of the sweep."""
    measured = [outcome for outcome in outcomes if outcome.status == "ok"]
    others = sum(outcome.elsewhere for outcome in measured)
    told = f", {others} by other sweeps meanwhile" if others else ""
    say(console, f"{counted(len(measured) - others, 'unit')} measured{told}")
    ledger = store.recorded()
    holes: list[Any] = [outcome for outcome in outcomes if outcome.status != "ok"]
    told = {hole.unit.id for hole in holes}
    for planned in surveyed.plan.units:
        record = ledger.get(planned.unit.id)
        if planned.unit.id not in told and (record is None or record.status != "ok"):
            reason = record.reason if record else "not recorded"
            holes.append(PlannedUnit(planned.unit, "missing", reason))
    if holes:
        say(console, f"{counted(len(holes), 'checkpoint')} without a measurement:")
        tell_holes(console, holes)
    return SOME_FAILED if holes else DONE


def stream(config: Config, console: Console) -> int:
    """Sends to W&B what the store holds and W&B does not; with ``workspace=true`` makes the workspace too."""
    from tracker.wandb_sink import publish, require_server, save_workspace

    options = sink_options(config)
    require_store(config.store)
    if config.workspace:
        require_server(options)
    published = publish(config.store, options)
    for sentence in published.sentences:
        say(console, sentence)
    if config.workspace:
        say(console, save_workspace(config.store, options))
    return DONE


def nano(config: Config, console: Console) -> int:
    """Trains the embedded suite and measures nothing."""
    if not isinstance(config.suite, NanoSuite):
        raise RequestError(f"tracker nano trains suite=nano, not suite={config.suite.name}")
    resolve(config)
    prepare_store(Store(config.store))
    train(config, console, config.suite.models)
    say(console, f"Trained: {', '.join(config.suite.models)} below {config.store / 'nano'}")
    return DONE


def sink_options(config: Config) -> "SinkOptions":
    """The sink of the request, checked.

    Raises:
        RequestError: a value that is not allowed.
    """
    try:
        from tracker.wandb_sink import SinkOptions

        return SinkOptions(**config.sink).validate()
    except TypeError as error:
        raise RequestError(f"sink: {error}") from error


VERBS: dict[str, Verb] = {
    "sweep": sweep,
    "plan": plan,
    "audit": audit,
    "analyse": analyse_store,
    "compare": compare,
    "roles": roles,
    "drivers": drivers,
    "validate": validate,
    "dashboard": dashboard,
    "stream": stream,
    "nano": nano,
}
