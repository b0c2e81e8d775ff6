"""The whole way in small: real training, real checkpoints, measured, stored, streamed, analysed, shown."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from command_line import SMALL, here, swept, tracker  # noqa: F401  # here and swept are fixtures
from wandb_file import history, wandb_files

import tracker as package
from tracker.cli import run
from tracker.store import Store, ledger

MINE = ("suite=folder", "suite.path=mine", "probe.sequences=4", "sink=none")
"""A sweep of checkpoints in the folder ``mine``."""


@pytest.fixture
def store(swept: tuple[Path, str], here: Path) -> Path:  # noqa: F811
    """A copy of the swept store in the current folder."""
    return shutil.copytree(swept[0] / "tracker-store", here / "tracker-store")


@pytest.fixture
def mine(swept: tuple[Path, str], here: Path) -> Path:  # noqa: F811
    """Steps 0, 16 and 64 of a trained model, in the current folder."""
    trained = next((swept[0] / "tracker-store" / "nano").glob("*/0.05m/seed-0"))
    for step in (0, 16, 64):
        shutil.copytree(trained / f"step{step}", here / "mine" / f"step{step}")
    return here / "mine"


def test_a_sweep_leaves_a_store_a_wandb_run_per_model_an_analysis_and_a_dashboard(
    swept: tuple[Path, str],  # noqa: F811
):
    folder, said = swept
    store = folder / "tracker-store"
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == {"tracker-store"}
    rows = package.open_store(store).checkpoints().sort("step")
    assert rows.group_by("model").len().sort("model").rows() == [("0.05m", 8), ("0.2m", 8)]
    assert set(rows["status"]) == {"ok"}
    report = json.loads((store / "analysis.json").read_text())
    assert {phase["model"] for phase in report["phases"]} == {"0.05m", "0.2m"}
    assert (store / "dashboard.html").stat().st_size > 1_000_000
    assert "16 measured now" in said
    assert all(sentence not in said for sentence in report["summary"])
    for _, model in rows.group_by("model"):
        loss = dict(zip(model["step"], model["loss"], strict=True))
        assert loss[64] < loss[0] - 1
        twins = model.filter(pl.col("step") <= 1)
        assert twins["spectral_entropy"].n_unique() == 1  # as in Pythia the rate of iteration 0 is 0
    sent = [row["spectral_entropy"] for file in wandb_files(store) for row in history(file)]
    assert len(list((store / "wandb").glob("offline-run-*"))) == 2
    assert sorted(sent) == pytest.approx(sorted(rows["spectral_entropy"]))


def test_a_second_sweep_trains_and_measures_nothing_and_needs_no_checkpoint_any_more(
    store: Path, capsys: pytest.CaptureFixture[str]
):
    before = {path: path.stat().st_mtime_ns for path in (store / "checkpoints").rglob("*")}
    shutil.rmtree(store / "nano")
    assert run(["sweep", *SMALL]) == 0
    said = capsys.readouterr().out
    assert "0 measured now" in said
    assert "training" not in said
    assert {path: path.stat().st_mtime_ns for path in (store / "checkpoints").rglob("*")} == before
    assert len(list((store / "wandb").glob("offline-run-*"))) == 2


def test_analyse_dashboard_and_stream_make_the_views_again(store: Path, capsys: pytest.CaptureFixture[str]):
    (store / "analysis.json").unlink()
    (store / "dashboard.html").unlink()
    assert run(["analyse"]) == 0
    assert json.loads((store / "analysis.json").read_text())["phases"]
    assert run(["dashboard", "figures=pictures"]) == 0
    assert (store / "dashboard.html").is_file()
    assert {".svg", ".png", ".pdf", ".csv"} <= {path.suffix for path in Path("pictures").iterdir()}
    assert run(["stream", "sink.project=another"]) == 0
    assert "16 checkpoints in 2 runs" in capsys.readouterr().out


def test_a_folder_of_checkpoints_with_a_bad_one_goes_on_and_names_it(
    mine: Path, capsys: pytest.CaptureFixture[str]
):
    weights = mine / "step16" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert run(["sweep", *MINE]) == 1
    said = capsys.readouterr().out
    assert "mine seed 0 step 16" in said
    assert "2 measured now" in said
    assert "1 not measured" in said
    rows = package.open_store("tracker-store").checkpoints().sort("step")
    assert rows["status"].to_list() == ["ok", "failed", "ok"]
    assert "model.safetensors" in str(rows["reason"][1])
    weights.write_bytes(whole)
    assert run(["sweep", *MINE]) == 0
    assert "1 measured now" in capsys.readouterr().out
    for _ in range(2):  # when it is found, and when it is known
        assert run(["sweep", *MINE, "steps.list=[0,32]"]) == 1
        assert "mine seed 0 step 32: its source has no such step" in capsys.readouterr().out


def test_a_sweep_reads_the_ledger_once_and_no_measured_record_twice(
    mine: Path, monkeypatch: pytest.MonkeyPatch
):
    ledgers, records = [], Counter[Path]()
    recorded, read_records = Store.recorded, ledger.load_records

    def counted_ledger(store: Store):
        ledgers.append(store)
        return recorded(store)

    def counted_records(places: list[Path]):
        records.update(places)
        return read_records(places)

    assert run(["sweep", *MINE, "steps.list=[0,16]"]) == 0
    monkeypatch.setattr(Store, "recorded", counted_ledger)
    monkeypatch.setattr(ledger, "load_records", counted_records)
    assert run(["sweep", *MINE]) == 0
    assert len(ledgers) == 1
    assert len(records) == 3
    assert set(records.values()) == {1}
    assert package.open_store("tracker-store").checkpoints()["status"].to_list() == ["ok"] * 3


def test_the_same_name_from_another_place_is_refused_before_it_is_measured(
    mine: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(mine, "other/mine")
    assert run(["sweep", *MINE, "steps.list=[0]"]) == 0
    assert run(["sweep", *MINE, "steps.list=[0]", "suite.path=other/mine"]) == 2
    assert "mine seed 0 step 0 of suite folder is already in the store" in capsys.readouterr().err


def test_two_probes_live_in_one_store_and_each_sweep_shows_its_own(
    store: Path, capsys: pytest.CaptureFixture[str]
):
    assert run(["sweep", *SMALL, "probe.n=64", "steps.list=[0,64]", "sink=none"]) == 0
    assert "4 measured now" in capsys.readouterr().out
    assert run(["analyse"]) == 2
    assert "several probes, which are never mixed; choose one" in capsys.readouterr().err


def test_an_interrupted_sweep_keeps_what_is_measured_and_resumes(
    store: Path,
    here: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
):
    records = store / "checkpoints"
    shutil.rmtree(records)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tracker", "sweep", *SMALL, "sink=none"]
    with subprocess.Popen(
        command, cwd=here, env=environment, text=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        while len(list(records.glob("*/*/*/*"))) < 3:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; progress saved; run the same command to resume" in error
    stored = package.open_store(store).checkpoints().height
    assert 3 <= stored < 16
    assert run(["sweep", *SMALL, "sink=none"]) == 0
    assert f"{16 - stored} measured now" in capsys.readouterr().out


def test_a_checkpoint_that_fails_when_measured_again_is_named_and_its_old_result_stays(
    mine: Path, capsys: pytest.CaptureFixture[str]
):
    request = ["sweep", *MINE, "steps.list=[0]"]
    assert run(request) == 0
    (mine / "step0" / "model.safetensors").write_bytes(b"nothing")
    capsys.readouterr()
    assert run([*request, "remeasure=all"]) == 1
    said = capsys.readouterr().out
    assert "0 measured now" in said
    assert "model.safetensors" in said
    assert package.open_store("tracker-store").checkpoints()["status"].to_list() == ["ok"]


def test_folders_that_cannot_be_written_are_one_line(store: Path, capsys: pytest.CaptureFixture[str]):
    Path("file").write_text("")
    assert run(["dashboard", "figures=file/below"]) == 2
    assert "cannot write the figures to file/below" in capsys.readouterr().err
    assert run(["sweep", *SMALL, "store=file/below"]) == 2
    assert "store=file/below: cannot be written" in capsys.readouterr().err


@pytest.mark.slow
def test_the_default_run_takes_at_most_six_minutes(tmp_path: Path):
    started = time.monotonic()
    done = tracker(tmp_path, "sweep", timeout=500, OMP_NUM_THREADS="2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - started < 360
    rows = package.open_store(tmp_path / "tracker-store").checkpoints()
    assert rows.group_by("model").len()["len"].to_list() == [16, 16, 16]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["moved", "deleted"])
def test_a_store_that_goes_away_while_models_are_trained_ends_the_sweep_and_is_not_made_anew(
    tmp_path: Path, how: str
):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "HF_"))}
    kept |= {"PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "tracker", "sweep", "sink=none", "suite.models=[0.05m,0.2m]"]
    sweep = subprocess.Popen(
        command, cwd=tmp_path, env=kept, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    store, other = tmp_path / "tracker-store", tmp_path / "elsewhere"
    while sweep.poll() is None and not [*store.glob("nano/*/0.05m/seed-0/step2")]:
        time.sleep(0.05)
    store.rename(other)
    if how == "deleted":
        shutil.rmtree(other, ignore_errors=True)
    went = time.monotonic()
    said, _ = sweep.communicate(timeout=60)
    assert time.monotonic() - went < 15
    assert sweep.returncode == 2, said
    assert "store=tracker-store: was deleted or moved while the command ran, which has stopped; " in said
    assert "Traceback" not in said
    assert not store.exists()
    assert (f"is in {other}: run" if how == "moved" else "deleted with it") in said
