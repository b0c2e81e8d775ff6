"""``tracker compare``: models, position encodings, or two stores compared: text, table, compare.json."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tracker.commands.results import chosen_results, without_suspects, write_report
from tracker.config import Config
from tracker.console.output import DONE, print_damaged, print_line, print_table
from tracker.errors import RequestError, StoreError
from tracker.store import Results, select_results

if TYPE_CHECKING:
    from tracker.analysis.comparison_report import ModelComparison


def run(config: Config, console: Console) -> int:
    """Compare what ``compare.*`` chooses, print it and write compare.json."""
    from tracker.commands.comparison import compare_encodings, compare_models, compare_stores
    from tracker.console.comparison_tables import encoding_table

    results = chosen_results(config)
    print_damaged(console, results.damaged)
    _, suspects = without_suspects(results, config)
    sentences: Sequence[str] = ()
    if config.compare.other is not None:
        found = compare_stores(results, _other_results(config))
        report, sentences = found.to_dict(), found.sentences
    elif config.compare.by == "encoding":
        found = compare_encodings(results, suspects)
        report, sentences = found.to_dict(), found.sentences
        for entry in found.encodings:
            print_table(console, encoding_table(entry))
    else:
        found = compare_models(results, config.compare, suspects)
        report = found.to_dict()
        _print_models(found, console)
        if config.figures:
            _write_figure(report, config.figures)
    for sentence in sentences:
        print_line(console, sentence)
    write_report(config.store / "compare.json", report)
    print_line(console, f"Details: {config.store / 'compare.json'}")
    return DONE


def _print_models(found: "ModelComparison", console: Console) -> None:
    """Print the models as tables, with the paper's values in brackets; sentences stand in compare.json."""
    from tracker.analysis.comparison_report import ONE_MODEL
    from tracker.analysis.text.comparison import CAUTION, archetype_limits, difference_line
    from tracker.console.comparison_tables import comparison_tables, training_table
    from tracker.console.paper_tables import paper_tables

    tables = comparison_tables(found.models, found.archetypes, found.paper, found.transitions)
    for table in (*tables, training_table(found.paper), *paper_tables(found.placed, console.width)):
        if table is not None:
            print_table(console, table)
    for sentence in (
        "Mean and half width of its 95 % interval; in brackets the paper's value, where it has one.",
        archetype_limits(found.archetypes),
        difference_line(found.models, found.differences) if len(found.models) > 1 else ONE_MODEL,
        CAUTION if found.paper or found.placed else "",
    ):
        if sentence:
            print_line(console, sentence)


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
