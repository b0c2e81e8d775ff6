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
START, LAST = 40, 190
"""Records between which it is measured: every worker is warm, and none has run out of units."""
ENGINES = {
    "local": ("engine.workers=2", "engine.retries=8"),
    "dask": ("engine=dask", "engine.workers=2", "engine.retries=8"),
}


def throughput(folder: Path, store: str, *engine: str) -> float:
    """Units a second once every worker is warm.

    The checkpoints lie in a folder: what fetching costs depends on the network, not on the engine.
    """
    request = ("suite=folder", f"suite.path=hub/{REPO}", f"store={store}", *engine)
    load = os.getloadavg()[0]
    sweep = start_sweep(folder, "http://127.0.0.1:1", *request, repo="none")
    looks = []
    for count in (START, LAST):
        wait_for(lambda n=count: len(records(folder / store)) >= n, sweep)
        looks.append((time.monotonic(), len(records(folder / store))))
    finished(sweep)
    (begun, first), (ended, last) = looks
    assert package.open_store(folder / store).checkpoints().filter(status="ok").height == 200
    rate = (last - first) / (ended - begun)
    print(f"{store}: {rate:.2f} units/s, load before {load:.1f}")
    return rate


def test_two_workers_measure_nearly_twice_as_much_as_one_with_half_the_threads(tmp_path: Path):
    """Wants two processors to itself. Overhead: what a worker takes for a unit beyond this process alone."""
    make_suite(tmp_path, range(200), sequences=300)
    alone = throughput(tmp_path, "inline", "engine=inline")
    one = throughput(tmp_path, "one", "engine.workers=1")
    for name in ENGINES:
        rate = throughput(tmp_path, name, *ENGINES[name])
        overhead = 2 / rate - 1 / alone
        print(f"{name}: {rate / one:.2f} x one worker; {1000 * overhead:.0f} ms a unit beside its work")
        assert rate >= 1.7 * one, name
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
