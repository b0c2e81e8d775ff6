"""``tracker compare``: models, position encodings, or two stores compared: text, table, compare.json."""

from pathlib import Path
from typing import Any

from rich.console import Console

from tracker.commands.results import chosen_results, without_suspects, write_report
from tracker.config import Config
from tracker.console.output import DONE, print_damaged, print_line
from tracker.console.tables import comparison_table
from tracker.errors import RequestError, StoreError
from tracker.store import Results, select_results


def run(config: Config, console: Console) -> int:
    """Compare what ``compare.*`` chooses, print it and write compare.json."""
    from tracker.commands.comparison import compare_encodings, compare_models, compare_stores
    from tracker.console.tables import encoding_table

    results = chosen_results(config)
    print_damaged(console, results.damaged)
    _, suspects = without_suspects(results, config)
    if config.compare.other is not None:
        report = compare_stores(results, _other_results(config)).to_dict()
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
            _write_figure(report, config.figures)
    for sentence in report["sentences"]:
        print_line(console, sentence)
    write_report(config.store / "compare.json", report)
    print_line(console, f"Details: {config.store / 'compare.json'}")
    return DONE


def _other_results(config: Config) -> Results:
    """Open the results that ``compare.other*`` chooses.

    Raises:
        RequestError: they are the very same results.
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
    return select_results(choice.other, probe=other[0], conventions=other[1], suite=other[2])


def _write_figure(report: dict[str, Any], folder: Path) -> None:
    from tracker.views import compare_figure

    figure = compare_figure(report)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for ending in ("svg", "pdf", "png"):
            figure.savefig(folder / f"archetypes.{ending}")
    except OSError as error:
        raise StoreError(f"{folder} cannot be written: {error}; choose another figures=") from error
