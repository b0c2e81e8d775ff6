from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from test_store import PROBE, measurement_of, unit_of

from tracker.checkpoints import PYTHIA_STEPS
from tracker.config import Steps
from tracker.errors import RequestError
from tracker.planning.estimate import recorded_rates
from tracker.planning.plan import PAPER_STEPS, make_plan, select, wanted_steps
from tracker.records import Checkpoint, Conventions, Recorded, Unit
from tracker.store import Store

WAY = (PROBE, Conventions(), "float32")


def family(*steps: int, model: str = "m") -> list[Checkpoint]:
    return [Checkpoint("suite", model, 0, step, "hub", f"org/{model}", f"step{step}") for step in steps]


def record(unit: Unit, status: str = "ok", commit: str | None = None, **other) -> Recorded:
    at = unit.checkpoint
    return Recorded(
        unit.key,
        status,
        None,
        commit,
        1.0,
        None,
        at.suite,
        at.model,
        at.seed,
        at.step,  # type: ignore[arg-type]
        unit.probe.label,
        unit.conventions.label,
        at.location,
        "float32",
    )


def states(checkpoints: list[Checkpoint], recorded: dict, **options) -> list[str]:
    return [planned.state for planned in make_plan(checkpoints, *WAY, recorded, **options).units]


def test_the_named_choices():
    assert len(PYTHIA_STEPS) == 154
    assert wanted_steps(Steps("paper"), PYTHIA_STEPS) == PAPER_STEPS
    assert wanted_steps(Steps("all"), PYTHIA_STEPS) == PYTHIA_STEPS
    log = wanted_steps(Steps("log"), PYTHIA_STEPS)
    assert log == (
        0,
        1,
        2,
        4,
        8,
        16,
        32,
        64,
        128,
        256,
        512,
        1000,
        2000,
        4000,
        8000,
        16000,
        32000,
        64000,
        128000,
        143000,
    )
    assert wanted_steps(Steps("window", low=256, high=2000), PYTHIA_STEPS) == (256, 512, 1000, 2000)
    assert wanted_steps(Steps("all", list=[128, 0, 128]), PYTHIA_STEPS) == (0, 128)


def test_a_named_step_that_is_not_there_is_a_hole_and_others_are_not():
    holes = select(family(0, 128, 512), Steps("list", list=[0, 300]))
    assert [(c.step, c.exists, c.revision) for c in holes] == [
        (0, None, "step0"),
        (300, False, "absent step 300"),
    ]
    assert [c.step for c in select(family(0, 128, 512), Steps("log"))] == [0, 128, 512]


def test_planned_minus_recorded():
    checkpoints = family(0, 1, 2, 4, 8)
    checkpoints[4] = replace(checkpoints[4], exists=False)
    units = [Unit(c, *WAY) for c in checkpoints]
    recorded = {u.id: record(u, s) for u, s in zip(units[:3], ("ok", "failed", "missing"), strict=True)}
    assert states(checkpoints, recorded) == ["done", "retry", "known missing", "to do", "missing"]
    assert states(checkpoints, recorded, remeasure="missing")[2] == "retry"
    assert states(checkpoints, recorded, remeasure="all")[:3] == ["retry"] * 3


def test_moved_commits_are_measured_again_only_when_asked():
    (checkpoint,) = family(0)
    unit = Unit(checkpoint, *WAY)
    recorded = {unit.id: record(unit, commit="abc")}
    assert states([checkpoint], recorded, commits={unit.id: "def"}) == ["done"]
    assert states([checkpoint], recorded, remeasure="moved", commits={unit.id: "abc"}) == ["done"]
    assert states([checkpoint], recorded, remeasure="moved", commits={unit.id: "def"}) == ["retry"]


def test_shards_are_disjoint_complete_and_stable_when_the_plan_grows():
    def keys(checkpoints: list[Checkpoint], shard: tuple[int, int]) -> set[str]:
        return {planned.unit.key for planned in make_plan(checkpoints, *WAY, {}, shard=shard).units}

    few, many = family(*range(60)), family(*range(100)) + family(*range(50), model="n")
    parts = [keys(many, (i, 5)) for i in range(1, 6)]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 150
    assert all(keys(few, (i, 5)) <= parts[i - 1] for i in range(1, 6))


def test_a_name_taken_by_another_place_is_refused_before_anything_is_measured():
    taken = unit_of(location="org/other", model="m")
    with pytest.raises(
        RequestError, match=r"m seed 0 step 0 of suite suite is already in the store, measured from org/other"
    ):
        make_plan(family(0), *WAY, {taken.id: record(taken)})


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (Steps("window", low=9, high=3), r"steps=window needs steps.low <= steps.high; given 9 and 3"),
        (Steps("window"), r"given None and None"),
        (Steps("list"), r"steps=list needs steps.list"),
        (Steps("all", list=[-1]), r"steps.list=\[-1\]: invalid value; expected one or more steps from 0"),
        (
            Steps("window", low=5, high=6),
            r"steps=window selects none of the checkpoints there are; steps: 0, 128",
        ),
        (Steps("list", list=[7]), r"steps=list selects none of the checkpoints"),
    ],
)
def test_a_choice_that_cannot_be_met_says_what_there_is(choice: Steps, message: str):
    with pytest.raises(RequestError, match=message):
        select(family(0, 128), choice)


def test_one_branch_under_two_names_is_two_checkpoints():
    here, there = family(0)[0], replace(family(0)[0], suite="other")
    unit = Unit(here, *WAY)
    recorded = {unit.id: record(unit)}
    assert Unit(there, *WAY).key == unit.key
    assert states([here], recorded) == ["done"]
    assert states([there], recorded) == ["to do"]


def test_an_absent_step_is_never_taken_for_one_that_is_there():
    single = replace(family(0)[0], revision="final")
    measured = Unit(single, *WAY)
    chosen = select([single], Steps("list", list=[0, 128]))
    assert states(chosen, {measured.id: record(measured)}) == ["done", "missing"]
    assert len({Unit(checkpoint, *WAY).key for checkpoint in chosen}) == 2


def test_seconds_of_another_probe_tell_by_its_tokens_until_there_are_some_of_this_one(tmp_path: Path):
    store, many = Store(tmp_path), replace(PROBE, number=500)

    def took(unit: Unit, seconds: float) -> None:
        told = measurement_of(unit)
        store.write(unit, replace(told, checkpoint=told.checkpoint.with_columns(seconds=pl.lit(seconds))))

    took(unit_of(), 2.0)
    assert recorded_rates(store, PROBE) == {"m seed 0": [2.0]}
    assert recorded_rates(store, many) == {"m seed 0": [500.0]}
    took(unit_of(probe=many), 300.0)
    assert recorded_rates(store, many) == {"m seed 0": [300.0]}
