"""What the verbs do with a store, as functions: results in, tables, reports and figures out."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from tracker.analysis.why_report import HEAD_COLUMNS
from tracker.checkpoints.audit_file import suspects as suspects_of
from tracker.store import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def analyse(results: Results, *, suspects: bool = False) -> dict[str, Any]:
    """Phases per run, what moves with each change, thresholds over size: as ``tracker analyse`` finds them.

    Args:
        results: an opened store.
        suspects: whether checkpoints that the audit calls suspect take part.

    Returns:
        The content of ``analysis.json``, without the alerts; ``report["summary"]`` says it in sentences.

    Raises:
        StoreError: a table of the store cannot be read.

    Example:
        >>> import tempfile, tracker.store
        >>> results = tracker.store.Results(Path(tempfile.gettempdir()), ())
        >>> tracker.analyse(results)["phases"]
        []
    """
    from tracker.analysis import analyse as analysed

    checkpoints = results.checkpoints()
    left_out = {} if suspects else suspects_of(results.folder).among(checkpoints.iter_rows(named=True))
    return analysed(checkpoints, results.sequences(), results.heads(HEAD_COLUMNS), suspects=left_out)


def compare(
    results: Results, *, at: str = "end", step: int | None = None, tokens: int | None = None
) -> dict[str, Any]:
    """Models side by side, and against the paper's tables: as ``tracker compare`` finds them.

    Args:
        results: an opened store with at least two models.
        at: ``end``, ``step`` (with ``step``) or ``tokens`` (with ``tokens``).
        step, tokens: at which checkpoint.

    Returns:
        The content of ``compare.json``; ``report["sentences"]`` says it in words.

    Raises:
        RequestError: there is one model only, or no checkpoint of that choice.
    """
    from tracker.comparison import compare_models
    from tracker.config import Compare

    found = suspects_of(results.folder).among(results.checkpoints().iter_rows(named=True))
    return compare_models(results, Compare(at=at, step=step, tokens=tokens), found)[1]


def figures(results: Results, report: Mapping[str, Any] | None = None) -> "dict[str, Figure]":
    """Every figure of a store by name: phases, scale, heads, spectrograms, lead-lag, checkpoints ...

    Args:
        results: an opened store.
        report: of ``analyse``; None: figures without phases and thresholds.
    """
    from tracker.views.figure_files import drawn_views

    return {name: figure for name, figure, _ in drawn_views(results, report)}


def figure_data(results: Results, report: Mapping[str, Any] | None = None) -> dict[str, pl.DataFrame]:
    """What each of ``figures`` draws, by name, as polars tables.

    Args:
        results, report: as for ``figures``.
    """
    from tracker.views.figure_files import drawn_views

    return {name: table for name, _, table in drawn_views(results, report)}


def dashboard(
    results: Results, path: str | os.PathLike[str], report: Mapping[str, Any] | None = None
) -> Path:
    """Writes the dashboard of a store as one HTML file.

    Args:
        results: an opened store.
        path: the file.
        report: of ``analyse``; None: it is analysed first.

    Returns:
        The path written.

    Raises:
        StoreError: the store cannot be read, or the file cannot be written.
    """
    from tracker.views import write_dashboard

    return write_dashboard(results, analyse(results) if report is None else report, path)
