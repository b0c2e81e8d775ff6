"""Minutes long: what several workers gain, and what is left when they are killed. Run with ``-m slow``."""

import os
import random
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from engine_material import children
from loopback_hub import Hub
from suite_material import REPO, finished, make_suite, records, start_sweep, tables, wait_for

import tracker as package

pytestmark = pytest.mark.slow
START, LAST = 50, 190
"""Records between which it is measured: every worker is warm, and none has run out of units."""
ENGINES = {
    "local": ("engine.workers=2", "engine.retries=8"),
    "dask": ("engine=dask", "engine.workers=2", "engine.retries=8"),
}


def throughput(folder: Path, name: str, *engine: str, sweeps: int = 1) -> float:
    """Units a second of so many sweeps at once, each into a store of its own, once every worker is warm.

    The checkpoints lie in a folder: what fetching costs depends on the network, not on the engine.
    """
    load = os.getloadavg()[0]
    stores = [folder / f"{name}-{i}" for i in range(sweeps)]
    request = ("suite=folder", f"suite.path=hub/{REPO}", *engine)
    started = [
        start_sweep(folder, "http://127.0.0.1:1", *request, f"store={each}", repo="none") for each in stores
    ]
    looks = []
    for count in (START, LAST):
        wait_for(lambda n=count: count_records(stores) >= n * sweeps, started[0])
        looks.append((time.monotonic(), count_records(stores)))
    for each in started:
        finished(each)
    (begun, first), (ended, last) = looks
    for store in stores:
        assert package.open_store(store).checkpoints().filter(status="ok").height == 200
    rate = (last - first) / (ended - begun)
    print(f"{name}: {rate:.2f} units/s, load before {load:.1f}")
    return rate


def count_records(stores: list[Path]) -> int:
    return sum(len(records(store)) for store in stores)


def test_two_workers_measure_nearly_twice_as_much_as_one_with_half_the_threads(tmp_path: Path):
    """Wants two processors to itself. Two sweeps that know nothing of each other show what these give: on
    a machine whose processors share a core's parts that is less than twice as much as one."""
    make_suite(tmp_path, range(200), sequences=300)
    one = throughput(tmp_path, "one", "engine.workers=1")
    most = throughput(tmp_path, "apart", "engine.workers=1", sweeps=2)
    print(f"two sweeps apart: {most / one:.2f} x one")
    for name in ENGINES:
        rate = throughput(tmp_path, name, *ENGINES[name])
        gain, overhead = 2 * rate / max(most, rate), 2 / rate - 2 / most
        print(f"{name}: {rate / one:.2f} x one worker, {gain:.2f} of 2; {1000 * overhead:.0f} ms a unit")
        assert gain >= 1.7, name
        assert overhead < 0.05, name


@pytest.mark.parametrize("engine", ENGINES)
def test_killing_workers_at_random_loses_nothing_and_changes_nothing(hub: Hub, tmp_path: Path, engine: str):
    make_suite(tmp_path, range(60), sequences=200)
    finished(start_sweep(tmp_path, hub.url, "engine=inline", "store=alone"))
    sweep = start_sweep(tmp_path, hub.url, *ENGINES[engine])
    store, kills, chance = tmp_path / "tracker-store", 0, random.Random(engine)
    wait_for(lambda: len(records(store)) >= 2, sweep)
    while kills < 5 and len(records(store)) < 50 and sweep.poll() is None:
        time.sleep(chance.uniform(0.5, 4))
        workers = [pid for pid in children(sweep.pid) if is_worker(pid)]
        if workers:
            os.kill(chance.choice(workers), signal.SIGKILL)
            kills += 1
    said = finished(sweep)
    print(f"{engine}: {kills} workers killed; {said.splitlines()[-1]}")
    assert kills >= 3
    mine, alone = tables(store), tables(tmp_path / "alone")
    assert mine["checkpoints"]["step"].to_list() == list(range(60))
    assert set(mine["checkpoints"]["status"]) == {"ok"}
    assert all(mine[name].equals(alone[name]) for name in mine)


def is_worker(pid: int) -> bool:
    try:
        return "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


def test_sixteen_shards_at_once_with_a_model_added_in_between(tmp_path: Path):
    make_suite(tmp_path, range(40), "lab/a")
    shutil.move(tmp_path / "hub" / "lab", tmp_path / "models")
    shutil.rmtree(tmp_path / "models" / "a" / "main")
    request = ("suite=folder", "suite.path=models", "suite.name=folder", "engine=inline")

    def all_shards() -> list[str]:
        sweeps = [shard(tmp_path, f"shard={i}/16", *request) for i in range(1, 17)]
        return [finished(each, timeout=280) for each in sweeps]

    first = threading.Thread(target=lambda: said.extend(all_shards()))
    said: list[str] = []
    first.start()
    time.sleep(8)  # some have made their plan, some not
    shutil.copytree(tmp_path / "models" / "a", tmp_path / "coming" / "b")
    (tmp_path / "coming" / "b").rename(tmp_path / "models" / "b")
    first.join()
    said += all_shards()
    rows = package.open_store(tmp_path / "tracker-store").checkpoints()
    assert rows.group_by("model").len().sort("model").rows() == [("a", 40), ("b", 40)]
    assert set(rows["status"]) == {"ok"}
    counts = [int(line.split()[0]) for each in said for line in each.splitlines() if " measured" in line and
              line.split()[0].isdecimal()]  # fmt: skip
    assert sum(counts) == 80, "each by one of them"


def shard(folder: Path, *overrides: str) -> "subprocess.Popen[str]":
    return start_sweep(folder, "http://127.0.0.1:9", *overrides, repo="none")


def test_two_sweeps_of_one_plan_share_it(hub: Hub, tmp_path: Path):
    make_suite(tmp_path, range(40), sequences=100)
    sweeps = [start_sweep(tmp_path, hub.url, "engine=inline") for _ in range(2)]
    said = [finished(each) for each in sweeps]
    assert package.open_store(tmp_path / "tracker-store").checkpoints().height == 40
    shares = [int(line.split()[0]) for each in said for line in each.splitlines() if " measured" in line and
              line.split()[0].isdecimal()]  # fmt: skip
    assert sum(shares) == 40, said
    assert min(shares) > 5
    assert not (tmp_path / "tracker-store" / ".running").exists()
