import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import wandb_file
from loopback_wandb import API_KEY, LoopbackWandb
from sink_material import (
    all_history,
    assert_rows_equal_store,
    no_wandb_of_the_user,  # noqa: F401  # a fixture that every test here uses
    store_one,
    wait_until,
)

from tracker.errors import RequestError
from tracker.wandb_sink import PublisherHandle, SinkOptions, publish, start_publisher
from tracker.wandb_sink.lock import publisher_lock

OFFLINE = SinkOptions(mode="offline", maps=False)


def pid_of(handle: PublisherHandle) -> int:
    assert handle.process is not None
    return handle.process.pid


def run_is_open(folder: Path) -> bool:
    ledgers = list((folder / "wandb" / "sent").rglob("*.json"))
    return any(json.loads(path.read_text())["open"] for path in ledgers)


def test_it_follows_the_store_and_sends_the_rest_when_told_to_end(tmp_path: Path):
    handle = start_publisher(tmp_path, OFFLINE)
    pid = pid_of(handle)
    store_one(tmp_path, 1)
    wait_until(lambda: run_is_open(tmp_path))
    os.kill(pid, signal.SIGINT)  # as Ctrl-C at the terminal would, were it in the same session
    assert os.getsid(pid) != os.getsid(0)
    for step in (0, 2):
        store_one(tmp_path, step)
    store_one(tmp_path, 0, "160m")
    sentences = handle.finish()
    assert sentences == [
        f"W&B, offline: 4 checkpoints in 2 runs written to {tmp_path / 'wandb'}; after `wandb login`, "
        f"`wandb sync {tmp_path / 'wandb'}` delivers them."
    ]
    assert_rows_equal_store(all_history(tmp_path), tmp_path)
    assert len(wandb_file.wandb_files(tmp_path)) == 2
    assert not Path(f"/proc/{pid}").exists()
    assert (tmp_path / "wandb" / "publisher.log").read_bytes() == b""
    assert handle.finish() == []


def test_a_killed_publisher_loses_nothing_that_the_next_does_not_send(tmp_path: Path):
    store_one(tmp_path, 0)
    handle = start_publisher(tmp_path, OFFLINE)
    wait_until(lambda: run_is_open(tmp_path))
    os.kill(pid_of(handle), signal.SIGKILL)
    store_one(tmp_path, 1)
    log = tmp_path / "wandb" / "publisher.log"
    assert handle.finish() == [
        f"The W&B publisher ended with code -9 (see {log}); the measurements are stored, "
        f"`tracker stream store={tmp_path}` sends the rest."
    ]
    assert publish(tmp_path, OFFLINE).rows == 2
    assert_rows_equal_store(all_history(tmp_path), tmp_path)


def test_a_publisher_killed_online_sends_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store_one(tmp_path, 0)
    with LoopbackWandb() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", API_KEY)
        handle = start_publisher(tmp_path, SinkOptions(maps=False))
        command_line = Path(f"/proc/{pid_of(handle)}/cmdline").read_bytes()
        assert API_KEY.encode() not in command_line
        wait_until(lambda: any(run.lines for run in server.runs.values()))
        store_one(tmp_path, 1)
        os.kill(pid_of(handle), signal.SIGKILL)
        assert "ended with code -9" in handle.finish()[0]
        assert publish(tmp_path, SinkOptions(maps=False)).failure is None
        assert_rows_equal_store([row for run in server.runs.values() for row in run.history], tmp_path)


SWEEP = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from sink_material import store_one
from tracker.wandb_sink import SinkOptions, start_publisher
handle = start_publisher(Path(sys.argv[1]), SinkOptions(mode="offline", maps=False))
store_one(Path(sys.argv[1]), 0)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_drains_and_ends_when_the_sweep_was_killed(tmp_path: Path):
    tests = str(Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": str(Path(tests).parent)}
    command = [sys.executable, "-c", SWEEP, str(tmp_path), tests]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    wait_until(lambda: list((tmp_path / "wandb").glob("sent/*/*.json")) and not run_is_open(tmp_path))
    assert_rows_equal_store(all_history(tmp_path), tmp_path)
    with publisher_lock(tmp_path, None):  # it is free once the publisher has ended
        pass


def test_a_publisher_that_hangs_is_given_up_in_bounded_time(tmp_path: Path):
    store_one(tmp_path, 0)
    handle = start_publisher(tmp_path, OFFLINE)
    os.kill(pid_of(handle), signal.SIGSTOP)
    begun = time.monotonic()
    assert handle.finish(timeout=0.5) == [
        "The W&B publisher did not finish in 0.5 s; the measurements are stored, "
        f"`tracker stream store={tmp_path}` sends the rest."
    ]
    assert time.monotonic() - begun < 3
    assert publish(tmp_path, OFFLINE).rows == 1


def test_a_publisher_that_cannot_start_is_only_a_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("")
    (sentence,) = start_publisher(tmp_path / "file", OFFLINE).finish()
    assert sentence.startswith("The W&B publisher could not be started: ")


def test_its_own_errors_come_back_as_sentences(tmp_path: Path):
    store_one(tmp_path, 0)
    (tmp_path / "wandb" / "publisher.lock").mkdir(parents=True)
    (sentence,) = start_publisher(tmp_path, OFFLINE).finish()
    assert sentence.startswith(f"W&B: cannot write below {tmp_path / 'wandb'}: ")


def test_a_sink_that_is_off_starts_no_process(tmp_path: Path):
    for options in (SinkOptions(name="none"), SinkOptions(mode="disabled")):
        handle = start_publisher(tmp_path / "store", options)
        assert handle.process is None
        assert handle.finish() == []
    assert not (tmp_path / "store").exists()


def test_a_wrong_option_is_refused_before_anything_is_made(tmp_path: Path):
    with pytest.raises(RequestError, match=r"sink\.mode=on: invalid value; expected one of auto"):
        start_publisher(tmp_path / "store", SinkOptions(mode="on"))
    assert not (tmp_path / "store").exists()
