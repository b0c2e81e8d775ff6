"""``tracker sweep``: measure what is not measured yet, stream it, then analyse and draw."""

import contextlib
from typing import TYPE_CHECKING

from rich.console import Console

from tracker.commands.analysed import analysed
from tracker.commands.audit import audit_pending
from tracker.commands.dashboard import draw
from tracker.commands.nano import prepare_store, train
from tracker.commands.plan import opening
from tracker.commands.stream import sink_options
from tracker.commands.swept import Swept, print_swept
from tracker.commands.weights import measure_weights
from tracker.config import Config, NanoSuite
from tracker.console.output import DONE, SOME_FAILED, print_damaged, print_holes, print_line, readable_time
from tracker.console.progress import Bars
from tracker.console.tables import by_model
from tracker.engines.launch import check_workers, launch
from tracker.planning.estimate import note_transfer
from tracker.planning.resolve import ResolvedSweep, checkpoint_cache, resolve, sweep_results
from tracker.records import Outcome
from tracker.store import Store, UnlikeRecord, kept_in_sight
from tracker.store.progress import SweepProgress, report_progress

if TYPE_CHECKING:
    from tracker.wandb_sink import PublisherHandle, SinkOptions


def run(config: Config, console: Console) -> int:
    """Train, measure, stream, analyse and draw; 1 where any planned checkpoint is not measured."""
    from tracker.wandb_sink.connection import destination, offline_unless_asked

    options = sink_options(config)
    if isinstance(config.suite, NanoSuite):
        options = offline_unless_asked(options)
    sweep = resolve(config)
    pending = sweep.plan.pending
    if pending:
        check_workers(config)
    print_line(console, f"{opening(config, sweep)}; {destination(options, config.store)}")
    print_damaged(console, sweep.ledger.damaged)
    if not sweep.plan.units:
        print_line(console, f"shard {config.shard[0]}/{config.shard[1]} of this plan is empty: nothing to do")
        return DONE
    prepare_store(Store(config.store))
    with kept_in_sight(config.store) as store:
        return _run(config, sweep, console, store, options)


def _run(config: Config, sweep: ResolvedSweep, console: Console, store: Store, options: "SinkOptions") -> int:
    from tracker.wandb_sink import start_publisher

    pending = sweep.plan.pending
    try:
        with report_progress(config.store) as progress:
            if pending and isinstance(config.suite, NanoSuite):
                train(
                    config, console, {planned.unit.checkpoint.model for planned in pending}, store, progress
                )
            publisher = start_publisher(config.store, options)
            with publisher.left_alone_on_error():
                _tidy(config, sweep, needed=True)
                outcomes = _measure(config, sweep, console, store, progress) if pending else []
                if "weights" in config.options:
                    found = measure_weights(config, sweep, console, store, alone=False)
                    print_holes(console, [each for each in found if each.status != "ok"])
                _tidy(config, sweep, needed=False)
                progress.begin("analysing")
                results = sweep_results(config, sweep)
                analysis = analysed(results, config)
                store.require_same()
                draw(results, analysis, config)
            sentences = _finish(publisher)
    finally:
        with contextlib.suppress(OSError):  # what a worker left that was ended in the middle of writing
            store.sweep_partial()
    report = Swept(config, sweep, outcomes, analysis, sentences)
    unlike = [each for each in results.damaged if isinstance(each, UnlikeRecord)]
    print_damaged(console, unlike)
    print_swept(report, console)
    return SOME_FAILED if report.holes or unlike else DONE


def _measure(
    config: Config, sweep: ResolvedSweep, console: Console, store: Store, progress: SweepProgress
) -> list[Outcome]:
    """Run the engine over the pending units, with a bar per model and seed."""
    groups = by_model(sweep.plan.pending)
    bars, done = Bars(console, "measuring", progress), dict.fromkeys(groups, 0)
    for name, units in groups.items():
        bars.add(name, len(units))
    listed = audit_pending(config, sweep, console)
    outcomes: list[Outcome] = []
    with (
        launch(
            config,
            sweep,
            store=store,
            heartbeat=progress.heartbeat,
            cache=checkpoint_cache(config),
            inspected={} if listed is None else listed.inspected,
        ) as running,
        bars.running(),
    ):
        for outcome in running.outcomes:
            checkpoint = outcome.unit.checkpoint
            name = f"{checkpoint.model} seed {checkpoint.seed}"
            done[name] += 1
            outcomes.append(outcome)
            note = f"step {checkpoint.step} in {readable_time(outcome.seconds)}"
            bars.advance_to(
                name, done[name], note, running.transfer.received[checkpoint.model, checkpoint.seed]
            )
            if outcome.status != "ok":
                print_line(console, str(outcome.reason))
    note_transfer(config.store, running.transfer.received.total(), running.transfer.seconds)
    return outcomes


def _tidy(config: Config, sweep: ResolvedSweep, *, needed: bool) -> None:
    """Remove from the cache what killed sweeps left; with ``needed`` keep what this plan will fetch."""
    cache = checkpoint_cache(config)
    # Where nothing is to be removed, what arrived of a checkpoint that failed is kept for the next try.
    kept = needed or cache.max_bytes is None
    pending = [planned.unit.checkpoint for planned in sweep.plan.pending]
    cache.tidy({(each.location, each.revision) for each in pending if each.kind == "hub"} if kept else ())


def _finish(publisher: "PublisherHandle") -> list[str]:
    try:
        return publisher.finish()
    except KeyboardInterrupt:
        return ["W&B delivery unfinished; run `tracker stream` to send the rest"]
