"""Live training and W&B: the training's own run, and a run of tracker's own; the real client, offline."""

import time
from pathlib import Path

import pytest
import wandb
import wandb_file
from live_material import PROBE, train
from sink_material import no_wandb_of_the_user  # noqa: F401  # a fixture that every test here uses

import tracker
from tracker.store.journal import live_alerts
from tracker.wandb_sink.findings import read_analysis


@pytest.fixture(autouse=True)
def _short_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every change counts as sudden, so that a short training has alerts."""
    monkeypatch.setattr("tracker.analysis.instability.Limits.__init__.__defaults__", (0.1, 0.0, 0.0, 0.0))


def test_the_trainings_own_run_gets_the_numbers_and_the_alerts(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    settings = wandb.Settings(x_disable_stats=True, x_disable_meta=True, console="off", silent=True)
    callback = tracker.TrackerCallback(PROBE, store=tmp_path / "store", every=4, share=None)
    with wandb.init(mode="offline", dir=tmp_path, project="mine", settings=settings) as run:
        train(tmp_path / "run", callback, steps=12)
        run.log({"own": 1.0})
        path = next(Path(run.settings.sync_dir).glob("*.wandb"))
    deadline = time.monotonic() + 20  # W&B's service puts a run's last rows down a moment late
    while not any("own" in row for row in wandb_file.history(path)) and time.monotonic() < deadline:
        time.sleep(0.05)
    rows = [row for row in wandb_file.history(path) if "tracker/step" in row]
    assert [row["tracker/step"] for row in rows] == [0, 1, 2, 4, 8, 12]
    stored = tracker.open_store(tmp_path / "store").checkpoints().sort("step")
    for name in ("spectral_entropy", "loss", "previous_token_score"):
        assert [row[f"tracker/{name}"] for row in rows] == stored[name].to_list()
    assert rows[3]["tracker/std/spectral_entropy"] == stored["spectral_entropy_std"][3]
    assert any(row.get("own") == 1.0 for row in wandb_file.history(path))
    alerts = [record.alert for record in wandb_file.records(path) if record.HasField("alert")]
    assert len(alerts) == callback.account.alerts > 0
    assert alerts[0].title.startswith("sudden change of ")


def test_a_run_of_trackers_own_is_a_sweeps_and_carries_the_alerts(tmp_path: Path):
    sink = tracker.SinkOptions(mode="offline", histograms=False, maps=False)
    callback = tracker.TrackerCallback(PROBE, store=tmp_path / "store", every=4, share=None, sink=sink)
    train(tmp_path / "run", callback, steps=12)
    (path,) = wandb_file.wandb_files(tmp_path / "store")
    assert [row["checkpoint/step"] for row in wandb_file.history(path)] == [0, 1, 2, 4, 8, 12]
    assert wandb_file.run_of(path).display_name == "run seed 0"
    assert callback.account.sentences[-1].startswith("W&B: 6 checkpoints in 1 run, offline")
    found = live_alerts(tmp_path / "store")
    assert len(found) == callback.account.alerts > 0
    assert found[0]["model"] == "run"
    assert read_analysis(tmp_path / "store")["alerts"] == found
    alerts = [record.alert for record in wandb_file.records(path) if record.HasField("alert")]
    assert {alert.text for alert in alerts} == {alert["sentence"] for alert in found}
