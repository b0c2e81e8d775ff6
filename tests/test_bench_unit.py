"""The table of a unit's seconds, on a tiny model: every stage is there, and none is counted twice."""

import time
from typing import Any

import pytest
from bench.shapes import SHAPES
from bench.unit import STAGES, Clock, rows_of


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
