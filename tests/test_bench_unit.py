"""The table of a unit's seconds, on a tiny model: every stage is there, and none is counted twice."""

import re
import time
from typing import Any

import pytest
from bench.shapes import SHAPES
from bench.unit import STAGES, Clock, rows_of
from bench.weights import main as weights_bench


def test_a_stage_does_not_count_what_the_stages_inside_it_take():
    clock = Clock()
    with clock.stage("outer"), clock.stage("inner"):
        until = time.process_time() + 0.05
        while time.process_time() < until:
            pass
    found = clock.taken()
    assert found["inner"] >= 0.05
    assert found["outer"] < 0.02


@pytest.mark.slow
def test_every_stage_of_a_unit_has_its_seconds():
    rows: Any = rows_of("tiny", SHAPES["tiny"], 3, None)
    first, following = rows
    for row in (first, following):
        assert row.keys() >= {*STAGES, "other", "hand over", "total s", "peak MB", "weights MB"}
    assert first["build"] > 0
    assert following["build"] == 0
    assert following["read into the module"] > 0
    assert all(
        row[stage] > 0 for row in (first, following) for stage in ("forward", "metrics", "loss", "write")
    )


@pytest.mark.slow
def test_weights_are_timed_beside_reading_and_agree_with_numpy(capsys: pytest.CaptureFixture[str]):
    rows: Any = weights_bench(["--shape", "tiny", "--rounds", "1"])
    assert [row["from"] for row in rows] == ["page cache", "disk"]
    for row in rows:
        assert row["ratio"] == row["measuring, s"] / row["reading alone, s"]
    said = " ".join(capsys.readouterr().out.split())
    errors = re.findall(r"(?:rank|norm) (\d\.\de-\d+)", said)
    assert len(errors) == 3
    assert max(map(float, errors)) < 1e-6
