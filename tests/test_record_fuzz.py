"""Damaged records of a real store: none is read as other numbers, all are named, a sweep mends them."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from command_line import SMALL, here, swept  # noqa: F401  # fixtures
from polars.testing import assert_frame_equal
from record_fuzz import numbers, print_table, try_records

from tracker.cli import run
from tracker.store import record_folders, select_results


@pytest.fixture
def store(swept: tuple[Path, str], here: Path) -> Path:  # noqa: F811
    """A copy of the swept store, in the current folder."""
    shutil.copytree(swept[0] / "tracker-store", here / "tracker-store")
    return here / "tracker-store"


@pytest.mark.parametrize("count", [25, pytest.param(500, marks=pytest.mark.slow)])
def test_no_damaged_record_is_read_as_other_numbers(store: Path, count: int):
    counts = try_records(store, count, sums=True)
    print_table(counts, f"{count} damaged records")
    assert {end for _, _, end in counts} <= {"named", "right numbers"}
    assert {file for file, _, end in counts if end == "right numbers"} <= {"SHA256SUMS"}
    assert sum(counts.values()) > 0.9 * count


@pytest.mark.slow
def test_a_damaged_record_of_an_earlier_version_ends_in_numbers_or_its_path(store: Path):
    counts = try_records(store, 500, sums=False)
    print_table(counts, "500 damaged records of earlier versions")
    assert {end for _, _, end in counts} <= {"named", "right numbers", "other numbers"}
    assert sum(n for (_, _, end), n in counts.items() if end == "other numbers") < 25


def test_views_say_what_is_damaged_and_a_sweep_measures_it_again(
    store: Path, capsys: pytest.CaptureFixture[str]
):
    before = numbers(select_results(store))
    damaged = [list(record_folders(store))[number] for number in (2, 9)]
    for place in damaged:
        path = place / "heads.parquet"
        path.write_bytes(path.read_bytes()[:-100])
    lines = [
        f"Damaged: {place.relative_to(Path.cwd())}: heads.parquet is not what was written"
        for place in damaged
    ]
    for command in (["analyse"], ["dashboard"], ["compare"], ["roles"], ["plan", *SMALL[:2], SMALL[2]]):
        assert run(command) == 0
        said = capsys.readouterr().out
        assert all(line in said for line in lines), (command, said)
    assert len(json.loads((store / "analysis.json").read_text())["damaged"]) == 2
    page = (store / "dashboard.html").read_text()
    assert '"damaged": 2' in page or '"damaged":2' in page
    assert "heads.parquet is not what was written" in page
    assert run(["sweep", *SMALL, "sink=none"]) == 0
    said = capsys.readouterr().out
    assert all(line in said for line in lines)
    assert "2 measured now" in said
    after = select_results(store)
    assert not after.damaged
    for name, frame in numbers(after).items():
        passing = pl.selectors.by_name("seconds", "peak_bytes", "repo", require_all=False)
        assert_frame_equal(frame.drop(passing), before[name].drop(passing))
