"""The verbs that read a store and tell: analyse, compare, validate, dashboard."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tracker.atomic import save_json
from tracker.checkpoints.audit.file import suspects as suspects_of
from tracker.config import Config
from tracker.console.charts import show_charts
from tracker.console.terminal import DONE, SOME_FAILED, Bars, comparison_table, say, tell_alerts
from tracker.errors import RequestError, StoreError, counted
from tracker.store import Results, open_store, record_folders
from tracker.store.journal import live_alerts
from tracker.store.progress import Watch

if TYPE_CHECKING:
    import polars as pl

    from tracker.analysis.assumptions import Limits
    from tracker.validate import Finding


def show(results: Results, config: Config, console: Console) -> list[str]:
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
    from tracker.analysis.assumptions import alerts_of, break_conditions
    from tracker.analysis.lead_lag_report import HEAD_COLUMNS
    from tracker.analysis.roles import COLUMNS, head_roles

    checkpoints, suspects = _for_fits(results, config)
    found = analyse(
        results.checkpoints(), results.sequences(), results.heads(HEAD_COLUMNS), suspects=suspects
    )
    alerts = alerts_of(break_conditions(checkpoints, found.phases, _limits(config)))
    roles = head_roles(results.heads(COLUMNS), checkpoints, config.conventions)
    report = replace(found, alerts=alerts, roles=tuple(roles)).to_dict()
    report["alerts"] += live_alerts(config.store, found.probe, found.conventions)
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
    suspects = suspects_of(results.folder).among(checkpoints.iter_rows(named=True))
    names = ["suite", "model", "seed", "step"]
    out = pl.DataFrame(list(suspects), schema=checkpoints.select(names).schema, orient="row")
    return checkpoints.join(out, on=names, how="anti"), suspects


def _limits(config: Config) -> "Limits":
    from tracker.analysis.assumptions import Limits

    return Limits(
        **{name: value for name, value in vars(config.validate).items() if name not in ("runs", "seed")}
    )


def write_json(path: Path, content: object) -> None:
    """A report in the store.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        save_json(path, content)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error}; free it, or change store=") from error


def analyse_store(config: Config, console: Console) -> int:
    """Phases per model and thresholds over models: text and analysis.json."""
    _analysed(view(config), config, console)
    say(console, f"Details: {config.store / 'analysis.json'}")
    return DONE


def compare(config: Config, console: Console) -> int:
    """Models side by side, or two stores checkpoint by checkpoint: table, text and compare.json."""
    from tracker.commands.comparison import compare_encodings, compare_models, compare_stores
    from tracker.console.tables import encoding_table

    results = view(config)
    _, suspects = _for_fits(results, config)
    if config.compare.other is not None:
        report = compare_stores(results, _other_view(config)).to_dict()
    elif config.compare.by == "encoding":
        found = compare_encodings(results, suspects)
        report = found.to_dict()
        for entry in found.encodings:
            console.print(encoding_table(entry))
    else:
        found = compare_models(results, config.compare, suspects)
        report = found.to_dict()
        console.print(comparison_table(found.models))
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
    from tracker.views import compare_figure

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
    """Draws the store again: analysis.json, dashboard.html and, where asked for, figures; or serves it."""
    if config.serve:
        return _serve(config, console)
    for sentence in show(view(config), config, console):
        say(console, sentence)
    return DONE


def _serve(config: Config, console: Console) -> int:
    """Serves the dashboard of a store, which a sweep may be filling, until Ctrl-C."""
    from tracker.views.served_store import ServedStore
    from tracker.views.serving import DashboardServer

    server = DashboardServer(ServedStore(config.store, lambda: view(config)), config.view.port)
    recorded = next(record_folders(config.store), None) is not None
    if recorded and not any(sweep["alive"] for sweep in Watch(config.store).look()):
        for sentence in show(view(config), config, console):
            say(console, sentence)
    elif not recorded:
        say(console, f"{config.store}: holds no measurement yet; the page fills when a sweep stores some")
    say(console, f"Serving {server.address} to this machine alone; Ctrl-C ends it")
    try:
        server.serve()
    except KeyboardInterrupt:
        say(console, "Stopped serving; nothing is lost")
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
        if (config.store / "checkpoints").is_dir():
            passed += _stored_alarms(view(config), config, console)
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


def _stored_alarms(results: Results, config: Config, console: Console) -> list[bool]:
    """Shows how often the analysis claims a change on null curves made of the store's own noise."""
    from tracker.validate import findings_table, stored_alarms

    checkpoints, suspects = _for_fits(results, config)
    findings = stored_alarms(checkpoints, results.sequences(), suspects)
    if findings:
        console.print(findings_table(f"Analysis: null curves from {config.store}", findings))
    return [each.passed for each in findings]


def _conditions(results: Results, config: Config, console: Console) -> list[bool]:
    """Shows the break conditions of a store; whether each that could be judged holds."""
    from tracker.analysis import analyse_phases
    from tracker.analysis.assumptions import break_conditions
    from tracker.validate import conditions_table

    checkpoints, suspects = _for_fits(results, config)
    found_phases = analyse_phases(results.checkpoints(), results.sequences(), suspects)
    phases = [entry for _, entry in found_phases]
    found = break_conditions(checkpoints, phases, _limits(config))
    if not found:
        say(console, f"{config.store}: no checkpoint is measured, so there is nothing to judge")
        return []
    console.print(conditions_table(f"Stored results in {config.store}", found))
    for each in found:
        if not each.passed:
            say(console, each.sentence)
    return [each.passed for each in found if each.passed is not None]
