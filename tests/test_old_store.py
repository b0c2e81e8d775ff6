"""A store that version 0.1.0 wrote: opened, analysed and extended, and measured anew with equal numbers.

``data/store-0.1.0.zip`` holds three checkpoints of a random GPT-NeoX as a repository, token ids, and what
``tracker sweep suite=hub suite.repo=lab/golden probe.ids=ids.npy probe.n=48 probe.number=3 sink=none
steps.list=[0,1]`` stored of the first two.
"""

import zipfile
from pathlib import Path

import polars as pl
import pytest
from loopback_hub import Hub
from suite_material import tables

from tracker.cli import run
from tracker.store import open_store

PROBE = ("probe.ids=ids.npy", "probe.n=48", "probe.sequences=3")
REQUEST = ("suite=hub", "suite.repo=lab/golden", *PROBE, "sink=none")
PACKED = Path(__file__).parent / "data" / "store-0.1.0.zip"


@pytest.fixture
def old(hub: Hub) -> Path:
    """The current folder with the repository, the ids and the store of version 0.1.0."""
    folder = hub.root.parent
    with zipfile.ZipFile(PACKED) as packed:
        packed.extractall(folder)
    return folder


def test_it_opens_and_is_extended(old: Path):
    before = tables(old / "tracker-store")
    assert run(["sweep", *REQUEST]) == 0
    assert open_store(old / "tracker-store").checkpoints()["step"].to_list() == [0, 1, 2]
    after = tables(old / "tracker-store")
    for name, frame in before.items():
        assert after[name].filter(pl.col("step") < 2).equals(frame), name
    assert run(["analyse"]) == 0


def test_weights_come_into_it_from_the_hub(old: Path):
    before = tables(old / "tracker-store")
    assert run(["weights", *REQUEST[:2]]) == 0
    rows = open_store(old / "tracker-store").checkpoints().sort("step")
    assert rows["stable_rank_q"].is_not_null().to_list() == [True, True]
    assert open_store(old / "tracker-store", probe="weights").checkpoints()["step"].to_list() == [2]
    after = tables(old / "tracker-store")
    for name, frame in before.items():
        kept = [column for column in frame.columns if frame[column].null_count() < frame.height]
        assert after[name].select(kept).equals(frame.select(kept)), name
    assert run(["analyse"]) == run(["dashboard"]) == 0


def test_its_numbers_are_measured_again(old: Path):
    assert run(["sweep", *REQUEST, "steps.list=[0,1]", "store=again"]) == 0
    stored, again = tables(old / "tracker-store"), tables(old / "again")
    compared = 0
    for name, frame in stored.items():
        assert frame.columns == again[name].columns
        for column in frame.columns:
            if frame[column].dtype.is_float() or frame[column].dtype == pl.List(pl.Float64):
                assert_close(again[name][column], frame[column], f"{name}.{column}")
                compared += 1
    assert compared > 200


def assert_close(found: pl.Series, expected: pl.Series, name: str) -> None:
    """Equal to 1e-6, absolute or relative, with nulls and NaN at the same places."""
    if expected.dtype == pl.List(pl.Float64):
        assert found.list.len().to_list() == expected.list.len().to_list(), name
        found, expected = found.explode(), expected.explode()
    assert found.is_null().to_list() == expected.is_null().to_list(), name
    found, expected = found.drop_nulls(), expected.drop_nulls()
    assert found.is_nan().to_list() == expected.is_nan().to_list(), name
    apart = ((found - expected).abs() / expected.abs().clip(1.0)).drop_nans()
    assert apart.is_empty() or apart.max() <= 1e-6, f"{name}: {apart.max()}"  # type: ignore[operator]


@pytest.mark.parametrize("found", [[1.0, 2.00001, None], [1.0, None, None], [1.0, float("nan"), None]])
def test_a_difference_is_seen(found: list[float | None]):
    with pytest.raises(AssertionError, match="entropy"):
        assert_close(pl.Series(found), pl.Series([1.0, 2.0, None]), "heads.entropy")
