"""``tracker dashboard``: the store as one HTML file, as figures, or served while a sweep fills it."""

from rich.console import Console

from tracker.commands.analyse import analyse_results
from tracker.commands.results import chosen_results
from tracker.config import Config
from tracker.console.output import DONE, print_line
from tracker.store import Results, record_folders
from tracker.store.progress import Watch


def run(config: Config, console: Console) -> int:
    """Analyse and draw the store again, or serve it until Ctrl-C."""
    if config.serve:
        return _serve(config, console)
    for sentence in draw(chosen_results(config), config, console):
        print_line(console, sentence)
    return DONE


def draw(results: Results, config: Config, console: Console) -> list[str]:
    """Analyse results, write analysis.json, dashboard.html and, where asked for, figures; print the findings.

    Returns:
        Sentences that say where the dashboard and the figures are.
    """
    from tracker.views import write_dashboard, write_figures

    report = analyse_results(results, config, console)
    page = write_dashboard(results, report, config.store / "dashboard.html")
    places = [f"Dashboard: {page}"]
    if config.figures:
        figures = write_figures(results, report, config.figures)
        places.append(f"Figures: {len(figures)} files in {config.figures}")
    return places


def _serve(config: Config, console: Console) -> int:
    """Serve the dashboard of a store, which a sweep may be filling, until Ctrl-C."""
    from tracker.views.served_store import ServedStore
    from tracker.views.serving import DashboardServer

    server = DashboardServer(ServedStore(config.store, lambda: chosen_results(config)), config.view.port)
    recorded = next(record_folders(config.store), None) is not None
    if recorded and not any(sweep["alive"] for sweep in Watch(config.store).look()):
        for sentence in draw(chosen_results(config), config, console):
            print_line(console, sentence)
    elif not recorded:
        print_line(
            console, f"{config.store}: holds no measurement yet; the page fills when a sweep stores some"
        )
    print_line(console, f"Serving {server.address} to this machine alone; Ctrl-C ends it")
    try:
        server.serve()
    except KeyboardInterrupt:
        print_line(console, "Stopped serving; nothing is lost")
    return DONE
