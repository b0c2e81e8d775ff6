"""The whole way in small: real training, real checkpoints, measured, stored, streamed, analysed, shown."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from test_cli import tracker
from wandb_file import history, wandb_files

import tracker as package

SMALL = ("suite.models=[0.05m,0.2m]", "suite.train_steps=64", "probe.number=4")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("sweep")
    done = tracker(folder, "sweep", *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_a_sweep_leaves_a_store_a_wandb_run_per_model_an_analysis_and_a_dashboard(swept: tuple[Path, str]):
    folder, said = swept
    store = folder / "tracker-store"
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == {"tracker-store"}
    rows = package.open_store(store).checkpoints()
    assert rows.group_by("model").len().sort("model").rows() == [("0.05m", 8), ("0.2m", 8)]
    assert set(rows["status"]) == {"ok"}
    assert len(list((store / "wandb").glob("offline-run-*"))) == 2
    report = json.loads((store / "analysis.json").read_text())
    assert {phase["model"] for phase in report["phases"]} == {"0.05m", "0.2m"}
    assert (store / "dashboard.html").stat().st_size > 1_000_000
    assert "16 units measured" in said
    for sentence in report["summary"]:
        assert sentence in said


def test_training_moves_what_is_measured(swept: tuple[Path, str]):
    rows = package.open_store(swept[0] / "tracker-store").checkpoints().sort("step")
    for _, model in rows.group_by("model"):
        loss = dict(zip(model["step"], model["loss"], strict=True))
        assert loss[64] < loss[0] - 1
        twins = model.filter(pl.col("step") <= 1)
        assert twins["spectral_entropy"].n_unique() == 1  # as in Pythia the rate of iteration 0 is 0


def test_a_second_sweep_measures_and_trains_nothing_and_takes_seconds(swept: tuple[Path, str]):
    folder, _ = swept
    before = {path: path.stat().st_mtime_ns for path in (folder / "tracker-store" / "checkpoints").rglob("*")}
    started = time.monotonic()
    again = tracker(folder, "sweep", *SMALL)
    assert again.returncode == 0
    assert time.monotonic() - started < 20
    assert "0 units measured" in again.stdout
    assert "training" not in again.stdout
    after = {path: path.stat().st_mtime_ns for path in (folder / "tracker-store" / "checkpoints").rglob("*")}
    assert before == after
    assert len(list((folder / "tracker-store" / "wandb").glob("offline-run-*"))) == 2


def test_what_is_measured_needs_no_checkpoint_any_more(swept: tuple[Path, str], tmp_path: Path):
    shutil.copytree(swept[0] / "tracker-store", tmp_path / "tracker-store")
    shutil.rmtree(tmp_path / "tracker-store" / "nano")
    again = tracker(tmp_path, "sweep", *SMALL)
    assert again.returncode == 0
    assert "0 units measured" in again.stdout


def test_wandb_holds_every_checkpoint_once_with_the_stores_values(swept: tuple[Path, str]):
    store = swept[0] / "tracker-store"
    stored = {
        (r["model"], r["step"]): r["spectral_entropy"]
        for r in package.open_store(store).checkpoints().iter_rows(named=True)
    }
    sent = [row["spectral_entropy"] for file in wandb_files(store) for row in history(file)]
    assert sorted(sent) == pytest.approx(sorted(stored.values()))


def test_analyse_dashboard_and_stream_make_the_views_again(swept: tuple[Path, str], tmp_path: Path):
    store = tmp_path / "tracker-store"
    shutil.copytree(swept[0] / "tracker-store", store)
    (store / "analysis.json").unlink()
    (store / "dashboard.html").unlink()
    assert tracker(tmp_path, "analyse").returncode == 0
    assert json.loads((store / "analysis.json").read_text())["phases"]
    drawn = tracker(tmp_path, "dashboard", "figures=pictures")
    assert drawn.returncode == 0, drawn.stderr
    assert (store / "dashboard.html").is_file()
    suffixes = {path.suffix for path in (tmp_path / "pictures").iterdir()}
    assert {".svg", ".png", ".pdf", ".csv"} <= suffixes
    streamed = tracker(tmp_path, "stream", "sink.project=another")
    assert streamed.returncode == 0, streamed.stderr
    assert "16 checkpoints in 2 runs" in streamed.stdout


def test_a_folder_of_checkpoints_with_a_bad_one_goes_on_and_tells(swept: tuple[Path, str], tmp_path: Path):
    trained = next((swept[0] / "tracker-store" / "nano").glob("*/0.05m/seed-0"))
    for step in (0, 16, 64):
        shutil.copytree(trained / f"step{step}", tmp_path / "mine" / f"step{step}")
    weights = tmp_path / "mine" / "step16" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    request = ("sweep", "suite=folder", "suite.path=mine", "probe.number=4", "store=other", "sink=none")
    first = tracker(tmp_path, *request)
    assert first.returncode == 1
    assert "mine seed 0 step 16" in first.stdout
    assert "2 units measured" in first.stdout
    rows = package.open_store(tmp_path / "other").checkpoints().sort("step")
    assert rows["status"].to_list() == ["ok", "failed", "ok"]
    assert "model.safetensors" in str(rows["reason"][1])
    weights.write_bytes(whole)
    second = tracker(tmp_path, *request)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "1 unit measured" in second.stdout
    hole = tracker(tmp_path, *request, "steps.list=[0,32]")
    assert hole.returncode == 1
    assert "mine seed 0 step 32: its source has no such step" in hole.stdout


def test_the_same_name_from_another_place_is_refused_before_it_is_measured(
    swept: tuple[Path, str], tmp_path: Path
):
    trained = next((swept[0] / "tracker-store" / "nano").glob("*/0.05m/seed-0"))
    for place in ("a", "b"):
        shutil.copytree(trained / "step0", tmp_path / place / "mine" / "step0")
    request = ("sweep", "suite=folder", "probe.number=4", "sink=none")
    assert tracker(tmp_path, *request, "suite.path=a/mine").returncode == 0
    refused = tracker(tmp_path, *request, "suite.path=b/mine")
    assert refused.returncode == 2
    assert "mine seed 0 step 0 of suite folder is already in the store" in refused.stderr


def test_two_probes_live_in_one_store_and_each_sweep_shows_its_own(swept: tuple[Path, str], tmp_path: Path):
    shutil.copytree(swept[0] / "tracker-store", tmp_path / "tracker-store")
    other = tracker(tmp_path, "sweep", *SMALL, "probe.n=64", "steps.list=[0,64]", "sink=none")
    assert other.returncode == 0, other.stderr
    refused = tracker(tmp_path, "analyse")
    assert refused.returncode == 2
    assert "several probe, which are never mixed; choose one" in refused.stderr


def test_an_interrupted_sweep_keeps_what_is_measured_and_goes_on(swept: tuple[Path, str], tmp_path: Path):
    shutil.copytree(swept[0] / "tracker-store" / "nano", tmp_path / "tracker-store" / "nano")
    records = tmp_path / "tracker-store" / "checkpoints"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tracker", "sweep", *SMALL, "sink=none"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, text=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        while len(list(records.glob("*/*/*/*"))) < 3:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; what is measured is stored" in error
    stored = package.open_store(tmp_path / "tracker-store").checkpoints().height
    assert 3 <= stored < 16
    rest = tracker(tmp_path, "sweep", *SMALL, "sink=none")
    assert rest.returncode == 0
    assert f"{16 - stored} units measured" in rest.stdout


def test_a_checkpoint_that_fails_when_measured_again_is_told_and_its_old_result_stays(
    swept: tuple[Path, str], tmp_path: Path
):
    trained = next((swept[0] / "tracker-store" / "nano").glob("*/0.05m/seed-0"))
    shutil.copytree(trained / "step0", tmp_path / "mine" / "step0")
    request = ("sweep", "suite=folder", "suite.path=mine", "probe.number=4", "sink=none")
    assert tracker(tmp_path, *request).returncode == 0
    (tmp_path / "mine" / "step0" / "model.safetensors").write_bytes(b"nothing")
    again = tracker(tmp_path, *request, "remeasure=all")
    assert again.returncode == 1
    assert "0 units measured" in again.stdout
    assert "model.safetensors" in again.stdout
    assert package.open_store(tmp_path / "tracker-store").checkpoints()["status"].to_list() == ["ok"]


def test_views_of_a_folder_that_cannot_be_written_are_one_line(swept: tuple[Path, str], tmp_path: Path):
    shutil.copytree(swept[0] / "tracker-store", tmp_path / "tracker-store")
    (tmp_path / "file").write_text("")
    refused = tracker(tmp_path, "dashboard", "figures=file/below")
    assert refused.returncode == 2
    assert "cannot write the figures to file/below" in refused.stderr


def test_a_store_that_cannot_be_written_is_refused_at_once(tmp_path: Path):
    (tmp_path / "file").write_text("")
    refused = tracker(tmp_path, "sweep", *SMALL, "store=file/below")
    assert refused.returncode == 2
    assert "store=file/below: cannot be written" in refused.stderr


@pytest.mark.slow
def test_the_default_run_takes_at_most_six_minutes(tmp_path: Path):
    started = time.monotonic()
    done = tracker(tmp_path, "sweep", timeout=500, OMP_NUM_THREADS="2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - started < 360
    rows = package.open_store(tmp_path / "tracker-store").checkpoints()
    assert rows.group_by("model").len()["len"].to_list() == [16, 16, 16]
