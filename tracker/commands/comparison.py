"""``tracker compare``: reads the tables of one store or two, and compares them."""

from tracker.analysis import comparison_report
from tracker.analysis.comparison_report import (
    ComparedAt,
    EncodingsReport,
    ModelComparison,
    StoreComparison,
    Tables,
)
from tracker.analysis.trajectories import Suspects
from tracker.config import Compare
from tracker.store import Results


def _tables(results: Results, suspects: Suspects | None = None) -> Tables:
    return Tables(str(results.folder), results.checkpoints(), results.sequences(), suspects)


def compare_models(results: Results, choice: Compare, suspects: Suspects | None = None) -> ModelComparison:
    """Compare the models of a store.

    Args:
        results: the opened store.
        choice: at which checkpoints; ``step`` and ``tokens`` say so by themselves.
        suspects: checkpoints that are left out, and why.

    Raises:
        RequestError: nothing is measured, or there is no checkpoint of that choice.
    """
    implied = "step" if choice.step is not None else "tokens" if choice.tokens is not None else "end"
    at = ComparedAt(implied if choice.at == "end" else choice.at, choice.step, choice.tokens)
    return comparison_report.compare_models(_tables(results, suspects), at)


def compare_stores(results: Results, other: Results) -> StoreComparison:
    """Compare two stores checkpoint by checkpoint.

    Raises:
        RequestError: they share no checkpoint.
    """
    return comparison_report.compare_stores(_tables(results), _tables(other))


def compare_encodings(results: Results, suspects: Suspects | None = None) -> EncodingsReport:
    """Compare models of one shape that differ in their position encoding, over training.

    Raises:
        RequestError: no two models of one suite and shape differ in their position encoding.
    """
    return comparison_report.report_encodings(_tables(results, suspects))
