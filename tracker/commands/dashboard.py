"""``tracker dashboard``: the store as one HTML file, as figures, or served while a sweep fills it."""

import threading
from typing import Any

from rich.console import Console

from tracker.commands.analysed import analysed
from tracker.commands.results import chosen_results
from tracker.config import Config
from tracker.console.output import DONE, print_damaged, print_line
from tracker.errors import TrackerError
from tracker.store import Results, record_folders
from tracker.store.progress import Watch


def run(config: Config, console: Console) -> int:
    """Analyse and draw the store again, or serve it until Ctrl-C."""
    if config.serve:
        return _serve(config, console)
    results = chosen_results(config)
    print_damaged(console, results.damaged)
    draw(results, analysed(results, config), config)
    print_line(console, f"Dashboard: {config.store / 'dashboard.html'}")
    if config.figures:
        print_line(console, f"Figures: {config.figures}")
    return DONE


def draw(results: Results, report: dict[str, Any], config: Config) -> None:
    """Write dashboard.html and, where asked for, figures.

    Args:
        results: what is drawn.
        report: its analysis, the content of analysis.json.
        config: the request.
    """
    from tracker.views import write_dashboard

    write_dashboard(results, report, config.store / "dashboard.html")
    if config.figures:
        from tracker.views import write_figures

        write_figures(results, report, config.figures)


def _serve(config: Config, console: Console) -> int:
    """Serve the dashboard of a store, which a sweep may be filling, until Ctrl-C."""
    from tracker.views.served_store import ServedStore
    from tracker.views.serving import DashboardServer

    server = DashboardServer(ServedStore(config.store, lambda: chosen_results(config)), config.view.port)
    recorded = next(record_folders(config.store), None) is not None
    print_line(console, f"Serving {server.address} to this machine alone; Ctrl-C ends it")
    if not recorded:
        print_line(
            console, f"{config.store}: holds no measurement yet; the page fills when a sweep stores some"
        )
    elif not any(sweep["alive"] for sweep in Watch(config.store).look()):
        results = chosen_results(config)
        threading.Thread(target=_draw_behind, args=(results, config, console), daemon=True).start()
    try:
        server.serve()
    except KeyboardInterrupt:
        print_line(console, "Stopped serving; nothing is lost")
    return DONE


def _draw_behind(results: Results, config: Config, console: Console) -> None:
    """Analyse and draw while the page is already served, which shows the analysis as soon as it is there."""
    try:
        draw(results, analysed(results, config), config)
    except TrackerError as error:
        print_line(console, str(error))
