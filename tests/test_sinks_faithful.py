"""W&B as a faithful view: whatever happens on the way, history read back over W&B's own interface is the
store, every row once and in step order. The real client, in processes of its own, against a server on
loopback.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import wandb
import wandb_file
from loopback_wandb import API_KEY, ENTITY, LoopbackWandb
from sink_material import (
    Follower,
    assert_rows_equal_store,
    no_wandb_of_the_user,  # noqa: F401  # a fixture that every test here uses
    only_run,
    store_one,
    unit_of,
    wait_until,
    wandb_server,  # noqa: F401  # the fixture `server`
)

from tracker.records import PlannedUnit
from tracker.store import open_store
from tracker.wandb_sink import Promised, PublisherHandle, SinkOptions, promised_by, publish, start_publisher
from tracker.wandb_sink import client as client_module
from tracker.wandb_sink import runs as runs_module

LEAN = SinkOptions(maps=False, histograms=False, artifact=False)
STEPS = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512]


def planned(*steps: int, model: str = "70m") -> list[Promised]:
    return promised_by(PlannedUnit(unit_of(step, model), "to do") for step in steps)


def shuffled(steps: list[int], seed: int) -> list[int]:
    return random.Random(seed).sample(steps, len(steps))


def read_back(run_id: str) -> list[dict[str, Any]]:
    """The history of one run as anyone reads it who has the project's address."""
    wandb.teardown()
    rows = wandb.Api(timeout=10).run(f"{ENTITY}/tracker/{run_id}").history(samples=10_000, pandas=False)
    assert isinstance(rows, list)
    return rows


def assert_faithful(server: LoopbackWandb, folder: Path, *, ordered: bool = True) -> None:
    """History read back is the store: every row once, and in step order."""
    history = {run_id: read_back(run_id) for run_id in server.runs}
    assert_rows_equal_store([row for rows in history.values() for row in rows], folder)
    for rows in history.values():
        steps = [row["checkpoint/step"] for row in rows]
        assert not ordered or steps == sorted(steps)


def pid_of(handle: PublisherHandle) -> int:
    assert handle.process is not None
    return handle.process.pid


def lines(server: LoopbackWandb) -> int:
    return sum(len(run.lines) for run in server.runs.values())


def test_through_answers_of_503_and_units_out_of_order(tmp_path: Path, server: LoopbackWandb):
    server.busy_every = 4
    handle = start_publisher(tmp_path, LEAN, planned(*STEPS))
    for step in shuffled(STEPS, 1):
        store_one(tmp_path, step)
        time.sleep(0.1)
    (sentence,) = handle.finish()
    assert sentence == f"W&B: {len(STEPS)} checkpoints in 1 run at {server.url}/{ENTITY}/tracker"
    server.busy_every = 0
    assert server.refused >= 2
    assert_faithful(server, tmp_path)


def test_through_a_server_that_dies_in_the_middle_and_comes_back(tmp_path: Path, server: LoopbackWandb):
    handle = start_publisher(tmp_path, LEAN, planned(*STEPS))
    for step in STEPS[:4]:
        store_one(tmp_path, step)
    wait_until(lambda: lines(server) == 4, 30)
    server.die()
    for step in STEPS[4:8]:
        store_one(tmp_path, step)
    time.sleep(2)
    server.live()
    for step in STEPS[8:]:
        store_one(tmp_path, step)
    assert " at http" in handle.finish()[0]
    assert_faithful(server, tmp_path)


def test_a_server_that_was_gone_at_first_gets_everything_when_it_answers(
    tmp_path: Path, server: LoopbackWandb, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(client_module, "RETRY_SECONDS", 0.5)
    server.die()
    store_one(tmp_path, 0)
    follower = Follower(tmp_path, LEAN, planned(0, 1, 2))
    wait_until(lambda: list((tmp_path / "wandb").glob("offline-run-*")))
    store_one(tmp_path, 1)
    server.live()
    wait_until(lambda: lines(server) == 2)
    store_one(tmp_path, 2)
    assert follower.finish().failure is None
    assert_faithful(server, tmp_path)
    for path in wandb_file.wandb_files(tmp_path):
        if "offline-run" in str(path):
            assert path.with_suffix(".wandb.synced").exists(), "a later wandb sync would send it again"


def test_after_sigkill_nothing_is_lost_or_sent_twice_by_replay_offline_by_sync_and_by_replay_online(
    tmp_path: Path, server: LoopbackWandb
):
    handle = start_publisher(tmp_path, LEAN, planned(0, 1, 2, 4))
    store_one(tmp_path, 0)
    store_one(tmp_path, 1)
    wait_until(lambda: lines(server) == 2, 30)
    server.silent.set()  # what is stored now is handed to W&B and cannot arrive
    store_one(tmp_path, 2)
    (ledger,) = (tmp_path / "wandb" / "sent").rglob("*.json")
    wait_until(lambda: len(json.loads(ledger.read_text())["handed"]) == 3)
    os.kill(pid_of(handle), signal.SIGKILL)
    assert "ended with code -9" in handle.finish()[0]
    server.silent.clear()
    store_one(tmp_path, 4)
    offline = publish(tmp_path, SinkOptions(mode="offline", maps=False, histograms=False))
    assert offline.rows == 1
    assert offline.sentences[1].startswith("W&B: 3 checkpoints may have arrived or not when the connection")
    wandb.teardown()
    for extra in ([], ["--include-online"]):
        command = [sys.executable, "-m", "wandb", "sync", *extra, str(tmp_path / "wandb")]
        subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=True)
    assert 3 <= lines(server) <= 4
    assert publish(tmp_path, LEAN).failure is None
    assert_faithful(server, tmp_path, ordered=False)  # the row that hung came behind the one that was synced


SWEEP = """
import json, sys, time
from pathlib import Path
folder, tests, steps, order = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]), json.loads(sys.argv[4])
sys.path.insert(0, tests)
from sink_material import store_one
from test_sinks_faithful import LEAN, planned
from tracker.wandb_sink import start_publisher
handle = start_publisher(folder, LEAN, planned(*steps))
print("promised", flush=True)
sys.stdin.readline()
for step in order:
    store_one(folder, step)
    time.sleep(0.2)
print(handle.finish())
"""


def test_two_sweeps_in_processes_of_their_own_writing_one_store_out_of_order(
    tmp_path: Path, server: LoopbackWandb
):
    tests = str(Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": str(Path(tests).parent)}
    sweeps = []
    for number in (0, 1):
        mine = STEPS[number::2]
        command = [sys.executable, "-c", SWEEP, str(tmp_path), tests, json.dumps(mine),
                   json.dumps(shuffled(mine, number))]  # fmt: skip
        sweeps.append(subprocess.Popen(command, env=environment, text=True, stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE))  # fmt: skip
    wait_until(lambda: len(list((tmp_path / "wandb" / "promised").glob("*.json"))) == 2, 60)
    for sweep in sweeps:
        assert sweep.stdin is not None
        sweep.stdin.write("go\n")
        sweep.stdin.flush()
    told = [sweep.communicate(timeout=100)[0] for sweep in sweeps]
    assert [sweep.returncode for sweep in sweeps] == [0, 0], told
    assert_faithful(server, tmp_path)


@pytest.mark.parametrize("trouble", ["nobody listens", "nobody answers", "nobody answers any more"])
def test_without_a_network_a_sweep_waits_less_than_ten_seconds_and_says_how_to_deliver(
    tmp_path: Path, server: LoopbackWandb, trouble: str
):
    if trouble == "nobody listens":
        server.die()
    elif trouble == "nobody answers":
        server.silent.set()
    handle = start_publisher(tmp_path, SinkOptions(mode="online", maps=False))
    store_one(tmp_path, 0)
    if trouble == "nobody answers any more":
        wait_until(lambda: lines(server) == 1, 30)
        server.silent.set()
    store_one(tmp_path, 1)
    begun = time.monotonic()
    sentences = " ".join(handle.finish())
    assert time.monotonic() - begun < 10
    assert f"W&B failed ({server.url}: " in sentences
    assert f"`tracker stream store={tmp_path}` sends what is missing" in sentences
    server.silent.clear()
    if trouble == "nobody listens":
        server.live()
    assert publish(tmp_path, SinkOptions(maps=False)).failure is None
    assert_faithful(server, tmp_path)


def test_when_wandbs_own_service_dies_the_rest_goes_on_and_the_next_replay_completes(
    tmp_path: Path, server: LoopbackWandb
):
    handle = start_publisher(tmp_path, LEAN, planned(*STEPS))
    store_one(tmp_path, 0)
    wait_until(lambda: lines(server) == 1, 30)
    children = Path(f"/proc/{pid_of(handle)}/task/{pid_of(handle)}/children").read_text().split()
    services = [int(pid) for pid in children if b"wandb-core" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert services
    for pid in services:
        os.kill(pid, signal.SIGKILL)
    for step in STEPS[1:4]:
        store_one(tmp_path, step)
        time.sleep(0.3)
    assert "W&B failed" in " ".join(handle.finish())
    assert publish(tmp_path, LEAN).failure is None
    assert_faithful(server, tmp_path)


def test_a_checkpoint_measured_again_is_sent_again_and_its_last_row_counts(
    tmp_path: Path, server: LoopbackWandb
):
    for step in (0, 1):
        store_one(tmp_path, step)
    publish(tmp_path, LEAN)
    store_one(tmp_path, 1, again=1)
    assert publish(tmp_path, LEAN).rows == 1
    assert publish(tmp_path, LEAN).rows == 0
    history = read_back(only_run(server).id)
    assert [row["checkpoint/step"] for row in history] == [0, 1, 1]
    assert len({row["checkpoint/row"] for row in history}) == 3
    last = {row["checkpoint/key"]: row for row in history}
    assert_rows_equal_store(list(last.values()), tmp_path)


def test_a_runs_records_are_an_artifact_that_is_a_store_again(tmp_path: Path, server: LoopbackWandb):
    for model in ("70m", "160m"):
        for step in (0, 8):
            store_one(tmp_path / "store", step, model)
    options = SinkOptions(maps=False)
    publish(tmp_path / "store", options)
    assert [(each.version, each.committed) for each in server.artifacts.versions] == [(0, True)] * 2
    for made in server.artifacts.versions:
        assert made.type == "tracker-store"
        for name, content in made.files.items():
            place = tmp_path / "again" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
    ours, theirs = (open_store(tmp_path / name) for name in ("store", "again"))
    for table in ("checkpoints", "heads", "layers", "sequences"):
        frames: list[pl.DataFrame] = [getattr(results, table)() for results in (ours, theirs)]
        assert frames[0].equals(frames[1])
    publish(tmp_path / "store", options)
    store_one(tmp_path / "store", 16)
    publish(tmp_path / "store", options)
    assert sorted(each.version for each in server.artifacts.versions) == [0, 0, 1]


def test_records_that_are_large_do_not_hold_up_a_sweep_and_a_replay_sends_them(
    tmp_path: Path, server: LoopbackWandb, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(runs_module, "QUICK_BYTES", 10)
    store_one(tmp_path, 0)
    told = Follower(tmp_path, SinkOptions(maps=False)).finish()
    assert told.sentences[1].startswith(
        "W&B: the records of 1 run are too large to be waited for; `tracker s"
    )
    assert server.artifacts.versions == []
    replayed = publish(tmp_path, SinkOptions(maps=False))
    assert (replayed.rows, replayed.runs) == (0, 1)
    assert [made.committed for made in server.artifacts.versions] == [True]
    assert publish(tmp_path, SinkOptions(maps=False)).runs == 0


def test_an_artifact_that_is_refused_costs_no_row(tmp_path: Path, server: LoopbackWandb):
    store_one(tmp_path, 0)
    server.artifacts.refuse = True
    published = publish(tmp_path, SinkOptions(maps=False))
    assert "was not sent: " in published.sentences[-1]
    assert_faithful(server, tmp_path)
    server.artifacts.refuse = False
    assert publish(tmp_path, SinkOptions(maps=False)).failure is None


def test_a_detected_phase_change_raises_an_alert_once(tmp_path: Path, server: LoopbackWandb):
    store_one(tmp_path, 0)
    entry = {"suite": "pythia", "model": "70m", "seed": 0, "sentence": "Two phases.",
             "change_points": [{"step_low": 128, "step_high": 512, "confidence": 0.9}],
             "phases": [{"label": "initial"}, {"label": "exploratory"}]}  # fmt: skip
    (tmp_path / "analysis.json").write_text(json.dumps({"phases": [entry]}))
    publish(tmp_path, LEAN)
    entry["change_points"] = [{"step_low": 256, "step_high": 512, "confidence": None}]
    (tmp_path / "analysis.json").write_text(json.dumps({"phases": [entry]}))
    store_one(tmp_path, 1)
    publish(tmp_path, LEAN)
    (alert,) = only_run(server).alerts
    assert (alert["title"], alert["severity"]) == ("Phase change 1: 70m seed 0", "INFO")
    assert alert["text"] == (
        "70m seed 0 of suite pythia: exploratory begins in steps (128, 512], in 90% of resamples"
    )


def test_a_row_that_another_process_stores_is_visible_within_three_seconds(
    tmp_path: Path, server: LoopbackWandb
):
    handle = start_publisher(tmp_path, SinkOptions(), planned(0, 1))
    store_one(tmp_path, 0)
    wait_until(lambda: lines(server) == 1, 30)
    code = "import sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path; " \
           "from sink_material import store_one; store_one(Path(sys.argv[1]), 1)"  # fmt: skip
    tests = str(Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": str(Path(tests).parent)}
    subprocess.run([sys.executable, "-c", code, str(tmp_path), tests], env=environment, check=True)
    assert wait_until(lambda: lines(server) == 2, 20) < 3
    assert API_KEY not in " ".join(handle.finish())
    assert_faithful(server, tmp_path)
