"""dask: what inline measures, and clear words where there is nobody to work."""

import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engine_material import breaking, measured_here, same, suite, worker_spec
from suite_material import PROBE, finished, make_suite, start_sweep

import tracker as package
from tracker.cli import run
from tracker.engines.dask import Dispatch, run_dask
from tracker.engines.prefetch import Transfer
from tracker.engines.scheduler import ClusterOptions, connected
from tracker.engines.unit_batch import SweepContext, UnitBatch, carry_out
from tracker.engines.worker_spec import WorkerSpec
from tracker.errors import RequestError
from tracker.records import Outcome, PlannedUnit
from tracker.store import select_results
from tracker.store.heartbeat import Heartbeat

NOBODY = "tcp://127.0.0.1:9"


def measured_by_dask(folder: Path, units: list[PlannedUnit], spec: WorkerSpec) -> list[Outcome]:
    spec.store.mkdir(exist_ok=True)
    with Heartbeat(spec.store) as heartbeat:
        context = SweepContext(spec, heartbeat.path, folder / "cache", device="cpu", threads=1, prefetch=2)
        return list(run_dask(units, context, ClusterOptions(workers=1, batch=3), {}, Transfer()))


@pytest.mark.filterwarnings("ignore:.*left out")
def test_dask_workers_measure_what_one_process_does(tmp_path: Path):
    units = suite(tmp_path, 6, models=2)
    make_suite(tmp_path, [5], "lab/pythia-some-1", hidden_size=64)
    measured_here(tmp_path, units)
    outcomes = measured_by_dask(tmp_path, units, worker_spec(tmp_path, "dask").with_absolute_paths())
    assert [each.status for each in outcomes] == ["ok"] * 12
    (odd,) = select_results(tmp_path / "dask").damaged
    assert odd.as_hole()["step"] == 5
    assert "(2 layers of 2 heads, width 64) is not that of the model's other checkpoints" in str(odd)
    assert same(tmp_path / "dask", tmp_path / "alone")


def test_a_batch_that_its_worker_cuts_short_is_handed_out_again(tmp_path: Path):
    """A worker that misses the driver's heartbeat takes the sweep for ended, and stops after its unit."""
    units = suite(tmp_path, 6)
    spec = replace(worker_spec(tmp_path, "dask").with_absolute_paths(), stream="never")
    spec.store.mkdir()
    stopped = threading.Event()

    def hide(path: Path) -> None:
        while not stopped.wait(0.01):
            path.unlink(missing_ok=True)

    with Heartbeat(spec.store) as heartbeat:
        context = SweepContext(spec, heartbeat.path, tmp_path / "cache", device="cpu", threads=1)
        outcomes = []
        hider = threading.Thread(target=hide, args=(heartbeat.path,))
        for outcome in run_dask(units, context, ClusterOptions(workers=1, batch=6), {}, Transfer()):
            outcomes.append(outcome)
            if len(outcomes) == 2:  # the first alone, then the first of a batch of five
                hider.start()
        stopped.set()
        hider.join()
    assert [each.status for each in outcomes] == ["ok"] * 6
    assert len({each.unit.id for each in outcomes}) == 6


@pytest.mark.slow
def test_a_dask_worker_in_which_cuda_failed_is_replaced(tmp_path: Path):
    units, spec = suite(tmp_path, 3), breaking(tmp_path, worker_spec(tmp_path, "dask"))
    assert [each.status for each in measured_by_dask(tmp_path, units, spec)] == ["failed", "ok", "ok"]


def test_a_unit_whose_last_worker_dies_behind_its_record_counts_as_recorded(tmp_path: Path):
    (planned,) = suite(tmp_path, 1)
    measured_here(tmp_path, [planned], "dask")
    made_of = worker_spec(tmp_path, "dask")
    context = SweepContext(made_of, tmp_path, 0.0, tmp_path / "cache")
    dispatch = Dispatch(None, [planned], context, ClusterOptions(), {}, Transfer())
    assert dispatch._recorded_or_failed(planned).status == "ok"
    assert package.open_store(made_of.store).checkpoints()["status"].item() == "ok"


def sweep_here(folder: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> int:
    make_suite(folder, range(2))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    request = ("suite=folder", "suite.path=hub/lab/pythia-some", "probe.sequences=4", *PROBE)
    return run(["sweep", *request, *overrides])


def test_a_scheduler_that_does_not_answer_is_one_line_within_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    started = time.monotonic()
    request = ("engine=dask", f"engine.address={NOBODY}", "engine.wait=2")
    assert sweep_here(tmp_path, monkeypatch, *request) == 2
    assert time.monotonic() - started < 10
    said = capsys.readouterr()
    assert f"engine.address={NOBODY}: no scheduler answers there within 2 seconds" in said.err
    assert said.out == ""
    assert not (tmp_path / "tracker-store").exists()


def test_without_sbatch_slurm_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sweep_here(tmp_path, monkeypatch, "engine=slurm") == 2
    told = "tracker: engine=slurm: no `sbatch` on this machine; run this where jobs can be submitted\n"
    assert capsys.readouterr().err.endswith(told)


@pytest.mark.parametrize("engine", ["inline", "local", "dask"])
def test_a_gpu_that_is_not_there_is_refused_before_any_work(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert sweep_here(tmp_path, monkeypatch, f"engine={engine}", "device=cuda") == 2
    assert capsys.readouterr().err.endswith("device=cuda: torch sees no such GPU; choose from auto, cpu\n")
    assert not (tmp_path / "tracker-store").exists()


@pytest.mark.parametrize(
    ("worker", "terms", "message"),
    [
        (None, {}, "the scheduler has no workers; start some with `dask worker"),
        (["--nthreads", "2"], {}, "its workers run 2 tasks at once, and each would use every thread"),
        (["--nthreads", "1"], {"resources": {"GPU": 1}}, "engine.resources.GPU=1: no worker of .* has it"),
    ],
)
def test_workers_that_cannot_do_the_work_are_refused(worker: list[str] | None, terms: dict, message: str):
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(
        [*command, "--no-dashboard"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as scheduler:
        started: list[subprocess.Popen[bytes]] = []
        try:
            address = address_in(scheduler)
            if worker is not None:
                start = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-dashboard"]
                quiet = {"stderr": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
                started.append(subprocess.Popen([*start, "--host", "127.0.0.1", *worker], **quiet))
            with (
                pytest.raises(RequestError, match=message),
                connected(ClusterOptions(address, wait=2 if worker is None else 20, **terms)),
            ):
                pass
        finally:
            for process in [*started, scheduler]:
                process.terminate()
                process.wait(20)


def address_in(scheduler: "subprocess.Popen[str]") -> str:
    assert scheduler.stderr is not None
    for line in scheduler.stderr:
        if "Scheduler at:" in line:
            return line.split()[-1]
    raise AssertionError("the scheduler did not start")


def test_a_worker_that_sees_another_store_refuses(tmp_path: Path):
    made_of = worker_spec(tmp_path, "dask").with_absolute_paths()
    context = SweepContext(made_of, tmp_path / "gone", 0.0, tmp_path / "cache", device="cpu")
    with pytest.raises(RequestError, match="this is not the folder that the sweep writes to"):
        carry_out(context, UnitBatch(tuple(suite(tmp_path, 1)), {}), "0", print)


@pytest.mark.slow
def test_a_checkpoint_that_takes_too_long_costs_dask_one_worker_and_no_other_checkpoint(tmp_path: Path):
    make_suite(tmp_path, range(3), sequences=4000)
    request = ("engine=dask", "engine.workers=1", "suite=folder", "suite.path=hub/lab/pythia-some",
               "suite.name=folder")  # fmt: skip
    said = finished(start_sweep(tmp_path, NOBODY, *request, "engine.timeout=0.05", repo="none"), code=1)
    rows = package.open_store(tmp_path / "tracker-store").checkpoints()
    assert rows["status"].to_list() == ["failed"] * 3, said
    assert set(rows["reason"].str.split(": ").list[1]) == {
        "took longer than engine.timeout=0.05 seconds; raise it, or reduce probe.sequences"
    }
