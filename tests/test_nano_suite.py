"""The embedded suite trained by processes side by side: progress, failures, and being stopped in any way."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file
from test_nano_recipe import finds_tracker

from tracker.errors import RequestError, TrackerError
from tracker.nano import NanoRecipe, suite_checkpoints, train_suite
from tracker.nano.corpus import documents, prepare
from tracker.nano.job import Job
from tracker.nano.workers import run_jobs

TINY = NanoRecipe(train_steps=20, batch=2, tokens=16, vocab=300, text_bytes=200_000)


@pytest.mark.slow
def test_suite_trains_side_by_side_reports_and_is_done_once(tmp_path):
    recipe = dataclasses.replace(TINY, train_steps=4)
    reports = []
    train_suite(recipe, tmp_path, ["0.05m", "0.2m"], 1, lambda *report: reports.append(report), threads=2)
    assert {(model, seed, step, total) for model, seed, step, total, _ in reports} >= {
        ("0.05m", 0, 4, 4),
        ("0.2m", 0, 4, 4),
    }
    assert all(0 < loss < 10 for *_, loss in reports)
    found = suite_checkpoints(recipe, tmp_path, ["0.05m", "0.2m"], 1)
    assert [one.exists for one in found] == [True] * 8
    assert all(Path(one.location, one.revision, "model.safetensors").is_file() for one in found)

    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    reports.clear()
    started = time.monotonic()
    train_suite(recipe, tmp_path, ["0.05m", "0.2m"], 1, lambda *report: reports.append(report))
    assert time.monotonic() - started < 2
    assert reports == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == stamps


@pytest.mark.slow
def test_failed_worker_names_model_seed_and_step(tmp_path):
    recipe = dataclasses.replace(TINY, peak_learning_rate=1e30, clip_norm=1e30)
    with pytest.raises(
        TrackerError,
        match=r"training of 0\.05m seed 0 failed after step \d+: .*loss is .*run the same command to resume",
    ):
        train_suite(recipe, tmp_path, ["0.05m"], 1)


@pytest.mark.slow
def test_two_processes_on_one_training_do_not_disturb_each_other(tmp_path):
    recipe = dataclasses.replace(TINY, train_steps=200)
    corpus = prepare(recipe, documents(recipe.text_bytes), tmp_path / "text")
    job = Job(recipe, "0.05m", 0, corpus, tmp_path / "seed-0")
    run_jobs([job, job], 2, lambda job, step, loss: None)
    assert job.missing() == []
    curve = json.loads((job.folder / "training.json").read_text())["training_loss"]
    assert len(curve) == recipe.train_steps
    assert {path.name for path in job.folder.iterdir() if path.name.startswith(".")} <= {".lock"}


def test_wrong_number_of_threads_is_refused(tmp_path):
    message = r"suite\.threads=0: invalid value; expected whole numbers from 1, or null"
    with pytest.raises(RequestError, match=message):
        train_suite(TINY, tmp_path, ["0.05m"], 1, threads=0)
    assert list(tmp_path.iterdir()) == []


LONG = dataclasses.replace(TINY, train_steps=100_000, interval=1)
DRIVER = """
import sys
from pathlib import Path
from tracker.nano import NanoRecipe, train_suite

def report(model, seed, step, total, loss):
    print(step, flush=True)

if __name__ == "__main__":
    recipe = NanoRecipe(train_steps=100_000, interval=1, batch=2, tokens=16, vocab=300, text_bytes=200_000)
    train_suite(recipe, Path(sys.argv[1]), ["0.05m"], 1, report)
"""


def _children(pid: int) -> list[int]:
    """Processes whose parent is ``pid``, as the kernel lists them."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _gone(pid: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def _driver_past_step(folder: Path, least: int) -> subprocess.Popen:
    """A driver in a process group of its own, once it has reported a step at or beyond ``least``."""
    script = folder / "driver.py"
    script.write_text(DRIVER)
    driver = subprocess.Popen(
        [sys.executable, str(script), str(folder / "suite")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        env=finds_tracker(),
    )
    assert driver.stdout is not None
    for line in driver.stdout:
        if int(line) >= least:
            return driver
    driver.stdout.close()
    raise AssertionError(f"the driver ended early, with code {driver.wait()}")


def _check_whole(folder: Path, least: int) -> None:
    steps = sorted(folder.glob("suite/*/0.05m/seed-0/step*"))
    assert len(steps) >= least
    for step in steps:
        assert len(load_file(step / "model.safetensors")) == 28
        assert json.loads((step / "training.json").read_text())["step"] == int(step.name[4:])
        assert json.loads((step / "config.json").read_text())["model_type"] == "gpt_neox"


linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at /proc to find processes")


@linux
@pytest.mark.parametrize("kill", [pytest.param(signal.SIGKILL, marks=pytest.mark.slow), signal.SIGINT])
def test_stopped_training_leaves_whole_checkpoints_and_no_process(tmp_path, kill):
    driver = _driver_past_step(tmp_path, 40)
    workers = _children(driver.pid)
    assert workers
    if kill == signal.SIGINT:
        os.killpg(driver.pid, signal.SIGINT)  # as a terminal's Ctrl-C does
    else:
        driver.kill()
    driver.wait(20)
    assert driver.stdout is not None
    driver.stdout.close()
    assert all(_gone(pid, 20) for pid in workers)
    _check_whole(tmp_path, 7)


@pytest.mark.slow
@linux
def test_killed_worker_is_an_error_and_its_checkpoints_are_whole(tmp_path):
    corpus = prepare(LONG, documents(LONG.text_bytes), tmp_path / "suite" / "x" / "text")
    job = Job(LONG, "0.05m", 0, corpus, tmp_path / "suite" / "x" / "0.05m" / "seed-0")

    def kill(job, step, loss):
        if step >= 40:
            for line in (Path(f"/proc/{pid}") for pid in _children(os.getpid())):
                if b"spawn_main" in (line / "cmdline").read_bytes():
                    os.kill(int(line.name), signal.SIGKILL)

    message = r"0\.05m seed 0 failed after step \d+: its process was killed"
    with pytest.raises(TrackerError, match=message):
        run_jobs([job], 1, kill)
    _check_whole(tmp_path, 7)
    assert (job.folder / "resume.pt").is_file()
