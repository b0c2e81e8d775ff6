"""Small suites in a folder for tests of engines, and what kills their workers."""

import multiprocessing
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import polars as pl
from suite_material import REPO, VOLATILE, make_suite

from tracker.checkpoints import discover_folder
from tracker.engines.inline import run_inline
from tracker.engines.placement import Placement
from tracker.engines.worker import Worker
from tracker.engines.worker_spec import WorkerSpec
from tracker.measurement.probe import probe_spec
from tracker.records import Conventions, Outcome, PlannedUnit, ProbeSource, Unit
from tracker.store import open_store

HERE = Placement("cpu", threads=1)
TABLES = {"heads": ["layer", "head"], "layers": ["layer"], "sequences": ["sequence"], "checkpoints": []}


def suite(folder: Path, steps: int, sequences: int = 4, models: int = 1, **sizes: int) -> list[PlannedUnit]:
    """Units of ``models`` random models with ``steps`` checkpoints each, saved below ``folder``."""
    units: list[PlannedUnit] = []
    for model in range(models):
        make_suite(folder, range(steps), f"{REPO}-{model}", sequences=sequences, **sizes)
    source = source_of(folder)
    probe = probe_spec(source, name="ids", n=48, number=sequences)
    conventions = Conventions(block=8, theory_tokens=8)
    for model in range(models):
        found = discover_folder(folder / "hub" / f"{REPO}-{model}")
        units += [PlannedUnit(Unit(each, probe, conventions), "to do") for each in found]
    return units


def source_of(folder: Path) -> ProbeSource:
    return ProbeSource(ids=str(folder / "ids.npy"))


def worker_spec(folder: Path, store: str) -> WorkerSpec:
    return WorkerSpec(folder / store, source_of(folder))


BREAKING = """
from pathlib import Path

import tracker
from transformers import GPTNeoXModel

MARK, forward, broken = Path({mark!r}), GPTNeoXModel.forward, False


@tracker.metric(title="Largest share", unit="share", low=0, high=1, source="own")
def largest_share(rows):
    return rows.amax(-1)


def failing(model, *given, **named):
    global broken
    if MARK.exists():
        MARK.unlink()
        broken = True
    if broken:
        raise RuntimeError({error!r})
    return forward(model, *given, **named)


GPTNeoXModel.forward = failing
"""
CUDA_ERROR = "CUDA error: an illegal memory access was encountered"


def breaking(folder: Path, spec: WorkerSpec) -> WorkerSpec:
    """Workers of which the first to measure fails as with CUDA, from then on in every call."""
    file, mark = folder / "breaking.py", folder / "mark"
    file.write_text(BREAKING.format(mark=str(mark), error=f"{CUDA_ERROR}\nCompile with ..."))
    mark.touch()
    return replace(spec, metric_files=(str(file),))


HANGING = """
import time
from pathlib import Path

import tracker
from tracker.engines import deadline
from transformers import GPTNeoXModel

deadline.LEAST_SECONDS, deadline.SLICE_SECONDS, deadline.TIMES = 6.0, 0.5, 1
MARK, forward = Path({mark!r}), GPTNeoXModel.forward


@tracker.metric(title="Largest share", unit="share", low=0, high=1, source="own")
def largest_share(rows):
    return rows.amax(-1)


def hanging(model, *given, **named):
    if MARK.exists():
        MARK.unlink()
        while True:
            time.sleep(1)
    return forward(model, *given, **named)


GPTNeoXModel.forward = hanging
"""


def hanging(folder: Path, spec: WorkerSpec) -> tuple[WorkerSpec, Path]:
    """Workers of which one stands still for ever, alive, once the mark that is returned is made."""
    file, mark = folder / "hanging.py", folder / "mark"
    file.write_text(HANGING.format(mark=str(mark)))
    return replace(spec, metric_files=(str(file),)), mark


def measured_here(folder: Path, units: list[PlannedUnit], store: str = "alone") -> list[Outcome]:
    return list(run_inline(units, Worker.from_spec(worker_spec(folder, store), HERE)))


def frames(store: Path) -> dict[str, pl.DataFrame]:
    """All tables without what no two measurements share, in a fixed order."""
    results = open_store(store)
    return {
        name: getattr(results, name)().drop(VOLATILE, strict=False).sort("model", "step", *order)
        for name, order in TABLES.items()
    }


def same(one: Path, other: Path) -> bool:
    mine, theirs = frames(one), frames(other)
    return all(mine[name].equals(theirs[name]) for name in mine)


def each_once(outcomes: list[Outcome], units: list[PlannedUnit]) -> bool:
    return Counter(o.unit.id for o in outcomes) == Counter(p.unit.id for p in units)


def children(pid: int) -> list[int]:
    """Process ids of all descendants of a process."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(each) for each in task.read_text().split()]
        except OSError:
            continue
    return [*found, *(below for each in found for below in children(each))]


class Killer:
    """Kills workers of this process, each a random while after the outcome that it was told of last."""

    def __init__(self, kills: int, seed: int = 0, within: float = 0.2) -> None:
        self.killed: list[int] = []
        self._left, self._within, self._random = kills, within, random.Random(seed)
        self._told, self._ended = threading.Event(), threading.Event()

    def tell(self) -> None:
        self._told.set()

    def _run(self) -> None:
        while self._left and not self._ended.is_set():
            self._told.wait()
            self._told.clear()
            self._ended.wait(self._random.random() * self._within)
            workers = [each for each in multiprocessing.active_children() if each.name.startswith("worker")]
            if workers and not self._ended.is_set():
                victim = self._random.choice(workers)
                os.kill(int(victim.pid or 0), signal.SIGKILL)
                self.killed.append(int(victim.pid or 0))
                self._left -= 1

    @contextmanager
    def running(self) -> Iterator["Killer"]:
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            self._told.set()
            thread.join()
