"""The publisher as a process of its own: how it begins, dies and ends, beside a sweep and other sweeps."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import wandb
import wandb_file
from loopback_wandb import API_KEY, LoopbackWandb
from sink_material import (
    LEAN,
    OFFLINE,
    all_history,
    all_rows,
    assert_rows_equal_store,
    no_wandb_of_the_user,  # noqa: F401  # a fixture that every test here uses
    publisher_lock,
    store_one,
    wait_until,
    wandb_server,  # noqa: F401  # the fixture `server`
)

from tracker.errors import RequestError
from tracker.wandb_sink import PublisherHandle, SinkOptions, publish, start_publisher

TESTS = str(Path(__file__).parent)


def pid_of(handle: PublisherHandle) -> int:
    assert handle.process is not None
    return handle.process.pid


def ledgers(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in (folder / "wandb" / "sent").rglob("*.json")]


def run_is_open(folder: Path) -> bool:
    return any(ledger["open"] for ledger in ledgers(folder))


def python(code: str, *arguments: str, **options) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(TESTS).parent), TESTS])}
    return subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment, text=True, **options)


def test_it_follows_the_store_and_sends_the_rest_when_asked_to_end(tmp_path: Path):
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
        f"W&B: 4 checkpoints in 2 runs, offline; to send: wandb login && wandb sync {tmp_path / 'wandb'}"
    ]
    assert_rows_equal_store(all_history(tmp_path), tmp_path)
    assert len(wandb_file.wandb_files(tmp_path)) == 2
    assert not Path(f"/proc/{pid}").exists()
    assert (tmp_path / "wandb" / "publisher.log").read_bytes() == b""
    assert handle.finish() == []


def test_after_sigkill_nothing_is_lost_or_sent_twice_by_replay_offline_by_sync_and_by_replay_online(
    tmp_path: Path, server: LoopbackWandb
):
    handle = start_publisher(tmp_path, LEAN)
    assert API_KEY.encode() not in Path(f"/proc/{pid_of(handle)}/cmdline").read_bytes()
    store_one(tmp_path, 0)
    store_one(tmp_path, 1)
    wait_until(lambda: len(all_rows(server)) == 2, 30)
    server.silent.set()  # what is stored now is handed to W&B and cannot arrive
    store_one(tmp_path, 2)
    wait_until(lambda: [len(rows) for rows in ledgers(tmp_path)[0]["rows"].values()] == [3])
    os.kill(pid_of(handle), signal.SIGKILL)
    log = tmp_path / "wandb" / "publisher.log"
    assert handle.finish() == [
        f"The W&B publisher ended with code -9 (see {log}); the measurements are stored, "
        f"`tracker stream store={tmp_path}` sends the rest."
    ]
    server.silent.clear()
    store_one(tmp_path, 4)
    offline = publish(tmp_path, OFFLINE)
    assert (offline.rows, offline.unconfirmed) == (1, 3)
    wandb.teardown()
    for extra in ([], ["--include-online"]):
        command = [sys.executable, "-m", "wandb", "sync", *extra, str(tmp_path / "wandb")]
        subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=True)
    assert 3 <= len(all_rows(server)) <= 4
    assert publish(tmp_path, LEAN).failure is None
    assert_rows_equal_store(all_rows(server), tmp_path)


SWEEP = """
import json, sys, time
from pathlib import Path
from sink_material import LEAN, store_one
from tracker.wandb_sink import start_publisher
handle = start_publisher(Path(sys.argv[1]), LEAN)
for step in json.loads(sys.argv[2]):
    store_one(Path(sys.argv[1]), step)
    time.sleep(0.2)
print(handle.finish())
"""


def test_two_sweeps_in_processes_of_their_own_write_one_store(tmp_path: Path, server: LoopbackWandb):
    steps = random.Random(1).sample([0, 1, 2, 4, 8, 16], 6)
    parts = [json.dumps(steps[number::2]) for number in (0, 1)]
    sweeps = [python(SWEEP, str(tmp_path), part, stdout=subprocess.PIPE) for part in parts]
    said = [sweep.communicate(timeout=100)[0] for sweep in sweeps]
    assert [sweep.returncode for sweep in sweeps] == [0, 0], said
    assert_rows_equal_store(all_rows(server), tmp_path)


def test_without_a_network_a_sweep_waits_less_than_ten_seconds_and_says_how_to_deliver(
    tmp_path: Path, server: LoopbackWandb
):
    server.silent.set()
    handle = start_publisher(tmp_path, SinkOptions(mode="online", maps=False))
    for step in (0, 1):
        store_one(tmp_path, step)
    wait_until((tmp_path / "wandb" / "publisher.lock").exists)  # it has started
    begun = time.monotonic()
    sentences = " ".join(handle.finish())
    assert time.monotonic() - begun < 10
    assert f"W&B failed ({server.url}: " in sentences
    assert f"`tracker stream store={tmp_path}` sends what is missing" in sentences
    assert f"`wandb sync {tmp_path / 'wandb'}`" in sentences
    assert API_KEY not in sentences
    assert_rows_equal_store(all_history(tmp_path), tmp_path)


def test_when_wandbs_own_service_dies_the_rest_goes_on_and_the_next_replay_completes(
    tmp_path: Path, server: LoopbackWandb
):
    handle = start_publisher(tmp_path, LEAN)
    store_one(tmp_path, 0)
    wait_until(lambda: len(all_rows(server)) == 1, 30)
    children = Path(f"/proc/{pid_of(handle)}/task/{pid_of(handle)}/children").read_text().split()
    services = [int(pid) for pid in children if b"wandb-core" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert services
    for pid in services:
        os.kill(pid, signal.SIGKILL)
    for step in (1, 2):
        store_one(tmp_path, step)
        time.sleep(0.7)  # each is given to W&B by itself
    assert "W&B failed" in " ".join(handle.finish())
    assert publish(tmp_path, LEAN).failure is None
    assert_rows_equal_store(all_rows(server), tmp_path)


KILLED = """
import os, signal, sys
from pathlib import Path
from sink_material import OFFLINE, store_one
from tracker.wandb_sink import start_publisher
handle = start_publisher(Path(sys.argv[1]), OFFLINE)
store_one(Path(sys.argv[1]), 0)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_sends_the_rest_and_ends_when_the_sweep_was_killed(tmp_path: Path):
    assert python(KILLED, str(tmp_path)).wait(60) == -signal.SIGKILL
    wait_until(lambda: ledgers(tmp_path) and not run_is_open(tmp_path))
    assert_rows_equal_store(all_history(tmp_path), tmp_path)
    with publisher_lock(tmp_path):  # it is free once the publisher has ended
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


def test_a_publisher_that_cannot_start_or_write_is_only_a_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("")
    (sentence,) = start_publisher(tmp_path / "file", OFFLINE).finish()
    assert sentence.startswith("The W&B publisher could not be started: ")
    store_one(tmp_path, 0)
    (tmp_path / "wandb" / "publisher.lock").mkdir(parents=True)
    (sentence,) = start_publisher(tmp_path, OFFLINE).finish()
    assert sentence.startswith(f"W&B: cannot write below {tmp_path / 'wandb'}: ")


def test_a_sink_that_is_off_or_wrong_starts_no_process(tmp_path: Path):
    for options in (SinkOptions(name="none"), SinkOptions(mode="disabled")):
        handle = start_publisher(tmp_path / "store", options)
        assert handle.process is None
        assert handle.finish() == []
    with pytest.raises(RequestError, match=r"sink\.mode=on: invalid value; expected one of auto"):
        start_publisher(tmp_path / "store", SinkOptions(mode="on"))
    assert not (tmp_path / "store").exists()
