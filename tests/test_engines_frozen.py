"""Workers that stand still: stopped by a signal, or alive and waiting for ever."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_material import HERE, children, hanging, suite, worker_spec
from suite_material import records, wait_for

from tracker.engines import dask, deadline, scheduler, warm_process
from tracker.engines.dask import run_dask
from tracker.engines.deadline import Deadlines
from tracker.engines.local import PoolOptions, run_local
from tracker.engines.prefetch import Prefetch, Transfer
from tracker.engines.scheduler import ClusterOptions
from tracker.engines.unit_batch import SweepContext
from tracker.engines.worker_spec import WorkerSpec
from tracker.errors import TrackerError
from tracker.records import Outcome, PlannedUnit
from tracker.store import Store
from tracker.store.heartbeat import Heartbeat


@contextlib.contextmanager
def running(
    engine: str,
    folder: Path,
    units: list[PlannedUnit],
    spec: WorkerSpec,
    options: ClusterOptions | None = None,
) -> Iterator[Iterator[Outcome]]:
    """Outcomes of two workers of an engine."""
    spec.store.mkdir(exist_ok=True)
    with Heartbeat(spec.store) as heartbeat:
        if engine == "local":
            found = run_local(Prefetch(units), spec, PoolOptions((HERE, HERE)))
        else:
            context = SweepContext(spec, heartbeat.path, folder / "cache", device="cpu", threads=1)
            found = run_dask(units, context, options or ClusterOptions(workers=2, batch=2), {}, Transfer())
        with contextlib.closing(found):
            yield found


def workers() -> list[int]:
    return [
        pid for pid in children(os.getpid()) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def each_ok(outcomes: list[Outcome], count: int) -> bool:
    steps = sorted(each.unit.checkpoint.step for each in outcomes)
    return steps == list(range(count)) and {each.status for each in outcomes} == {"ok"}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "dask"])
def test_a_worker_that_freezes_loses_its_unit_to_another_and_writes_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
):
    monkeypatch.setattr(warm_process, "SILENT_SECONDS", 10.0)
    monkeypatch.setattr(scheduler, "SILENT_SECONDS", 25)
    units, spec = suite(tmp_path, 8), worker_spec(tmp_path, engine).with_absolute_paths()
    with running(engine, tmp_path, units, spec) as found:
        outcomes, began, written = [next(found)], time.monotonic(), {}
        frozen = workers()[0]
        os.kill(frozen, signal.SIGSTOP)
        for outcome in found:
            outcomes.append(outcome)
            if len(outcomes) == 8:  # the unit that it held is measured by another
                written = {place: (place / "heads.parquet").stat().st_ino for place in records(spec.store)}
                with contextlib.suppress(ProcessLookupError):
                    os.kill(frozen, signal.SIGCONT)
                time.sleep(3)
        assert time.monotonic() - began < 200
    assert each_ok(outcomes, 8), [(each.status, each.reason) for each in outcomes]
    assert {place: (place / "heads.parquet").stat().st_ino for place in records(spec.store)} == written
    assert len(written) == 8
    assert not any((spec.store / ".partial").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "dask"])
def test_a_unit_that_hangs_while_its_process_lives_goes_to_another_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
):
    monkeypatch.setattr(deadline, "LEAST_SECONDS", 6.0)
    monkeypatch.setattr(deadline, "TIMES", 1)
    units = suite(tmp_path, 6)
    spec, mark = hanging(tmp_path, worker_spec(tmp_path, engine).with_absolute_paths())
    with running(engine, tmp_path, units, spec) as found:
        outcomes, began = [next(found)], time.monotonic()
        mark.touch()
        outcomes += list(found)
        assert 6 < time.monotonic() - began < 200
    assert each_ok(outcomes, 6)
    assert not mark.exists(), "none has hung"


@pytest.mark.slow
def test_a_worker_that_freezes_while_it_starts_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(warm_process, "SILENT_SECONDS", 6.0)
    units, spec = suite(tmp_path, 2), worker_spec(tmp_path, "pool")
    spec.store.mkdir()
    pool = run_local(Prefetch(units), spec, PoolOptions((HERE,)))
    real, frozen = warm_process.WarmProcess.start, list[int]()

    def started_and_stopped(self: warm_process.WarmProcess) -> object:
        connection = real(self)
        if not frozen:
            (process,) = [each for each in multiprocessing.active_children() if each.name == "worker 1"]
            frozen.append(int(process.pid or 0))
            os.kill(frozen[0], signal.SIGSTOP)
        return connection

    monkeypatch.setattr(warm_process.WarmProcess, "start", started_and_stopped)
    assert each_ok(list(pool), 2)
    assert not Path(f"/proc/{frozen[0]}").exists()


@pytest.mark.slow
def test_a_sweep_that_was_itself_stopped_for_long_goes_on_with_its_workers(tmp_path: Path):
    """Ctrl-Z and ``fg``: nobody was silent, the one who listens was not there."""
    script = """
import sys
sys.path.insert(0, TESTS)
from pathlib import Path
from engine_material import HERE, suite, worker_spec
from tracker.engines import warm_process
from tracker.engines.local import PoolOptions, run_local
from tracker.engines.prefetch import Prefetch

if __name__ == "__main__":
    warm_process.SILENT_SECONDS = 12.0
    folder = Path(FOLDER)
    (folder / "pool").mkdir()
    options = PoolOptions((HERE,), retries=0, timeout=60)
    for outcome in run_local(Prefetch(suite(folder, 30, 60)), worker_spec(folder, "pool"), options):
        print(outcome.status, flush=True)
"""
    file = tmp_path / "sweep.py"
    here = repr(str(Path(__file__).parent))
    file.write_text(script.replace("TESTS", here).replace("FOLDER", repr(str(tmp_path))))
    process = subprocess.Popen(
        [sys.executable, str(file)], text=True, stdout=subprocess.PIPE, start_new_session=True
    )
    wait_for(lambda: len(records(tmp_path / "pool")) >= 2, process)
    os.killpg(process.pid, signal.SIGSTOP)
    time.sleep(14)
    os.killpg(process.pid, signal.SIGCONT)
    said, _ = process.communicate(timeout=60)
    assert said.split() == ["ok"] * 30


def test_the_time_of_a_unit_follows_from_what_others_of_its_model_took(tmp_path: Path):
    other, unit = suite(tmp_path, 2)
    store = Store(tmp_path / "store")
    assert Deadlines(store, 7.0).seconds(unit, None) == 7.0
    free = Deadlines(store, None)
    assert free.seconds(unit, None) == deadline.FIRST_SECONDS
    free.note(Outcome(other.unit, "failed", "no", 500.0))
    assert free.seconds(unit, None) == deadline.FIRST_SECONDS, (
        "a failure says nothing of how long others take"
    )
    free.note(Outcome(other.unit, "ok", None, 2.0))
    assert free.seconds(unit, None) == deadline.LEAST_SECONDS
    free.note(Outcome(other.unit, "ok", None, 100.0))
    free.note(Outcome(other.unit, "ok", None, 50.0))
    assert free.seconds(unit, None) == 2000.0


def test_the_time_of_a_unit_follows_from_records_of_the_store(tmp_path: Path):
    from engine_material import measured_here

    units = suite(tmp_path, 2)
    measured_here(tmp_path, units[:1])
    assert Deadlines(Store(tmp_path / "alone"), None).seconds(units[1], None) == deadline.LEAST_SECONDS


@pytest.mark.slow
def test_a_running_scheduler_that_freezes_ends_the_sweep_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from test_engines_dask import address_in

    monkeypatch.setattr(dask, "ASK_SECONDS", 3.0)
    units, spec = suite(tmp_path, 30), worker_spec(tmp_path, "dask").with_absolute_paths()
    program = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    quiet = {"stderr": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    with subprocess.Popen([*program, "--no-dashboard"], stderr=subprocess.PIPE, text=True) as boss:
        address = address_in(boss)
        start = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-dashboard"]
        worker = subprocess.Popen([*start, "--host", "127.0.0.1", "--nthreads", "1"], **quiet)
        try:
            options = ClusterOptions(address, batch=2, wait=30)
            with running("dask", tmp_path, units, spec, options) as found:
                next(found)
                boss.send_signal(signal.SIGSTOP)
                began = time.monotonic()
                with pytest.raises(TrackerError, match="scheduler has not answered for 3 s; progress"):
                    list(found)
            assert time.monotonic() - began < 60
        finally:
            boss.send_signal(signal.SIGCONT)
            for process in (worker, boss):
                process.terminate()
                process.wait(20)
