"""The forecast for many workers: arithmetic that can be checked by hand, and a real sweep."""

import math
import sys
from pathlib import Path

import pytest
from loopback_hub import Hub, loopback_hub
from suite_material import finished, last_record, make_suite, records, start_sweep

import tracker as package
from tracker.cli import run
from tracker.planning.simulation import Job, Machines, play

SAME = [Job("m", 10.0)] * 9
GIGABYTE = 1e9


def seconds(jobs: list[Job], **machines: float) -> float:
    return play(jobs, Machines(**({"start": 0.0, "overhead": 0.0} | machines))).seconds  # type: ignore[arg-type]


def test_workers_divide_what_they_measure_but_for_each_models_first():
    assert seconds(SAME) == 90
    assert seconds(SAME, workers=2) == 50  # one alone, then four rounds of two
    assert seconds(SAME, workers=8) == 20
    assert seconds(SAME, workers=1, start=6, overhead=1) == 6 + 9 * 11
    assert seconds([*SAME, Job("other", 10.0)], workers=100) == 20


def test_one_line_fetches_as_far_ahead_as_it_may():
    heavy = [Job("m", 10.0, GIGABYTE)] * 4
    slow = {"bandwidth": GIGABYTE / 20}
    assert seconds(heavy, **slow) == 4 * 20 + 10
    assert seconds(heavy, bandwidth=GIGABYTE / 5) == 5 + 4 * 10
    assert seconds(heavy, bandwidth=GIGABYTE / 5, ahead=0) == 4 * 15
    assert seconds(heavy, bandwidth=math.inf, ahead=0) == 40


@pytest.mark.parametrize(
    ("workers", "bandwidth", "limit"),
    [
        (1, math.inf, "measuring"),
        (1, GIGABYTE / 100, "fetching"),
        (1, GIGABYTE / 10, "both"),
        (8, GIGABYTE / 10, "fetching"),
        (7, math.inf, "the last units"),
    ],
)
def test_what_limits(workers: int, bandwidth: float, limit: str):
    count = 100 if limit != "the last units" else 8
    jobs = [Job("m", 10.0, GIGABYTE)] * count
    assert play(jobs, Machines(workers, bandwidth, start=0, overhead=0)).limit == limit


@pytest.mark.parametrize("given", [(), ("forecast.speed=1850",), ("forecast.bandwidth=10",)])
def test_a_plan_that_nothing_tells_the_time_of_says_what_to_give(
    given: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.chdir(tmp_path)
    assert run(["plan", "suite=pythia", "suite.models=[14m]", f"cache.folder={tmp_path}", *given]) == 0
    lacking = "bandwidth" if "forecast.speed=1850" in given else "speed"
    wanted = f"expected time: ?; this store has recorded no rate to tell by: give forecast.{lacking}=..."
    assert wanted in capsys.readouterr().out


@pytest.mark.parametrize("value", ["0.0", "-1.0", "nan", "inf"])
def test_a_rate_that_is_none_is_refused(value: str, capsys: pytest.CaptureFixture[str]):
    assert run(["plan", f"forecast.speed={value}"]) == 2
    assert f"forecast.speed={value}: invalid value; expected numbers above 0" in capsys.readouterr().err


TRIAL = "[0,100,200,300,400,500,600,700]"


def first_request(hub: Hub) -> float:
    return min(request.at for request in hub.log if "/resolve/" in request.path)


def constants(store: Path, hub: Hub, workers: int) -> tuple[float, float, float]:
    """Of a small sweep: seconds until the first unit, beside each unit, and of a unit."""
    seconds = package.open_store(store).checkpoints().sort("step")["seconds"].to_list()
    times = sorted((place / "checkpoint.parquet").stat().st_mtime for place in records(store))
    usual = sorted(seconds)[len(seconds) // 2]
    apart = workers * (times[-1] - times[0]) / (len(times) - 1)
    start = times[0] - first_request(hub) - seconds[0]
    return max(start, 0.0), max(apart - sum(seconds) / len(seconds), 0.0), usual


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "slowness"), [(1, 0.2), (2, 0.2), (2, 2.0)])
def test_a_real_sweep_takes_as_long_as_was_played(tmp_path: Path, workers: int, slowness: float):
    size = make_suite(tmp_path, range(0, 2400, 100), sequences=100, hidden_size=128)
    engine = (f"engine.workers={workers}", "engine.threads=1")
    with loopback_hub(tmp_path / "hub") as hub:
        finished(start_sweep(tmp_path, hub.url, "store=trial", f"steps.list={TRIAL}", *engine))
        start, overhead, usual = constants(tmp_path / "trial", hub, workers)
        hub.bytes_per_second = size / (usual * slowness)
        hub.log.clear()
        cache = f"cache.folder={tmp_path / 'other'}"
        finished(start_sweep(tmp_path, hub.url, cache, *engine))
        taken = last_record(tmp_path / "tracker-store") - first_request(hub)
    rows = package.open_store(tmp_path / "tracker-store").checkpoints().sort("step")
    jobs = [Job("m", each, size) for each in rows["seconds"].to_list()]
    course = play(jobs, Machines(workers, size / (usual * slowness), start=start, overhead=overhead))
    print(f"{workers} workers, fetch/measure {slowness}: {course.seconds:.1f} s played, {taken:.1f} s real")
    assert course.seconds == pytest.approx(taken, rel=0.2, abs=3)
