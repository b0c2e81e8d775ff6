import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import wandb_file
from loopback_wandb import API_KEY, LoopbackWandb
from PIL import Image
from sink_material import (
    HEADS,
    LAYERS,
    OFFLINE,
    Follower,
    all_history,
    assert_rows_equal_store,
    no_wandb_of_the_user,  # noqa: F401  # a fixture that every test here uses
    publisher_lock,
    store_one,
    unit_of,
)

from tracker.errors import RequestError, TrackerError
from tracker.store import Store, open_store
from tracker.wandb_sink import Published, SinkOptions, publish
from tracker.wandb_sink.identity import RunIdentity


def test_every_stored_row_is_written_once_with_the_values_of_the_store(tmp_path: Path):
    for model, seed in (("70m", 0), ("70m", 1), ("160m", 0)):
        for step in (512, 0, 8, 1):
            store_one(tmp_path, step, model, seed)
    published = publish(tmp_path, OFFLINE)
    assert (published.rows, published.runs, published.urls, published.failure) == (12, 3, (), None)
    assert not any(name.startswith(("heads/", "maps/")) for row in all_history(tmp_path) for name in row)
    assert published.sentences == [
        f"W&B: 12 checkpoints in 3 runs, offline; to send: wandb login && wandb sync {tmp_path / 'wandb'}"
    ]
    files = wandb_file.wandb_files(tmp_path)
    assert len(files) == 3
    assert_rows_equal_store(all_history(tmp_path), tmp_path)
    for path in files:
        assert [row["checkpoint/step"] for row in wandb_file.history(path)] == [0, 1, 8, 512]
        run = wandb_file.run_of(path)
        assert (run.run_group, run.project, run.host) == ("pythia", "tracker", "")
        assert wandb_file.config(path).items() >= {
            "suite": "pythia", "family": "pythia", "n_params": 900, "params_total": 1000, "d_model": 64,
            "n_layers": LAYERS, "n_heads": HEADS, "probe": "default-2x96-c53c2427",
        }.items()  # fmt: skip
    named = sorted(wandb_file.run_of(path).display_name for path in files)
    assert named == ["160m seed 0", "70m seed 0", "70m seed 1"]


def test_every_metric_is_drawn_over_the_step_of_the_checkpoint(tmp_path: Path):
    store_one(tmp_path, 3)
    publish(tmp_path, OFFLINE)
    (path,) = wandb_file.wandb_files(tmp_path)
    defined = [record.metric for record in wandb_file.records(path) if record.HasField("metric")]
    metrics = {metric.glob_name or metric.name: metric for metric in defined}
    assert metrics["*"].step_metric == "checkpoint/step"
    assert {"checkpoint/step", "checkpoint/step_plus_one", "checkpoint/tokens"} <= set(metrics)
    assert metrics["checkpoint/step_plus_one"].step_metric == ""


def test_histograms_and_maps_show_the_heads_of_the_store(tmp_path: Path):
    store_one(tmp_path, 3)
    publish(tmp_path, SinkOptions(mode="offline"))
    heads = open_store(tmp_path).heads()
    (path,) = wandb_file.wandb_files(tmp_path)
    (row,) = wandb_file.history(path)
    assert row["heads/spectral_entropy/_type"] == "histogram"
    counts, edges = np.histogram(heads["spectral_entropy"].to_numpy(), bins=32)
    assert row["heads/spectral_entropy/values"] == counts.tolist()
    assert row["heads/spectral_entropy/bins"] == pytest.approx(edges.tolist())
    assert sum(row["heads/previous_token_score/values"]) == LAYERS * HEADS - 1
    assert not any(name.startswith("heads/prefix_matching_score") for name in row)
    picture = Image.open(path.parent / "files" / row["maps/previous_token_score/path"])
    side = picture.width // HEADS
    pixels = np.asarray(picture)[::side, ::side]
    assert pixels.shape == (LAYERS, HEADS, 3)
    assert pixels[1, 1].tolist() == [128, 128, 128]
    values = heads["previous_token_score"].fill_null(0).to_numpy().reshape(LAYERS, HEADS)
    brightest = np.unravel_index(values.argmax(), values.shape)
    brightness = np.where(np.isclose(values, 0), 0, pixels.astype(int)[..., 1])
    assert np.unravel_index(brightness.argmax(), values.shape) == brightest
    assert "rows are layers" in row["maps/previous_token_score/caption"]


def test_a_replay_adds_nothing_and_a_new_record_adds_one_row(tmp_path: Path):
    store_one(tmp_path, 0)
    publish(tmp_path, OFFLINE)
    before = sorted((tmp_path / "wandb").iterdir())
    replayed = publish(tmp_path, OFFLINE)
    assert (replayed.rows, replayed.runs) == (0, 0)
    assert replayed.sentences == ["W&B: nothing new to send."]
    assert sorted((tmp_path / "wandb").iterdir()) == before
    store_one(tmp_path, 1)
    assert publish(tmp_path, OFFLINE).rows == 1
    assert_rows_equal_store(all_history(tmp_path), tmp_path)
    ids = {wandb_file.run_of(path).run_id for path in wandb_file.wandb_files(tmp_path)}
    assert ids == {RunIdentity("pythia", "70m", 0, "default-2x96-c53c2427", "paper-c74c0b8d").id}
    assert publish(tmp_path, SinkOptions(mode="offline", project="other", entity="team")).rows == 2
    last = wandb_file.run_of(wandb_file.wandb_files(tmp_path)[-1])
    assert (last.entity, last.project) == ("team", "other")


def test_a_publisher_that_died_before_closing_its_run_leaves_no_row_twice(tmp_path: Path):
    store_one(tmp_path, 0)
    publish(tmp_path, OFFLINE)
    (ledger,) = (tmp_path / "wandb" / "sent").rglob("*.json")
    content = json.loads(ledger.read_text())
    del content["sum"]  # earlier versions wrote none
    ledger.write_text(json.dumps(content | {"open": next(iter(content["rows"]))}))
    store_one(tmp_path, 1)
    assert publish(tmp_path, OFFLINE).rows == 2
    assert_rows_equal_store(all_history(tmp_path), tmp_path)


@pytest.mark.parametrize("damage", ["cut", "emptied", "lost", "another number", "another shape", "nested"])
def test_a_damaged_or_lost_ledger_is_made_again_and_doubles_no_row(tmp_path: Path, damage: str):
    for step in (0, 1):
        store_one(tmp_path, step)
    publish(tmp_path, OFFLINE)
    (ledger,) = (tmp_path / "wandb" / "sent").rglob("*.json")
    text = ledger.read_text()
    row = next(iter(json.loads(text)["rows"].values()))[0]
    if damage == "lost":
        ledger.unlink()
    else:
        damaged = {
            "cut": text[: len(text) // 2], "emptied": "", "another shape": '{"rows": 3}',
            "nested": "[" * 99999,
            "another number": text.replace(row, row[:-1] + "_"),
        }  # fmt: skip
        ledger.write_text(damaged[damage])
    store_one(tmp_path, 2)
    published = publish(tmp_path, OFFLINE)
    assert published.rows == 1
    assert any(str(ledger) in sentence and "damaged or lost" in sentence for sentence in published.sentences)
    assert_rows_equal_store(all_history(tmp_path), tmp_path)
    assert publish(tmp_path, OFFLINE).sentences == ["W&B: nothing new to send."]


def test_holes_and_findings_stand_in_the_summary(tmp_path: Path):
    store_one(tmp_path, 0)
    store_one(tmp_path, 512)
    Store(tmp_path).write_hole(unit_of(8), "failed", "shard 2 is truncated")
    Store(tmp_path).write_hole(unit_of(4), "missing", "no branch step4")
    Store(tmp_path).write_hole(unit_of(4, "12b"), "missing", "no branch step4")
    publish(tmp_path, OFFLINE)
    files = wandb_file.wandb_files(tmp_path)
    summaries = {wandb_file.run_of(path).display_name: wandb_file.summary(path) for path in files}
    assert summaries["70m seed 0"]["holes"] == (
        "step 4 missing: no branch step4; step 8 failed: shard 2 is truncated"
    )
    assert summaries["70m seed 0"]["last_step"] == 512
    assert summaries["12b seed 0"]["checkpoints_missing"] == 1
    phases = [{"suite": "pythia", "model": "70m", "seed": 0, "sentence": "70m: exploratory from step 128."},
              {"suite": "pythia", "model": "other", "seed": 0, "sentence": "not mine"}]  # fmt: skip
    thresholds = [{"suite": "pythia", "metric": "loss", "axis": "d_model",
                   "sentence": "A step between 160m and 410m."}]  # fmt: skip
    (tmp_path / "analysis.json").write_text(json.dumps({"phases": phases, "thresholds": thresholds}))
    published = publish(tmp_path, OFFLINE)
    assert (published.rows, published.runs) == (0, 2)
    found = [wandb_file.summary(p) for p in wandb_file.wandb_files(tmp_path)]
    mine = [s for s in found if s.get("phases") == "70m: exploratory from step 128."]
    assert [s["thresholds"] for s in mine] == ["A step between 160m and 410m."]
    assert publish(tmp_path, OFFLINE).runs == 0


@pytest.mark.parametrize("content", ["{", "[]", '{"phases": 3, "thresholds": [1]}', '{"probe": "other"}'])
def test_an_analysis_that_is_not_ours_is_left_out(tmp_path: Path, content: str):
    store_one(tmp_path, 0)
    (tmp_path / "analysis.json").write_text(content)
    assert publish(tmp_path, OFFLINE).rows == 1
    (path,) = wandb_file.wandb_files(tmp_path)
    assert not {"phases", "thresholds"} & set(wandb_file.summary(path))


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "../..", "x" * 200, "ünï %41"])
def test_any_model_and_suite_name_is_only_text(tmp_path: Path, name: str):
    store_one(tmp_path, 0, model=name, suite=name)
    assert publish(tmp_path, OFFLINE).rows == 1
    (path,) = wandb_file.wandb_files(tmp_path)
    run = wandb_file.run_of(path)
    assert run.display_name == f"{name[:121]} seed 0"
    assert run.run_group == name[:128]
    assert wandb_file.config(path)["model"] == name
    assert path.is_relative_to(tmp_path / "wandb")


def test_a_record_that_does_not_read_back_is_named_and_the_rest_is_sent(tmp_path: Path):
    store_one(tmp_path, 0)
    place = Store(tmp_path).place(store_one(tmp_path, 1))
    heads = place / "heads.parquet"
    data = bytearray(heads.read_bytes())
    pages = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    data[4:pages] = b"\xff" * (pages - 4)  # the footer, which is all that the ledger reads, stays whole
    heads.write_bytes(data)
    published = publish(tmp_path, SinkOptions(mode="offline"))
    assert published.rows == 1
    assert published.sentences[1] == f"W&B: 1 record not sent, since the tables do not read back: {place}"


def test_nothing_of_this_machine_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_API_KEY", API_KEY)
    monkeypatch.setenv("SOMETHING_PRIVATE", "do-not-tell-this")
    store_one(tmp_path, 0)
    publish(tmp_path, OFFLINE)
    for path in (tmp_path / "wandb").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert API_KEY.encode() not in content
            assert b"do-not-tell-this" not in content
    for path in wandb_file.wandb_files(tmp_path):
        assert all(not r.HasField("environment") for r in wandb_file.records(path))
        assert wandb_file.run_of(path).host != socket.gethostname()


def test_nothing_is_sent_where_nothing_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store_one(tmp_path, 0)
    assert publish(tmp_path, SinkOptions(name="none")) == Published()
    assert publish(tmp_path, SinkOptions(mode="disabled")) == Published()
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert publish(tmp_path, SinkOptions()) == Published()
    assert not list((tmp_path / "wandb").glob("*run-*"))


def test_no_store_is_one_clear_line(tmp_path: Path):
    with pytest.raises(RequestError, match=r"store=.*: holds no measurements; create some with `tracker"):
        publish(tmp_path / "nowhere", OFFLINE)
    assert not (tmp_path / "nowhere").exists()


def test_a_second_publisher_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tracker.wandb_sink.publisher.LOCK_SECONDS", 0.3)
    store_one(tmp_path, 0)
    refusal = r"another publisher is sending it to W&B and sends every record; run `tracker stream store="
    with publisher_lock(tmp_path), pytest.raises(TrackerError, match=refusal):
        publish(tmp_path, OFFLINE)
    assert publish(tmp_path, OFFLINE).rows == 1


def test_a_follower_waits_for_another_publisher_to_end(tmp_path: Path):
    store_one(tmp_path, 0)
    with publisher_lock(tmp_path):
        follower = Follower(tmp_path, OFFLINE)
        time.sleep(0.3)
        assert wandb_file.wandb_files(tmp_path) == []
    assert follower.finish().rows == 1


def test_a_folder_that_cannot_be_written_says_why(tmp_path: Path):
    store_one(tmp_path, 0)
    (tmp_path / "wandb").write_text("in the way")
    with pytest.raises(TrackerError, match=r"cannot write below .*wandb: .*; free or change store=DIR, then"):
        publish(tmp_path, OFFLINE)


def test_the_sync_line_delivers_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two fragments of one run, delivered by wandb's own command, are the store."""
    for step in (0, 1):
        store_one(tmp_path, step)
        publish(tmp_path, OFFLINE)
    with LoopbackWandb() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", API_KEY)
        command = [sys.executable, "-m", "wandb", "sync", str(tmp_path / "wandb")]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (run,) = server.runs.values()
        assert_rows_equal_store(run.history, tmp_path)
        assert (run.group, run.name) == ("pythia", "70m seed 0")


def test_workers_that_import_the_sink_do_not_import_wandb():
    code = "import sys, tracker.wandb_sink; sys.exit('wandb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
