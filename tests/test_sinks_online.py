import time
from pathlib import Path

import pytest
import wandb
from loopback_wandb import ENTITY, LoopbackWandb
from sink_material import (
    Follower,
    all_history,
    assert_rows_equal_store,
    no_wandb_of_the_user,  # noqa: F401  # a fixture that every test here uses
    only_run,
    store_one,
    wait_until,
    wandb_server,  # noqa: F401  # the fixture `server`
)

from tracker.wandb_sink import SinkOptions, publish


def test_every_stored_row_arrives_once_with_its_histograms_and_maps(tmp_path: Path, server: LoopbackWandb):
    for seed in (0, 1):
        for step in (128, 0):
            store_one(tmp_path, step, seed=seed)
    published = publish(tmp_path, SinkOptions())
    assert (published.rows, published.runs, published.failure) == (4, 2, None)
    assert published.sentences == [f"W&B: 4 checkpoints in 2 runs at {server.url}/{ENTITY}/tracker"]
    assert_rows_equal_store([row for run in server.runs.values() for row in run.history], tmp_path)
    for run in server.runs.values():
        assert [row["checkpoint/step"] for row in run.history] == [0, 128]
        assert (run.complete, run.group) == (True, "pythia")
        assert run.summary["last_step"] == 128
        picture = run.history[1]["maps/band_power_low"]["path"]
        assert run.files[picture].startswith(b"\x89PNG")
        assert sum(run.history[0]["heads/band_power_low"]["values"]) == 12


def test_history_read_back_over_the_public_interface_equals_the_store(tmp_path: Path, server: LoopbackWandb):
    for step in (0, 1, 64):
        store_one(tmp_path, step)
    publish(tmp_path, SinkOptions(histograms=False, maps=False))
    run = wandb.Api(timeout=10).run(f"{ENTITY}/tracker/{only_run(server).id}")
    keys = ["checkpoint/step", "spectral_entropy", "std/spectral_entropy"]
    found = [[row[key] for key in keys] for row in run.scan_history(keys=keys, use_cache=False)]
    assert found == [[row[key] for key in keys] for row in only_run(server).history]
    assert len(found) == 3


def test_a_replay_adds_nothing_even_where_the_ledger_is_lost(tmp_path: Path, server: LoopbackWandb):
    store_one(tmp_path, 0)
    store_one(tmp_path, 1)
    publish(tmp_path, SinkOptions())
    asked = sum(server.asked.values())
    assert publish(tmp_path, SinkOptions()).runs == 0
    assert sum(server.asked.values()) == asked, "a replay with nothing to send asked the server"
    (ledger,) = (tmp_path / "wandb" / "sent").rglob("*.json")
    ledger.unlink()
    store_one(tmp_path, 2)
    assert publish(tmp_path, SinkOptions()).rows == 1
    assert_rows_equal_store(only_run(server).history, tmp_path)


def test_a_row_is_visible_within_three_seconds_and_runs_stay_open(tmp_path: Path, server: LoopbackWandb):
    store_one(tmp_path, 0)
    follower = Follower(tmp_path, SinkOptions())
    wait_until(lambda: server.runs and len(only_run(server).lines) == 1, 20)
    store_one(tmp_path, 8)
    assert wait_until(lambda: len(only_run(server).lines) == 2, 20) < 3
    store_one(tmp_path, 4)  # a unit that finishes out of order
    wait_until(lambda: len(only_run(server).lines) == 3, 20)
    assert follower.finish().runs == 1
    assert_rows_equal_store(only_run(server).history, tmp_path)
    assert server.asked["RunResumeStatus"] == 1
    assert only_run(server).summary["last_step"] == only_run(server).summary["checkpoint/step"] == 8


def test_a_follower_waits_for_a_store_that_does_not_exist_yet(tmp_path: Path):
    follower = Follower(tmp_path / "new", SinkOptions(mode="offline"))
    time.sleep(0.3)
    store_one(tmp_path / "new", 0)
    assert follower.finish().rows == 1
    assert_rows_equal_store(all_history(tmp_path / "new"), tmp_path / "new")


def test_online_without_a_key_does_not_ask_at_the_terminal(
    tmp_path: Path, server: LoopbackWandb, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("WANDB_API_KEY")
    store_one(tmp_path, 0)
    published = publish(tmp_path, SinkOptions(mode="online"))
    assert published.failure == f"{server.url}: there is no key for it; `wandb login` stores one"
    assert server.asked.total() == 0
    assert_rows_equal_store(all_history(tmp_path), tmp_path)
