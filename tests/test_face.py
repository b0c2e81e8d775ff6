"""The Python face: stores in other libraries, every analysis and figure as a function, examples that run."""

import doctest
import importlib
import sys
from pathlib import Path

import polars as pl
import pytest
from sink_material import store_one
from synthetic_store import write_store

import tracker
from tracker.errors import RequestError
from tracker.store import FILES, Results, open_store

PACKAGE = Path(tracker.__file__).parent


def has_examples(path: Path) -> bool:
    """Whether a file has examples that run; some only sketch how a class is used."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return any(line.startswith(">>> ") and "+SKIP" not in line for line in lines)


WITH_EXAMPLES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if has_examples(path)
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("store")
    write_store(folder)
    return open_store(folder)


def test_there_are_examples():
    assert {"tracker", "tracker.api", "tracker.live.loop"} <= set(WITH_EXAMPLES)


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_in_docstrings_run(module: str):
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("table", list(FILES))
def test_a_table_is_the_same_in_every_library(results: Results, table: str):
    ours = results.table(table)
    assert ours.equals(getattr(results, table)(), null_equal=True)
    assert pl.from_arrow(results.to_arrow(table)).equals(ours, null_equal=True)  # type: ignore[union-attr]
    frame = results.to_pandas(table)
    assert list(frame.columns) == ours.columns
    assert len(frame) == ours.height
    metric = "spectral_entropy" if "spectral_entropy" in ours.columns else "frame_ratio"
    assert frame[metric].sum() == pytest.approx(ours[metric].sum())
    connection = results.to_duckdb()
    ((rows, total),) = connection.sql(f"select count(*), sum({metric}) from {table}").fetchall()
    assert (rows, total) == (ours.height, pytest.approx(ours[metric].sum()))


def test_duckdb_joins_tables_in_place(tmp_path: Path):
    for step in (0, 8):
        store_one(tmp_path, step)
    found = open_store(tmp_path).to_duckdb().sql(
        "select step, count(*) from heads join checkpoints using (suite, model, seed, step) group by step "
        "order by step"
    )  # fmt: skip
    assert found.fetchall() == [(0, 12), (8, 12)]


def test_a_store_without_records_opens_everywhere(tmp_path: Path):
    (tmp_path / "checkpoints").mkdir()
    empty = open_store(tmp_path)
    assert empty.to_duckdb().sql("select count(*) from heads").fetchall() == [(0,)]
    assert len(empty.to_pandas("layers")) == 0
    assert "0 measured checkpoints of 0 runs" in str(empty)


def test_what_is_not_there_is_named(results: Results, monkeypatch):
    with pytest.raises(RequestError, match="table=head: invalid value; expected one of heads"):
        results.to_arrow("head")
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(RequestError, match="duckdb is not installed; install it with `python -m pip"):
        results.to_duckdb()


def test_a_store_shows_itself_in_a_notebook(tmp_path: Path):
    store_one(tmp_path, 3, model="<b>70m</b>")
    shown = open_store(tmp_path)._repr_html_()
    assert "1 measured checkpoints of 1 runs, 0 not measured" in shown
    assert "<b>70m</b>" not in shown


def test_every_analysis_and_figure_is_a_function(results: Results, tmp_path: Path):
    report = tracker.analyse(results)
    assert report["phases"]
    assert report["summary"]
    drawn = tracker.figures(results, report)
    assert {"phases", "scale", "heads", "spectrograms", "lead-lag", "checkpoints"} <= set(drawn)
    assert all(figure.axes or figure.texts for figure in drawn.values())
    tables = tracker.figure_data(results, report)
    assert set(tables) == set(drawn)
    assert tables["phases"].height
    compared = tracker.compare(results)
    assert compared["sentences"]
    page = tracker.dashboard(results, tmp_path / "page.html", report)
    assert page.stat().st_size > 1_000_000


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").is_file()
    for name in tracker.__all__:
        assert getattr(tracker, name).__doc__, name
