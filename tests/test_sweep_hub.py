"""A sweep over published checkpoints, served on loopback in Pythia's real file formats."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from command_line import tracker
from loopback_hub import Hub, loopback_hub
from saved_models import save

import tracker as package

REPO = "EleutherAI/pythia-14m"
FORMS = {0: "safetensors", 128: "sharded safetensors", 512: "bin", 5000: "both"}


def sweep(folder: Path, hub: Hub, *overrides: str):
    return tracker(
        folder,
        "sweep",
        "suite=pythia",
        "suite.models=[14m]",
        "probe.ids=ids.npy",
        "probe.n=48",
        "probe.sequences=4",
        "sink=none",
        *overrides,
        HF_ENDPOINT=hub.url,
        HF_HOME=str(folder / "cache"),
    )


def make(folder: Path) -> None:
    """Four branches in the four forms of Pythia's repositories, and token ids."""
    for seed, (step, form) in enumerate(FORMS.items()):
        save(folder / "hub" / REPO / f"step{step}", form, seed)
    np.save(folder / "ids.npy", np.random.default_rng(0).integers(0, 128, (4, 48)))


def test_every_form_is_measured_holes_are_recorded_and_what_is_done_is_never_asked_for(tmp_path: Path):
    make(tmp_path)
    with loopback_hub(tmp_path / "hub") as hub:
        first = sweep(tmp_path, hub, "steps.list=[0,128,512,1000,5000]")
        assert first.returncode == 1, first.stdout + first.stderr
        assert "4 units measured" in first.stdout
        assert "14m seed 0 step 1000" in first.stdout
        rows = package.open_store(tmp_path / "tracker-store").checkpoints().sort("step")
        assert dict(zip(rows["step"], rows["status"], strict=True)) == {
            0: "ok",
            128: "ok",
            512: "ok",
            1000: "missing",
            5000: "ok",
        }
        measured = rows.filter(pl.col("status") == "ok")
        commits = [hub.commit(tmp_path / "hub" / REPO / f"step{step}") for step in measured["step"]]
        assert measured["commit"].to_list() == commits
        assert measured["tokens_seen"].to_list() == [step * 2_097_152 for step in FORMS]
        assert measured["repo"].unique().to_list() == [REPO]
        asked = len(hub.log)
        second = sweep(tmp_path, hub, "steps.list=[0,128,512,1000,5000]")
        assert second.returncode == 1
        assert "0 units measured" in second.stdout
        assert len(hub.log) == asked
        save(tmp_path / "hub" / REPO / "step1000", "safetensors", 9)
        assert "1 unit measured" in sweep(tmp_path, hub, "steps.list=[0,1000]", "remeasure=missing").stdout
        shutil.rmtree(tmp_path / "hub" / REPO / "step0")
        save(tmp_path / "hub" / REPO / "step0", "safetensors", 77)
        moved = sweep(tmp_path, hub, "steps.list=[0,128]", "remeasure=moved")
        assert moved.returncode == 0
        assert "1 unit measured" in moved.stdout


@pytest.mark.parametrize("fault", ["altered", "truncated"])
def test_a_damaged_file_fails_its_checkpoint_only_and_is_tried_again(tmp_path: Path, fault: str):
    make(tmp_path)
    with loopback_hub(tmp_path / "hub") as hub:
        getattr(hub, fault).add("pytorch_model.bin")
        first = sweep(tmp_path, hub, "steps.list=[0,512]")
        assert first.returncode == 1
        assert "14m seed 0 step 512" in first.stdout
        assert "1 unit measured" in first.stdout
        getattr(hub, fault).clear()
        second = sweep(tmp_path, hub, "steps.list=[0,512]")
        assert second.returncode == 0, second.stdout
        assert "1 unit measured" in second.stdout


def test_branches_of_any_repository_are_discovered(tmp_path: Path):
    make(tmp_path)
    with loopback_hub(tmp_path / "hub") as hub:
        found = tracker(
            tmp_path,
            "sweep",
            "suite=hub",
            f"suite.repo={REPO}",
            "probe.ids=ids.npy",
            "probe.n=48",
            "probe.sequences=4",
            "sink=none",
            HF_ENDPOINT=hub.url,
            HF_HOME=str(tmp_path / "cache"),
        )
        assert found.returncode == 0, found.stderr
        rows = package.open_store(tmp_path / "tracker-store").checkpoints()
        assert sorted(rows["step"]) == list(FORMS)
        assert rows["model"].unique().to_list() == ["pythia-14m"]
        unknown = tracker(
            tmp_path,
            "sweep",
            "suite=hub",
            "suite.repo=no/where",
            HF_ENDPOINT=hub.url,
            HF_HOME=str(tmp_path / "cache"),
        )
        assert unknown.returncode == 2
        assert "no/where" in unknown.stderr
