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
from suite_material import finished, make_suite, records, start_sweep, tables, wait_for

import tracker as package

pytestmark = pytest.mark.slow
START, LAST = 40, 190
"""Records between which it is measured: every worker is warm, and none has run out of units."""
ENGINES = {
    "local": ("engine.workers=2", "engine.retries=8"),
    "dask": ("engine=dask", "engine.workers=2", "engine.retries=8"),
}


class Meter:
    """What the processes of a sweep do between two moments, by the system's own account of every thread.

    Where other work shares the processors, a thread also waits for one; that wait is known and left out:
    ``units_per_second`` is what the workers would do with a processor each.
    """

    def __init__(self, store: Path, sweep: "subprocess.Popen[str]", workers: int) -> None:
        self._store, self._sweep, self._workers = store, sweep, workers
        self.before, self.after = self._look(START), self._look(LAST)
        self._pids = {pid for pid in children(sweep.pid) if is_worker(pid)}

    def _look(self, count: int) -> tuple[float, int, dict[tuple[int, int], tuple[int, int]]]:
        wait_for(lambda: len(records(self._store)) >= count, self._sweep)
        threads = {}
        for pid in (self._sweep.pid, *children(self._sweep.pid)):
            for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                ran, waited, _ = task.read_text().split()
                threads[pid, int(task.parent.name)] = int(ran), int(waited)
        return time.monotonic(), len(records(self._store)), threads

    @property
    def units(self) -> int:
        return self.after[1] - self.before[1]

    @property
    def wall(self) -> float:
        return self.after[0] - self.before[0]

    def _shares(self) -> list[float]:
        """Of each worker's busiest thread: share of the time that it ran; waits for a processor left out."""
        ran: dict[int, tuple[int, int]] = {}
        for (pid, thread), (run, wait) in self.after[2].items():
            first = self.before[2].get((pid, thread), (0, 0))
            found = run - first[0], wait - first[1]
            if pid in self._pids:
                ran[pid] = max(ran.get(pid, (0, 0)), found)
        busiest = sorted(ran.values(), reverse=True)[: self._workers]
        return [run / (self.wall * 1e9 - wait) for run, wait in busiest]

    def cpu(self, driver: bool) -> float:
        """Seconds of processor time a unit, of the driver or of the workers."""
        spent = sum(
            run - self.before[2].get(name, (0, 0))[0]
            for name, (run, _) in self.after[2].items()
            if (name[0] == self._sweep.pid) == driver
        )
        return spent / 1e9 / self.units

    @property
    def units_per_second(self) -> float:
        return sum(self._shares()) / self.cpu(driver=False)

    @property
    def overhead(self) -> float:
        """Seconds a unit that a worker sleeps between units, and that the driver works."""
        shares = self._shares()
        idle = 1 - sum(shares) / len(shares)
        return idle * len(shares) / self.units_per_second + self.cpu(driver=True)


def test_two_workers_measure_nearly_twice_as_much_as_one_with_half_the_threads(hub: Hub, tmp_path: Path):
    make_suite(tmp_path, range(200), sequences=int(os.environ.get("SEQ", "300")))
    rates = {}
    for name, workers, engine in (("one", 1, ("engine.workers=1",)), ("local", 2, ENGINES["local"]),
                                  ("dask", 2, ENGINES["dask"])):  # fmt: skip
        load = os.getloadavg()[0]
        sweep = start_sweep(tmp_path, hub.url, f"store={name}", *engine)
        meter = Meter(tmp_path / name, sweep, workers)
        finished(sweep)
        assert package.open_store(tmp_path / name).checkpoints().height == 200
        rates[name] = meter.units_per_second, meter.overhead
        print(
            f"{name}: {meter.units / meter.wall:.2f} units/s as it was (load {load:.1f}), "
            f"{meter.units_per_second:.2f} with a processor for each worker; beside each unit "
            f"{1000 * meter.overhead:.1f} ms, {1000 * meter.cpu(driver=True):.1f} of them the driver's"
        )
    for name in ("local", "dask"):
        assert rates[name][0] >= 1.7 * rates["one"][0], name
        assert rates[name][1] < 0.05, name


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
