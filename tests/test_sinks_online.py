"""W&B online, whatever happens on the way: the real client, in this process, against a server on loopback."""

import json
import random
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
    LEAN,
    OFFLINE,
    Follower,
    all_history,
    all_rows,
    assert_rows_equal_store,
    no_wandb_of_the_user,  # noqa: F401  # a fixture that every test here uses
    only_run,
    store_one,
    wait_until,
    wandb_server,  # noqa: F401  # the fixture `server`
)

from tracker.cli import run
from tracker.store import open_store
from tracker.wandb_sink import SinkOptions, publish, start_publisher
from tracker.wandb_sink import connection as connection_module
from tracker.wandb_sink import runs as runs_module

IMPATIENT = SinkOptions(init_timeout=2, finish_timeout=2, maps=False, histograms=False)


def assert_offline_files_are_marked(folder: Path) -> None:
    """A later ``wandb sync`` sends nothing again."""
    offline = [path for path in wandb_file.wandb_files(folder) if "offline-run" in str(path)]
    assert offline
    assert all(path.with_suffix(".wandb.synced").exists() for path in offline)


def test_every_stored_row_arrives_once_with_its_histograms_and_maps(tmp_path: Path, server: LoopbackWandb):
    for step in (128, 0):
        store_one(tmp_path, step)
    published = publish(tmp_path, SinkOptions())
    assert (published.rows, published.runs, published.failure) == (2, 1, None)
    assert published.sentences == [f"W&B: 2 checkpoints in 1 run at {server.url}/{ENTITY}/tracker"]
    assert_rows_equal_store(all_rows(server), tmp_path)
    run = only_run(server)
    assert [row["checkpoint/step"] for row in run.history] == [0, 128]
    assert (run.complete, run.group) == (True, "pythia")
    assert run.summary["last_step"] == 128
    picture = run.history[1]["maps/band_power_low"]["path"]
    assert run.files[picture].startswith(b"\x89PNG")
    assert sum(run.history[0]["heads/band_power_low"]["values"]) == 12


@pytest.mark.parametrize("own_process", [True, False])
def test_what_a_wandb_agent_calls_its_run_is_the_name_of_none_of_ours(
    tmp_path: Path, server: LoopbackWandb, monkeypatch: pytest.MonkeyPatch, own_process: bool
):
    """The agent gives its program an environment that names one run; the program's models are several."""
    wandb.teardown()
    parameters = tmp_path / "config-theirs.yaml"
    parameters.write_text("wandb_version: 1\nsuite.models:\n  value: '[14m]'\n")
    for name, value in (("SWEEP_ID", "sw33p"), ("RUN_ID", "theirs"), ("SWEEP_PARAM_PATH", str(parameters)),
                        ("NAME", "chosen"), ("RUN_GROUP", "chosen"), ("RESUME", "must"),
                        ("CONFIG_PATHS", str(parameters))):  # fmt: skip
        monkeypatch.setenv(f"WANDB_{name}", value)
    for model in ("70m", "160m"):
        store_one(tmp_path, 8, model)
    publisher = start_publisher(tmp_path, LEAN) if own_process else None
    sentences = publisher.finish() if publisher else publish(tmp_path, LEAN).sentences
    assert sentences == [f"W&B: 2 checkpoints in 2 runs at {server.url}/{ENTITY}/tracker"]
    assert {(run.name, run.group) for run in server.runs.values()} == {
        ("70m seed 0", "pythia"), ("160m seed 0", "pythia")
    }  # fmt: skip
    assert "theirs" not in server.runs
    for served in server.runs.values():
        assert served.config["sweep"]["value"] == "sw33p"
        assert "suite.models" not in served.config
    assert_rows_equal_store(all_rows(server), tmp_path)
    wandb.teardown()


def test_a_replay_adds_nothing_even_where_the_ledger_is_lost(tmp_path: Path, server: LoopbackWandb):
    store_one(tmp_path, 0)
    store_one(tmp_path, 1)
    publish(tmp_path, LEAN)
    asked = sum(server.asked.values())
    assert publish(tmp_path, LEAN).runs == 0
    assert sum(server.asked.values()) == asked, "a replay with nothing to send asked the server"
    (ledger,) = (tmp_path / "wandb" / "sent").rglob("*.json")
    ledger.unlink()
    store_one(tmp_path, 2)
    assert publish(tmp_path, LEAN).rows == 1
    wandb.teardown()
    run = wandb.Api(timeout=10).run(f"{ENTITY}/tracker/{only_run(server).id}")
    rows = run.history(samples=100, pandas=False)
    assert isinstance(rows, list)
    assert_rows_equal_store(rows, tmp_path)


def test_units_out_of_order_are_visible_in_seconds_through_answers_of_503(
    tmp_path: Path, server: LoopbackWandb
):
    """Rows go out as they are stored; the summary is that of the highest step."""
    steps = random.Random(1).sample([0, 1, 2, 4, 8, 16, 32, 64], 8)
    follower = Follower(tmp_path, LEAN)
    store_one(tmp_path, steps[0])
    wait_until(lambda: len(all_rows(server)) == 1)
    store_one(tmp_path, steps[1])
    assert wait_until(lambda: len(all_rows(server)) == 2) < 3
    server.refuse = 1
    for step in steps[2:]:
        store_one(tmp_path, step)
    assert follower.finish().sentences == [f"W&B: 8 checkpoints in 1 run at {server.url}/{ENTITY}/tracker"]
    assert server.refused == 1
    assert_rows_equal_store(all_rows(server), tmp_path)
    assert [row["checkpoint/step"] for row in all_rows(server)] != sorted(steps)
    summary = only_run(server).summary
    assert summary["last_step"] == summary["checkpoint/step"] == 64
    last = open_store(tmp_path).checkpoints().filter(pl.col("step") == 64)
    assert summary["spectral_entropy"] == last["spectral_entropy"].item()
    assert server.asked["RunResumeStatus"] == 1, "the run did not stay open"


def test_a_server_that_was_gone_at_first_gets_everything_when_it_answers(
    tmp_path: Path, server: LoopbackWandb, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(connection_module, "RETRY_SECONDS", 0.5)
    server.die()
    store_one(tmp_path, 0)
    follower = Follower(tmp_path, LEAN)
    wait_until(lambda: list((tmp_path / "wandb").glob("offline-run-*")))
    store_one(tmp_path, 1)
    server.live()
    wait_until(lambda: len(all_rows(server)) == 2)
    assert follower.finish().failure is None
    assert_rows_equal_store(all_rows(server), tmp_path)
    assert_offline_files_are_marked(tmp_path)


def test_a_server_that_dies_in_the_middle_and_comes_back_misses_nothing(
    tmp_path: Path, server: LoopbackWandb
):
    store_one(tmp_path, 0)
    follower = Follower(tmp_path, LEAN)
    wait_until(lambda: len(all_rows(server)) == 1)
    server.die()
    store_one(tmp_path, 1)
    time.sleep(1)
    server.live()
    store_one(tmp_path, 2)
    assert follower.finish().failure is None
    assert_rows_equal_store(all_rows(server), tmp_path)


@pytest.mark.parametrize(
    "trouble", ["nobody listens", pytest.param("nobody answers", marks=pytest.mark.slow)]
)
def test_without_a_server_the_rows_go_to_disk_and_later_to_the_server(
    tmp_path: Path, server: LoopbackWandb, trouble: str
):
    for model in ("70m", "160m"):
        store_one(tmp_path, 0, model)
    if trouble == "nobody listens":
        server.die()
    else:
        server.silent.set()
    begun = time.monotonic()
    published = publish(tmp_path, IMPATIENT)
    assert time.monotonic() - begun < 8
    assert published.failure is not None
    assert published.failure.startswith(server.url)
    where = tmp_path / "wandb"
    assert published.sentences[0].endswith(f"nothing is lost: 2 checkpoints in 2 runs saved in {where}.")
    assert f"`tracker stream store={tmp_path}` sends what is missing" in published.sentences[1]
    assert f"`wandb sync {where}`" in published.sentences[1]
    assert_rows_equal_store(all_history(tmp_path), tmp_path)

    server.silent.clear()
    if trouble == "nobody listens":
        server.live()
    store_one(tmp_path, 1)
    wandb.teardown()
    assert publish(tmp_path, LEAN).rows == 3
    assert_rows_equal_store(all_rows(server), tmp_path)
    assert_offline_files_are_marked(tmp_path)


@pytest.mark.parametrize("end", ["dies", pytest.param("answers no more", marks=pytest.mark.slow)])
def test_rows_whose_delivery_is_unconfirmed_are_sent_later_and_nothing_twice(
    tmp_path: Path, server: LoopbackWandb, end: str
):
    """The sweep does not wait for the server, and what went to disk is not what may have arrived."""
    store_one(tmp_path, 0)
    follower = Follower(tmp_path, LEAN)
    wait_until(lambda: len(all_rows(server)) == 1)
    if end == "dies":
        server.die()
    else:
        server.silent.set()
    store_one(tmp_path, 1)
    store_one(tmp_path, 0, "160m")
    begun = time.monotonic()
    published = follower.finish()
    assert time.monotonic() - begun < 10
    assert published.failure is not None
    assert published.sentences[2] == (
        f"W&B: 2 checkpoints: delivery unconfirmed; run `tracker stream store={tmp_path}`, which asks the "
        "server and sends what is missing."
    )
    offline = publish(tmp_path, OFFLINE)
    assert (offline.rows, offline.unconfirmed) == (0, 2)
    wandb.teardown()
    server.silent.clear()
    if end == "dies":
        server.live()
    assert publish(tmp_path, LEAN).failure is None
    assert_rows_equal_store(all_rows(server), tmp_path)


@pytest.mark.parametrize("reason", ["refused", "missing"])
def test_a_key_that_is_refused_or_missing_costs_nothing_but_a_sentence(
    tmp_path: Path, server: LoopbackWandb, monkeypatch: pytest.MonkeyPatch, reason: str
):
    store_one(tmp_path, 0)
    server.deny = True
    if reason == "missing":
        monkeypatch.delenv("WANDB_API_KEY")
    published = publish(tmp_path, SinkOptions(mode="online", init_timeout=2, maps=False))
    assert published.failure is not None
    assert API_KEY not in " ".join(published.sentences)
    if reason == "missing":  # W&B's client would ask at the terminal
        assert published.failure == f"{server.url}: there is no key for it; `wandb login` stores one"
        assert server.asked.total() == 0
    assert_rows_equal_store(all_history(tmp_path), tmp_path)


def test_a_follower_waits_for_a_store_that_does_not_exist_yet(tmp_path: Path):
    follower = Follower(tmp_path / "new", OFFLINE)
    time.sleep(0.3)
    store_one(tmp_path / "new", 0)
    assert follower.finish().rows == 1
    assert_rows_equal_store(all_history(tmp_path / "new"), tmp_path / "new")


def test_a_checkpoint_measured_again_is_sent_again_and_its_last_row_counts(
    tmp_path: Path, server: LoopbackWandb
):
    for step in (0, 1):
        store_one(tmp_path, step)
    publish(tmp_path, LEAN)
    store_one(tmp_path, 1, again=1)
    assert publish(tmp_path, LEAN).rows == 1
    assert publish(tmp_path, LEAN).rows == 0
    history = all_rows(server)
    assert [row["checkpoint/step"] for row in history] == [0, 1, 1]
    assert len({row["checkpoint/row"] for row in history}) == 3
    last = {row["checkpoint/key"]: row for row in history}
    assert_rows_equal_store(list(last.values()), tmp_path)


@pytest.mark.slow
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
    store_one(tmp_path / "store", 16)
    publish(tmp_path / "store", options)
    assert sorted(each.version for each in server.artifacts.versions) == [0, 0, 1]


def test_an_artifact_that_is_large_or_refused_holds_up_no_sweep_and_costs_no_row(
    tmp_path: Path, server: LoopbackWandb, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(runs_module, "QUICK_BYTES", 10)
    store_one(tmp_path, 0)
    followed = Follower(tmp_path, SinkOptions(maps=False)).finish()
    assert followed.sentences[1].startswith("W&B: the records of 1 run are too large to wait for; run `tr")
    assert server.artifacts.versions == []
    server.artifacts.refuse = True
    refused = publish(tmp_path, SinkOptions(maps=False))
    assert "was not sent: " in refused.sentences[-1]
    server.artifacts.refuse = False
    replayed = publish(tmp_path, SinkOptions(maps=False))
    assert (replayed.rows, replayed.runs) == (0, 1)
    assert [made.committed for made in server.artifacts.versions] == [True]
    assert publish(tmp_path, SinkOptions(maps=False)).runs == 0
    assert_rows_equal_store(all_rows(server), tmp_path)


def test_a_detected_phase_change_raises_an_alert_once(tmp_path: Path, server: LoopbackWandb):
    store_one(tmp_path, 0)
    entry: dict[str, Any] = {
        "suite": "pythia", "model": "70m", "seed": 0, "sentence": "Two phases.",
        "change_points": [{"step_low": 128, "step_high": 512, "confidence": 0.9}],
        "phases": [{"label": "initial", "first_step": 0, "last_step": 128},
                   {"label": "exploratory", "first_step": 512, "last_step": 512}],
    }  # fmt: skip
    (tmp_path / "analysis.json").write_text(json.dumps({"phases": [entry]}))
    publish(tmp_path, LEAN)
    entry["change_points"] = [{"step_low": 256, "step_high": 512, "confidence": None}]
    (tmp_path / "analysis.json").write_text(json.dumps({"phases": [entry]}))
    store_one(tmp_path, 1)
    publish(tmp_path, LEAN)
    (alert,) = only_run(server).alerts
    assert (alert["title"], alert["severity"]) == ("Phase change 1: 70m seed 0", "INFO")
    assert alert["text"] == (
        "70m seed 0 of suite pythia: exploratory begins in steps (128, 512], 90% of draws of its noise"
    )


def test_stream_to_a_server_that_does_not_answer_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    wandb.teardown()
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", API_KEY)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    store_one(tmp_path, 0)
    assert run(["stream", f"store={tmp_path}", "sink.mode=online", "sink.maps=false"]) == 1
    assert "W&B failed (http://127.0.0.1:9: no answer within 3 s); nothing is lost" in capsys.readouterr().out
    wandb.teardown()
