"""What each verb does with a checked configuration. Heavy imports wait until they are needed."""

import json
import os
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tracker.checkpoints.audit_file import suspects as suspects_of
from tracker.config import Config, NanoSuite
from tracker.console import (
    Bars,
    by_model,
    comparison_table,
    counted,
    readable_time,
    say,
    tell_alerts,
    tell_holes,
)
from tracker.errors import RequestError, StoreError
from tracker.forecast import note_transfer
from tracker.inspection import audit, cache_of, look_first, opening, plan
from tracker.records import Outcome, PlannedUnit
from tracker.store import Results, Store, open_store, require_store
from tracker.survey import Survey, nano_recipe, suite_name, survey
from tracker.terminal_chart import show_charts

if TYPE_CHECKING:
    import polars as pl

    from tracker.analysis.break_conditions import Limits
    from tracker.engines import Prefetch
    from tracker.sinks import PublisherHandle, SinkOptions
    from tracker.validate import Finding

DONE, SOME_FAILED = 0, 1
Verb = Callable[[Config, Console], int]


def sweep(config: Config, console: Console) -> int:
    """Measures what is not measured yet, streams it, then analyses and draws."""
    from tracker.sinks import promised_by, start_publisher

    options = sink_options(config)
    surveyed = survey(config)
    pending = surveyed.plan.pending
    if pending:
        check_device(config)
    say(console, opening(config, surveyed))
    if not surveyed.plan.units:
        say(console, f"shard {config.shard[0]}/{config.shard[1]} of this plan is empty: nothing to do")
        return DONE
    store = Store(config.store)
    prepare_store(store)
    if pending and isinstance(config.suite, NanoSuite):
        train(config, console, {planned.unit.checkpoint.model for planned in pending})
    publisher = start_publisher(config.store, options, promised_by(pending))
    try:
        _tidy(config, surveyed, needed=True)
        outcomes = _measure_pending(config, surveyed, store, console) if pending else []
        _tidy(config, surveyed, needed=False)
        views = _show(_sweep_results(config, surveyed), config, console)
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


def check_device(config: Config) -> str:
    """The torch device of the request, which must exist before any work begins."""
    from tracker.engines import chosen_device

    return chosen_device(config.device)


def train(config: Config, console: Console, models: Iterable[str]) -> None:
    """Trains what the embedded suite lacks, with a bar per model and seed."""
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
    bars = Bars(console, "training")
    for model, seed in sorted(lacking):
        bars.add(f"{model} seed {seed}", recipe.train_steps)

    def moved(model: str, seed: int, step: int, total: int, loss: float) -> None:
        bars.advance_to(f"{model} seed {seed}", step, f"loss {loss:.2f}")

    with bars.running():
        train_suite(recipe, folder, wanted, suite.seeds, moved, suite.threads)


def _measure_pending(config: Config, surveyed: Survey, store: Store, console: Console) -> list[Outcome]:
    """Runs the engine over the pending units."""
    import torch

    from tracker.engines import Worker, run_inline

    if config.engine.threads:
        torch.set_num_threads(config.engine.threads)
    pending = surveyed.plan.pending
    groups = by_model(pending)
    bars, done = Bars(console, "measuring"), dict.fromkeys(groups, 0)
    for name, units in groups.items():
        bars.add(name, len(units))
    device, digests = check_device(config), token_digests(store, surveyed)
    shapes = _shapes(config, surveyed)
    worker = Worker(store, surveyed.source, device, digests, config.engine.stream, shapes)
    supply = _supply(config, surveyed, console)
    outcomes: list[Outcome] = []
    with bars.running():
        for outcome in run_inline(supply, worker):
            checkpoint = outcome.unit.checkpoint
            name = f"{checkpoint.model} seed {checkpoint.seed}"
            done[name] += 1
            outcomes.append(outcome)
            note = f"step {checkpoint.step} in {readable_time(outcome.seconds)}"
            fetched = supply.received[checkpoint.model, checkpoint.seed]
            bars.advance_to(name, done[name], note, fetched)
            if outcome.status != "ok":
                say(console, str(outcome.reason))
    note_transfer(config.store, supply.received.total(), supply.seconds)
    return outcomes


def _supply(config: Config, surveyed: Survey, console: Console) -> "Prefetch":
    """What fetches the pending units' checkpoints ahead, after the hub has been asked what they are."""
    from tracker.engines import Prefetch

    listed = look_first(config, surveyed, console)
    inspected = {} if listed is None else listed.inspected
    return Prefetch(
        surveyed.plan.pending, cache_of(config), depth=config.engine.prefetch, inspected=inspected
    )


def _tidy(config: Config, surveyed: Survey, *, needed: bool) -> None:
    """Cleans the cache of what killed sweeps left; ``needed``: not of what this plan is about to fetch."""
    cache = cache_of(config)
    # Where nothing is to be removed, what arrived of a checkpoint that failed is kept for the next try.
    kept = needed or cache.max_bytes is None
    pending = [planned.unit.checkpoint for planned in surveyed.plan.pending]
    cache.tidy({(each.location, each.revision) for each in pending if each.kind == "hub"} if kept else ())


def token_digests(store: Store, surveyed: Survey) -> dict[tuple[str, str, int, str], str]:
    """Per model and probe the digest of the token ids that its recorded checkpoints were measured on,
    those left out that are about to be measured again."""
    again = {planned.unit.id for planned in surveyed.plan.pending}
    return {
        (record.suite, record.model, record.seed, record.probe): record.token_digest
        for record in store.recorded().values()
        if record.status == "ok" and record.token_digest is not None and record.id not in again
    }


def _shapes(config: Config, surveyed: Survey) -> dict[tuple[str, str, int], tuple[int, int, int]]:
    """Per model and seed the layers, heads per layer and width of its measured checkpoints."""
    try:
        results = _sweep_results(config, surveyed)
    except RequestError:  # nothing is recorded yet of this probe
        return {}
    columns = ["suite", "model", "seed", "n_layers", "n_heads", "d_model"]
    measured = results.checkpoints([*columns, "status"]).filter(status="ok")
    return {row[:3]: row[3:] for row in measured.select(columns).iter_rows()}


def _sweep_results(config: Config, surveyed: Survey) -> Results:
    unit = surveyed.plan.units[0].unit
    return open_store(
        config.store, probe=unit.probe.label, conventions=unit.conventions.label, suite=suite_name(config)
    )


def _finish(publisher: "PublisherHandle") -> list[str]:
    try:
        return publisher.finish()
    except KeyboardInterrupt:
        return ["W&B was not waited for; `tracker stream` sends the rest"]


def _closing(surveyed: Survey, store: Store, outcomes: list[Outcome], console: Console) -> int:
    """Says how many units were measured and names every hole; the exit code of the sweep."""
    measured = sum(outcome.status == "ok" for outcome in outcomes)
    say(console, f"{counted(measured, 'unit')} measured")
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


def _show(results: Results, config: Config, console: Console) -> list[str]:
    """Analyses results, writes analysis.json and the dashboard, says what was found; returns where."""
    from tracker.views import write_dashboard, write_figures

    report = _analysed(results, config, console)
    page = write_dashboard(results, report, config.store / "dashboard.html")
    figures = write_figures(results, report, config.figures) if config.figures else []
    places = [f"Dashboard: {page}"]
    return [*places, f"Figures: {len(figures)} files in {config.figures}"] if figures else places


def _analysed(results: Results, config: Config, console: Console) -> dict[str, Any]:
    """Analyses results, writes analysis.json with its alerts, and says what was found."""
    from tracker.analysis import analyse
    from tracker.analysis.break_conditions import alerts_of, break_conditions
    from tracker.analysis.why_report import HEAD_COLUMNS

    checkpoints, suspects = _for_fits(results, config)
    report = analyse(
        results.checkpoints(), results.sequences(), results.heads(HEAD_COLUMNS), suspects=suspects
    )
    report["alerts"] = alerts_of(break_conditions(checkpoints, report["phases"], _limits(config)))
    write_json(config.store / "analysis.json", report)
    show_charts(console, checkpoints, report["phases"])
    for sentence in report["summary"]:
        say(console, sentence)
    tell_alerts(console, [alert["sentence"] for alert in report["alerts"]])
    return report


def _for_fits(
    results: Results, config: Config
) -> tuple["pl.DataFrame", dict[tuple[str, str, int, int], str]]:
    """The checkpoint table without suspect checkpoints, and those with the reason; all where asked for."""
    import polars as pl

    checkpoints = results.checkpoints()
    if config.view.suspects:
        return checkpoints, {}
    suspects = suspects_of(results.folder).among(checkpoints.filter(status="ok").iter_rows(named=True))
    names = ["suite", "model", "seed", "step"]
    out = pl.DataFrame(list(suspects), schema=checkpoints.select(names).schema, orient="row")
    return checkpoints.join(out, on=names, how="anti"), suspects


def _limits(config: Config) -> "Limits":
    from tracker.analysis.break_conditions import Limits

    return Limits(
        **{name: value for name, value in vars(config.validate).items() if name not in ("runs", "seed")}
    )


def write_json(path: Path, content: object) -> None:
    """Writes JSON whole or not at all.

    Raises:
        StoreError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        partial.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error}; free it, or change store=") from error


def analyse_store(config: Config, console: Console) -> int:
    """Phases per model and thresholds over models: text and analysis.json."""
    _analysed(view(config), config, console)
    say(console, f"Details: {config.store / 'analysis.json'}")
    return DONE


def compare(config: Config, console: Console) -> int:
    """Models side by side, or two stores checkpoint by checkpoint: table, text and compare.json."""
    from tracker.comparison import compare_models, compare_stores

    results = view(config)
    _, suspects = _for_fits(results, config)
    if config.compare.other is not None:
        report = compare_stores(results, _other_view(config))
    else:
        found, report = compare_models(results, config.compare, suspects)
        console.print(comparison_table(found))
        if config.figures:
            _write_comparison(report, config.figures)
    for sentence in report["sentences"]:
        say(console, sentence)
    write_json(config.store / "compare.json", report)
    say(console, f"Details: {config.store / 'compare.json'}")
    return DONE


def _other_view(config: Config) -> Results:
    """The store that ``compare.other*`` chooses.

    Raises:
        RequestError: it is this very view.
    """
    choice, mine = config.compare, config.view
    assert choice.other is not None
    own = (config.store.resolve(), mine.probe, mine.conventions, mine.suite)
    other = (choice.other_probe, choice.other_conventions, choice.other_suite)
    if own == (Path(choice.other).resolve(), *other):
        raise RequestError(
            f"compare.other={choice.other}: is this store itself; choose another folder, or what differs in "
            "it with compare.other_probe, compare.other_conventions or compare.other_suite"
        )
    return open_store(choice.other, probe=other[0], conventions=other[1], suite=other[2])


def _write_comparison(report: dict[str, Any], folder: Path) -> None:
    from tracker.views.compare_figure import compare_figure

    figure = compare_figure(report)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for ending in ("svg", "pdf", "png"):
            figure.savefig(folder / f"archetypes.{ending}")
    except OSError as error:
        raise StoreError(f"{folder} cannot be written: {error}; choose another figures=") from error


def view(config: Config) -> Results:
    """The stored results that ``view.*`` chooses."""
    return open_store(
        config.store, probe=config.view.probe, conventions=config.view.conventions, suite=config.view.suite
    )


def dashboard(config: Config, console: Console) -> int:
    """Draws the store again: analysis.json, dashboard.html and, where asked for, figures."""
    for sentence in _show(view(config), config, console):
        say(console, sentence)
    return DONE


def validate(config: Config, console: Console) -> int:
    """Tries the metrics on ground truth, the analysis on synthetic runs, and stored results on the paper's
    mechanisms; 1 where anything fails."""
    what = config.what
    stored = what == "breaks" or (what in ("auto", "all") and (config.store / "checkpoints").is_dir())
    results = view(config) if stored else None
    from tracker.validate import agreement, findings_table, ground_truth

    passed = []
    if what in ("auto", "all", "experiments"):
        findings = [*ground_truth(), *agreement()]
        console.print(findings_table("Metrics: ground truth and independent witnesses", findings))
        passed += [each.passed for each in findings]
    if what in ("all", "analysis"):
        findings = _detected(config.validate.runs, config.validate.seed, console)
        console.print(findings_table("Analysis: synthetic runs whose truth is known", findings))
        passed += [each.passed for each in findings]
    if results is not None:
        passed += _conditions(results, config, console)
    failed = passed.count(False)
    say(console, f"{counted(len(passed), 'check')}, {failed} failed")
    return SOME_FAILED if failed else DONE


def _detected(runs: int, seed: int, console: Console) -> "list[Finding]":
    from tracker.validate import detection, runs_in_all

    bars, done = Bars(console, "analysing"), 0
    bars.add("synthetic runs", runs_in_all(runs))

    def moved() -> None:
        nonlocal done
        done += 1
        bars.advance_to("synthetic runs", done)

    with bars.running():
        return detection(runs, moved, seed=seed)


def _conditions(results: Results, config: Config, console: Console) -> list[bool]:
    """Shows the break conditions of a store; whether each that could be judged holds."""
    from tracker.analysis import analyse
    from tracker.analysis.break_conditions import break_conditions
    from tracker.validate import conditions_table

    checkpoints, suspects = _for_fits(results, config)
    phases = analyse(results.checkpoints(), results.sequences(), suspects=suspects)["phases"]
    found = break_conditions(checkpoints, phases, _limits(config))
    if not found:
        say(console, f"{config.store}: no checkpoint is measured, so there is nothing to judge")
        return []
    console.print(conditions_table(f"Stored results in {config.store}", found))
    for each in found:
        if not each.passed:
            say(console, each.sentence)
    return [each.passed for each in found if each.passed is not None]


def stream(config: Config, console: Console) -> int:
    """Sends to W&B what the store holds and W&B does not; with ``workspace=true`` makes the workspace too."""
    from tracker.sinks import publish, require_server, save_workspace

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
    survey(config)
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
        from tracker.sinks import SinkOptions

        return SinkOptions(**config.sink).validate()
    except TypeError as error:
        raise RequestError(f"sink: {error}") from error


VERBS: dict[str, Verb] = {
    "sweep": sweep,
    "plan": plan,
    "audit": audit,
    "analyse": analyse_store,
    "compare": compare,
    "validate": validate,
    "dashboard": dashboard,
    "stream": stream,
    "nano": nano,
}
