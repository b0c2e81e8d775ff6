import json
import platform
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from test_config import composed
from test_store import PROBE, measurement_of, unit_of

from tracker.checkpoints import PYTHIA_STEPS
from tracker.cli import run
from tracker.commands.plan import expected_time
from tracker.config import Steps
from tracker.errors import RequestError
from tracker.planning.estimate import Costs, Duration, duration, note_transfer, recorded_rates
from tracker.planning.plan import MeasurementSpec, make_plan
from tracker.planning.schedule import PAPER_STEPS, select, wanted_steps
from tracker.records import Checkpoint, Conventions, Recorded, Unit
from tracker.store import Store

SPEC = MeasurementSpec(PROBE, Conventions(), "float32")


def family(*steps: int, model: str = "m") -> list[Checkpoint]:
    return [Checkpoint("suite", model, 0, step, "hub", f"org/{model}", f"step{step}") for step in steps]


def record(unit: Unit, status: str = "ok", commit: str | None = None) -> Recorded:
    at, named = unit.checkpoint, (unit.probe.label, unit.conventions.label)
    found = (unit.key, status, None, commit, 1.0, None, at.suite, at.model, at.seed, at.step, *named)
    return Recorded(*found, at.location, "float32")  # type: ignore[arg-type]


def states(checkpoints: list[Checkpoint], recorded: dict, **options) -> list[str]:
    return [planned.state for planned in make_plan(checkpoints, SPEC, recorded, **options).units]


def test_the_named_choices():
    assert len(PYTHIA_STEPS) == 154
    assert wanted_steps(Steps("paper"), PYTHIA_STEPS) == PAPER_STEPS
    assert wanted_steps(Steps("all"), PYTHIA_STEPS) == PYTHIA_STEPS
    log = wanted_steps(Steps("log"), PYTHIA_STEPS)
    low = (0, *(2**power for power in range(10)))
    assert log == (*low, 1000, 2000, 4000, 8000, 16000, 32000, 64000, 128000, 143000)
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
    units = [SPEC.unit(c) for c in checkpoints]
    recorded = {u.id: record(u, s) for u, s in zip(units[:3], ("ok", "failed", "missing"), strict=True)}
    assert states(checkpoints, recorded) == ["done", "retry", "known missing", "to do", "missing"]
    assert states(checkpoints, recorded, remeasure="missing")[2] == "retry"
    assert states(checkpoints, recorded, remeasure="all")[:3] == ["retry"] * 3


def test_moved_commits_are_measured_again_only_when_asked():
    (checkpoint,) = family(0)
    unit = SPEC.unit(checkpoint)
    recorded = {unit.id: record(unit, commit="abc")}
    assert states([checkpoint], recorded, commits={unit.id: "def"}) == ["done"]
    assert states([checkpoint], recorded, remeasure="moved", commits={unit.id: "abc"}) == ["done"]
    assert states([checkpoint], recorded, remeasure="moved", commits={unit.id: "def"}) == ["retry"]


def test_shards_are_disjoint_complete_and_stable_when_the_plan_grows():
    def keys(checkpoints: list[Checkpoint], shard: tuple[int, int]) -> set[str]:
        return {planned.unit.key for planned in make_plan(checkpoints, SPEC, {}, shard=shard).units}

    few, many = family(*range(60)), family(*range(100)) + family(*range(50), model="n")
    parts = [keys(many, (i, 5)) for i in range(1, 6)]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 150
    assert all(keys(few, (i, 5)) <= parts[i - 1] for i in range(1, 6))


def test_a_name_taken_by_another_place_is_refused_before_anything_is_measured():
    taken = unit_of(location="org/other", model="m")
    with pytest.raises(
        RequestError, match=r"m seed 0 step 0 of suite suite is already in the store, measured from org/other"
    ):
        make_plan(family(0), SPEC, {taken.id: record(taken)})


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (Steps("window", low=9, high=3), r"steps=window needs steps.low <= steps.high; given 9 and 3"),
        (Steps("window"), r"given None and None"),
        (Steps("list"), r"steps=list needs steps.list"),
        (Steps("all", list=[-1]), r"steps.list=\[-1\]: invalid value; expected one or more steps from 0"),
        (
            Steps("window", low=5, high=6),
            r"steps=window selects no existing checkpoint; steps: 0, 128",
        ),
        (Steps("list", list=[7]), r"steps.list=\[7\] selects no existing checkpoint; .*nearest: 0, 128"),
    ],
)
def test_a_choice_that_cannot_be_met_says_what_there_is(choice: Steps, message: str):
    with pytest.raises(RequestError, match=message):
        select(family(0, 128), choice)


def test_one_branch_under_two_names_is_two_checkpoints():
    here, there = family(0)[0], replace(family(0)[0], suite="other")
    unit = SPEC.unit(here)
    recorded = {unit.id: record(unit)}
    assert SPEC.unit(there).key == unit.key
    assert states([here], recorded) == ["done"]
    assert states([there], recorded) == ["to do"]


def test_an_absent_step_is_never_taken_for_one_that_is_there():
    single = replace(family(0)[0], revision="final")
    measured = SPEC.unit(single)
    chosen = select([single], Steps("list", list=[0, 128]))
    assert states(chosen, {measured.id: record(measured)}) == ["done", "missing"]
    assert len({SPEC.unit(checkpoint).key for checkpoint in chosen}) == 2


def test_seconds_of_another_probe_count_by_its_tokens_until_there_are_some_of_this_one(tmp_path: Path):
    store, many = Store(tmp_path), replace(PROBE, number=500)

    def took(unit: Unit, seconds: float) -> None:
        measured = measurement_of(unit)
        checkpoint = measured.checkpoint.with_columns(seconds=pl.lit(seconds))
        store.write(unit, replace(measured, checkpoint=checkpoint))

    took(unit_of(), 2.0)
    assert recorded_rates(store.recorded(), PROBE) == {"m seed 0": [2.0]}
    assert recorded_rates(store.recorded(), many) == {"m seed 0": [500.0]}
    took(unit_of(probe=many), 300.0)
    assert recorded_rates(store.recorded(), many) == {"m seed 0": [300.0]}


def test_a_sweep_takes_the_longer_of_compute_and_network():
    costs = [Costs(9, 0, 0.0, 10.0), Costs(count=4, lacking=2, largest=1e9, each=5.0)]
    assert duration(costs, 2, 1e7) == Duration(measuring=55.0, fetching=200.0)
    assert duration(costs, 2, 1e7).seconds == 200.0  # type: ignore[union-attr]
    assert duration(costs, 1, 1e9).seconds == 110.0  # type: ignore[union-attr]
    assert duration(costs[:1], 1, None) == Duration(measuring=90.0, fetching=0.0)


@pytest.mark.parametrize(
    ("costs", "bandwidth", "lacking"),
    [
        (Costs(4, 2, 1e9, 5.0), None, "bandwidth"),
        (Costs(4, 2, 1e9, None), None, "speed"),
        (Costs(4, 2, None, 5.0), None, "size"),
        (Costs(4, 2, None, None), 1e9, "size"),
    ],
)
def test_an_estimate_names_what_it_lacks(costs: Costs, bandwidth: float | None, lacking: str):
    assert duration([Costs(1, 0, 0.0, 1.0), costs], 1, bandwidth) == lacking


def test_only_models_whose_size_is_unknown_are_named():
    known, unknown = Costs(1, 1, 1e9, None), Costs(1, 1, None, None)
    said = expected_time(composed(), {"a seed 0": known, "b seed 0": unknown}, 1)
    assert said == "expected time: ?; the size of b seed 0 is unknown"


def planned(folder: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> None:
    """Run ``tracker plan`` without a hub, in an empty folder."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("sys.argv", ["tracker"])
    monkeypatch.chdir(folder)
    assert run(["plan", f"cache.folder={folder}", *overrides]) == 0


PYTHIA = ("suite=pythia", "suite.models=[14m]")
HUB = ("suite=polypythias", "suite.models=[14m]", "suite.seeds=[0]", "suite.repo_format='lab/some-{size}'")
NO_RATE = "expected time: ?; no {} recorded yet: sweep one checkpoint (steps.list=[0]), or give"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (PYTHIA, f"{NO_RATE.format('throughput')} forecast.speed=..."),
        ((*PYTHIA, "forecast.bandwidth=10"), f"{NO_RATE.format('throughput')} forecast.speed=..."),
        ((*PYTHIA, "forecast.speed=1850"), f"{NO_RATE.format('download')} forecast.bandwidth=..."),
        (HUB, "expected time: ?; the size of 14m seed 0 is unknown"),
        ((*HUB, "forecast.speed=1850"), "expected time: ?; the size of 14m seed 0 is unknown"),
        ((*PYTHIA, "forecast.speed=1850", "forecast.bandwidth=1"), "network-bound; more workers will not"),
        ((*PYTHIA, "forecast.speed=1", "forecast.bandwidth=1000"), "compute-bound; add workers"),
    ],
)
def test_a_plan_says_what_bounds_the_time_or_what_it_needs_to_know(
    given: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    planned(tmp_path, monkeypatch, *given)
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "workers"),
    [((), 8), (("device=cpu",), 1), (("engine.workers=3",), 3), (("engine=inline",), 1)],
)
def test_a_plan_counts_the_workers_that_a_sweep_would_have(
    given: tuple[str, ...], workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("tracker.engines.placement.GPU_FILES", ("null",))
    planned(tmp_path, monkeypatch, *PYTHIA, "forecast.speed=1", "forecast.bandwidth=1000", *given)
    assert f" with {workers} worker" in capsys.readouterr().out


def test_two_sweeps_that_end_together_both_count_in_the_transfer_rate(tmp_path: Path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: note_transfer(tmp_path, 100, 1.0), range(8)))
    noted = json.loads((tmp_path / "rates.json").read_text())[platform.node()]
    assert noted["bytes"] == 100 * sum(0.5**n for n in range(8))
