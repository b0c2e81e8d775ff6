"""A sweep over published checkpoints, served on loopback in Pythia's real file formats."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from loopback_hub import Hub
from saved_models import save

import tracker as package
from tracker.cli import run

REPO = "EleutherAI/pythia-14m"
FORMS = {0: "safetensors", 128: "sharded safetensors", 512: "bin", 5000: "both"}
PROBE = ("probe.ids=ids.npy", "probe.n=48", "probe.sequences=4", "sink=none")


def test_every_form_is_measured_holes_are_recorded_and_what_is_done_is_never_asked_for(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for seed, (step, form) in enumerate(FORMS.items()):
        save(hub.root / REPO / f"step{step}", form, seed)
    np.save("ids.npy", np.random.default_rng(0).integers(0, 128, (4, 48)))

    def sweep(*overrides: str) -> tuple[int, str]:
        capsys.readouterr()
        code = run(["sweep", "suite=pythia", "suite.models=[14m]", *PROBE, *overrides])
        return code, capsys.readouterr().out

    every = "steps.list=[0,128,512,1000,5000]"
    code, said = sweep(every)
    assert code == 1
    assert "4 measured now" in said
    assert "14m seed 0 step 1000" in said
    rows = package.open_store(tmp_path / "tracker-store").checkpoints().sort("step")
    assert rows["step"].to_list() == [0, 128, 512, 1000, 5000]
    assert rows["status"].to_list() == ["ok", "ok", "ok", "missing", "ok"]
    measured = rows.filter(pl.col("status") == "ok")
    assert measured["commit"].to_list() == [hub.commit(hub.root / REPO / f"step{step}") for step in FORMS]
    assert measured["tokens_seen"].to_list() == [step * 2_097_152 for step in FORMS]
    assert measured["repo"].unique().to_list() == [REPO]
    asked = len(hub.log)
    code, said = sweep(every)
    assert (code, len(hub.log)) == (1, asked)
    assert "0 measured now" in said
    save(hub.root / REPO / "step1000", "safetensors", 9)
    assert "1 measured now" in sweep("steps.list=[0,1000]", "remeasure=missing")[1]
    shutil.rmtree(hub.root / REPO / "step0")
    save(hub.root / REPO / "step0", "safetensors", 77)
    code, said = sweep("steps.list=[0,128]", "remeasure=moved")
    assert code == 0
    assert "1 measured now" in said


def test_an_unknown_repository_is_refused(hub: Hub, capsys: pytest.CaptureFixture[str]):
    assert run(["sweep", "suite=hub", "suite.repo=no/where"]) == 2
    assert "no/where" in capsys.readouterr().err
