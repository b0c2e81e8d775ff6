"""The local pool: what inline measures, whatever happens to the workers."""

import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from engine_material import (
    CUDA_ERROR,
    HERE,
    Killer,
    breaking,
    children,
    each_once,
    measured_here,
    same,
    suite,
    worker_spec,
)
from suite_material import finished, make_suite, start_sweep, wait_for
from test_config import composed
from test_reservations import reserving
from transformers import GPTNeoXModel

import tracker as package
from tracker.engines.local import Pool, PoolOptions, run_local
from tracker.engines.placement import worker_count
from tracker.engines.prefetch import Prefetch
from tracker.engines.warm_process import Task, WarmProcess
from tracker.errors import CheckpointError, StoreError, TrackerError, needs_new_process
from tracker.store import Store

TWO = PoolOptions((HERE, HERE), retries=5)


@pytest.mark.slow
def test_workers_that_are_killed_lose_nothing_and_change_nothing(tmp_path: Path):
    units = suite(tmp_path, 8, sequences=24, models=2)
    measured_here(tmp_path, units)
    with Killer(1).running() as killer:
        outcomes = []
        for outcome in run_local(Prefetch(units, depth=2), worker_spec(tmp_path, "pool"), TWO):
            outcomes.append(outcome)
            killer.tell()
    assert len(killer.killed) == 1
    assert each_once(outcomes, units)
    assert {outcome.status for outcome in outcomes} == {"ok"}
    assert same(tmp_path / "pool", tmp_path / "alone")
    assert not [each for each in multiprocessing.active_children() if each.name.startswith("worker")]


@pytest.mark.slow
def test_a_unit_that_takes_too_long_or_whose_worker_keeps_dying_is_a_hole(tmp_path: Path):
    units = suite(tmp_path, 2, sequences=4000)
    slow = PoolOptions((HERE,), timeout=0.01)
    reasons = [
        str(each.reason) for each in run_local(Prefetch(units[:1]), worker_spec(tmp_path, "slow"), slow)
    ]
    assert reasons == [
        "pythia-some-0 seed 0 step 0: took longer than engine.timeout=0.01 seconds; raise it, or reduce "
        "probe.sequences"
    ]
    assert Store(tmp_path / "slow").recorded()[units[0].unit.id].reason == reasons[0]
    supply = Prefetch(units[:1])
    with supply, Pool(supply, worker_spec(tmp_path, "dying"), PoolOptions((HERE,), retries=0)) as pool:
        while not pool.workers[0].ready:
            time.sleep(0.05)
        time.sleep(0.3)
        (worker,) = [each for each in multiprocessing.active_children() if each.name == "worker 1"]
        os.kill(int(worker.pid or 0), signal.SIGKILL)
        (killed,) = pool.outcomes()
    assert (killed.status, killed.reason) == (
        "failed",
        "pythia-some-0 seed 0 step 0: its worker process was killed by SIGKILL (in 1 attempt); if out of "
        "memory, use engine.stream=always or reduce engine.workers",
    )


@pytest.mark.slow
def test_a_unit_whose_time_ends_behind_its_record_counts_as_recorded(tmp_path: Path):
    units = suite(tmp_path, 1, sequences=400)
    measured_here(tmp_path, units, "pool")
    terms = PoolOptions((HERE,), timeout=0.01)
    (outcome,) = run_local(Prefetch(units), worker_spec(tmp_path, "pool"), terms)
    assert (outcome.status, outcome.reason) == ("ok", None)
    assert outcome.seconds > 0.01


@pytest.mark.slow
def test_a_worker_is_deaf_to_ctrl_c_from_its_first_moment(tmp_path: Path):
    units = suite(tmp_path, 1)
    process = WarmProcess(worker_spec(tmp_path, "pool"), HERE, "worker 1")
    process.start()
    (worker,) = [each for each in multiprocessing.active_children() if each.name == "worker 1"]
    os.kill(int(worker.pid or 0), signal.SIGINT)
    with Prefetch(units) as supply:
        (fetched,) = [delivery.result for delivery in supply]
    assert process.carry_out(Task(units[0], fetched)).outcome.status == "ok"
    process.stop()
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.slow
def test_a_worker_in_which_cuda_failed_is_replaced(tmp_path: Path):
    units, spec = suite(tmp_path, 3), breaking(tmp_path, worker_spec(tmp_path, "pool"))
    outcomes = list(run_local(Prefetch(units), spec, PoolOptions((HERE,))))
    assert [(outcome.status, outcome.reason) for outcome in outcomes] == [
        ("failed", f"pythia-some-0 seed 0 step 0: RuntimeError: {CUDA_ERROR}"),
        ("ok", None),
        ("ok", None),
    ]


def test_a_sweep_in_one_process_ends_when_cuda_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(CUDA_ERROR)

    units = suite(tmp_path, 3)
    monkeypatch.setattr(GPTNeoXModel, "forward", fail)
    with pytest.raises(TrackerError, match=rf"step 0: RuntimeError: {CUDA_ERROR}; .* engine=local to resume"):
        measured_here(tmp_path, units)
    assert len(Store(tmp_path / "alone").recorded()) == 1, "the others are not recorded as failed"


@pytest.mark.parametrize(
    ("error", "broken"),
    [
        (RuntimeError("CUDA error: device-side assert triggered"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), True),
        (type("AcceleratorError", (RuntimeError,), {})("no kernel image"), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("CUDA error: only quoted"), False),
    ],
)
def test_which_errors_break_a_process(error: Exception, broken: bool):
    assert needs_new_process(error) is broken
    outer = CheckpointError("it does not load")
    outer.__cause__ = error
    assert needs_new_process(outer) is broken


@pytest.mark.parametrize(
    ("overrides", "count"),
    [
        (["engine=inline"], 1),
        (["engine.workers=4"], 4),
        (["device=cpu"], 1),
        ([], max(1, torch.cuda.device_count())),
        (["engine=slurm"], 8),
    ],
)
def test_how_many_workers_a_request_has(overrides: list[str], count: int):
    assert worker_count(composed(*overrides)) == count


@pytest.mark.slow
def test_a_worker_whose_memory_grows_is_replaced(tmp_path: Path):
    units = suite(tmp_path, 3)
    seen = set()
    for outcome in run_local(
        Prefetch(units), worker_spec(tmp_path, "pool"), PoolOptions((HERE,), recycle_bytes=1)
    ):
        assert outcome.status == "ok"
        seen |= {each.pid for each in multiprocessing.active_children() if each.name == "worker 1"}
    assert len(seen) >= 2


@pytest.mark.slow
def test_a_store_that_breaks_ends_the_sweep_with_its_error(tmp_path: Path):
    units = suite(tmp_path, 2)
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "checkpoints").write_text("in the way")
    with pytest.raises(StoreError, match=r"cannot write pythia-some-0 seed 0 step 0 to .*then run the same"):
        list(run_local(Prefetch(units), worker_spec(tmp_path, "pool"), PoolOptions((HERE,))))
    assert not [each for each in multiprocessing.active_children() if each.name.startswith("worker")]


@pytest.mark.slow
@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_stopped_sweep_leaves_no_process_and_goes_on(hub, tmp_path: Path, how: signal.Signals, code: int):
    make_suite(tmp_path, range(16), sequences=60)
    store = tmp_path / "tracker-store"
    sweep = start_sweep(tmp_path, hub.url, "engine.workers=2")
    wait_for(lambda: len(list(store.glob("checkpoints/*/*/*/*"))) >= 4, sweep)
    below = children(sweep.pid)
    sweep.send_signal(how)
    sweep.communicate(timeout=30)
    assert sweep.returncode == code
    time.sleep(2)
    assert not [pid for pid in below if Path(f"/proc/{pid}").exists() and "spawn_main" in
                Path(f"/proc/{pid}/cmdline").read_text()]  # fmt: skip
    done = len(list(store.glob("checkpoints/*/*/*/*")))
    assert 4 <= done < 16
    said = finished(start_sweep(tmp_path, hub.url, "engine.workers=2"))
    assert f"{16 - done} measured now" in said
    assert package.open_store(store).checkpoints()["status"].to_list() == ["ok"] * 16


@pytest.mark.parametrize(
    "how",
    [pytest.param(each, marks=pytest.mark.slow) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)],
)
def test_slurms_and_a_closed_terminals_signal_end_a_sweep_as_ctrl_c_does(
    hub, tmp_path: Path, how: signal.Signals
):
    make_suite(tmp_path, range(40), sequences=60)
    store = tmp_path / "tracker-store"
    sweep = start_sweep(tmp_path, hub.url, "engine.workers=2", "sink=wandb", "sink.mode=offline")
    wait_for(lambda: len(list(store.glob("checkpoints/*/*/*/*"))) >= 2, sweep)
    assert any((store / ".running").iterdir())
    sent = time.monotonic()
    sweep.send_signal(how)
    said, _ = sweep.communicate(timeout=30)
    assert time.monotonic() - sent < 5
    assert sweep.returncode == 130, said
    assert said.endswith("tracker: interrupted; progress saved; run the same command to resume\n")
    assert not (store / ".running").exists()
    Store(store).sweep_partial()  # as the next command does, of a worker that was ended while it wrote
    assert not any((store / ".partial").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["engine=inline", "engine.workers=2", "engine=dask"])
@pytest.mark.parametrize("how", ["moved", "deleted"])
def test_a_store_that_goes_away_stops_its_sweep_at_once(hub, tmp_path: Path, how: str, engine: str):
    make_suite(tmp_path, range(60), sequences=60)
    store, other = tmp_path / "tracker-store", tmp_path / "elsewhere"
    sweep = start_sweep(tmp_path, hub.url, "sink=wandb", "sink.mode=offline", engine)
    wait_for(lambda: len(list(store.glob("checkpoints/*/*/*/*"))) >= 2, sweep)
    store.rename(other)
    if how == "deleted":
        shutil.rmtree(other)
    went = time.monotonic()
    said, _ = sweep.communicate(timeout=60)
    assert time.monotonic() - went < 10
    assert sweep.returncode == 2, said
    assert "tracker-store: was deleted or moved while the command ran, which has stopped; " in said
    assert "Traceback" not in said
    # W&B's own process may still write its last lines; nothing else is made anew at the old place.
    assert {path.name for path in store.glob("*")} <= {"wandb"}
    if how == "moved":
        assert (
            f"what was measured is in {other}: run the same command with its store={other} to resume" in said
        )
        assert 2 <= len(Store(other).recorded()) < 60


def test_a_reserved_unit_is_put_off_and_taken_when_its_sweep_has_gone(tmp_path: Path):
    units = suite(tmp_path, 3)
    store = Store(tmp_path / "alone")
    with reserving(store) as ours, reserving(store) as theirs:
        assert theirs.take(units[0]) == "mine"
        supply = Prefetch(units, reservations=ours)
        with supply:
            first = [supply.take() for _ in range(2)]
            assert [each.planned.unit.checkpoint.step for each in first if each] == [1, 2]
            theirs.release(units[0])
            last = supply.take()
            assert last is not None
            assert last.planned is units[0]
