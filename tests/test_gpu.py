"""On a machine with a GPU: it measures what the processor measures, and its faults cost one checkpoint.

Needs nothing but CUDA: ``python -m pytest -n0 --noconftest tests/test_gpu.py``.
"""

import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from test_measure import tokens_for, unit_for
from test_models_capture import neox
from test_models_families import FAMILIES, built
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

import tracker
from tracker.measurement import measure as measuring
from tracker.measurement.measure import measure, measure_model
from tracker.metrics.fused import layers as tiles
from tracker.records import Conventions, Measurement

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
VOLATILE = ("seconds", "peak_bytes", "device")
TABLES = ("heads", "layers", "sequences", "checkpoint")


def assert_same(ours: Measurement, theirs: Measurement, rtol: float = 1e-3, atol: float = 1e-5) -> None:
    """Every column of every table but those of time and place."""
    for table in TABLES:
        found, wanted = getattr(ours, table), getattr(theirs, table)
        assert found.columns == wanted.columns
        for name in wanted.columns:
            if name in VOLATILE:
                continue
            if wanted[name].dtype == pl.List(pl.Float64):
                lists = [np.array(each[name].to_list()) for each in (found, wanted)]
                np.testing.assert_allclose(*lists, rtol=rtol, atol=atol, err_msg=f"{table}.{name}")
                continue
            if not wanted[name].dtype.is_numeric():
                assert found[name].to_list() == wanted[name].to_list(), name
                continue
            pair = [each[name].to_numpy().astype(float) for each in (found, wanted)]
            np.testing.assert_allclose(*pair, rtol=rtol, atol=atol, err_msg=f"{table}.{name}")


def on_gpu(model):
    return deepcopy(model).to("cuda")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_column_is_the_processors(family: str):
    model, tokens = built(family), tokens_for(n=48, number=6)
    unit = unit_for(48, 6)
    assert_same(measure(unit, on_gpu(model), tokens), measure(unit, deepcopy(model), tokens))


@pytest.mark.parametrize("changed", [
    {"averaging": "lag"}, {"averaging": "last"}, {"align": "gather"}, {"align": "dilate"},
    {"sample": "random"}, {"queries": 20}, {"mode": "periodic"}, {"wavelet": "bior2.2"},
])  # fmt: skip
def test_every_convention_is_the_processors(changed: dict):
    model, tokens, conventions = neox(), tokens_for(n=128, number=4), Conventions(**changed)
    unit = unit_for(128, 4, conventions)
    assert_same(measure(unit, on_gpu(model), tokens), measure(unit, model, tokens))


def test_rows_cut_into_many_tiles_are_the_processors(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tiles, "TILE_VALUES_GPU", 1 << 14)
    model, tokens = neox(), tokens_for(n=200, number=5)
    unit = unit_for(200, 5)
    assert_same(measure(unit, on_gpu(model), tokens), measure(unit, model, tokens))


def test_half_precision_weights_are_near_full_ones():
    model, tokens = neox(), tokens_for(number=8)
    wide = measure(unit_for(number=8), on_gpu(model), tokens)
    half = measure(unit_for(number=8), on_gpu(model).bfloat16(), tokens)
    for name in ("spectral_entropy", "positional_entropy", "averaged_spectral_entropy"):
        np.testing.assert_allclose(half.heads[name], wide.heads[name], rtol=0.03)
    assert half.checkpoint["loss"][0] == pytest.approx(wide.checkpoint["loss"][0], rel=0.01)


def test_a_batch_that_does_not_fit_is_halved(monkeypatch: pytest.MonkeyPatch):
    sizes = {"vocab_size": 64, "hidden_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    model = GPTNeoXForCausalLM(GPTNeoXConfig(**sizes, intermediate_size=2048)).eval().to("cuda")
    tokens = tokens_for(n=64, number=2048)
    wanted = measure_model(model, tokens, Conventions())
    tried = []
    whole = measuring._measured_batch
    monkeypatch.setattr(measuring, "_measured_batch", lambda *given: tried.append(given[1]) or whole(*given))
    monkeypatch.setattr(measuring, "_batch_size", lambda *given: 2048)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (700 << 20)) / total)
    try:
        found = measure_model(model, tokens, Conventions())
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert len(tried) > 2
    assert tried[0] == slice(0, 2048)
    np.testing.assert_allclose(found.heads["spectral_entropy"], wanted.heads["spectral_entropy"], rtol=1e-4)


def test_track_measures_where_the_model_is():
    ids = tokens_for().ids
    found = tracker.track(on_gpu(neox()), ids)
    assert found.summary["device"][0] == torch.cuda.get_device_name()
    assert found.summary["peak_bytes"][0] > 0


FAULTY = '''
"""A metric that asks CUDA for an element that is not there, the first time."""
from pathlib import Path

import torch
import tracker


@tracker.metric(title="Faulty", unit="share", low=0, high=1, source="own")
def faulty(rows):
    """Largest attention."""
    flag = Path(__file__).with_suffix(".done")
    if rows.is_cuda and not flag.exists():
        flag.touch()
        torch.ones(4, device="cuda")[torch.tensor([9], device="cuda")].sum().item()
    return rows.amax(-1)
'''


def swept(folder: Path, *overrides: str) -> tuple[pl.DataFrame, subprocess.CompletedProcess[str]]:
    environment = os.environ | {
        "PYTHONPATH": f"{Path(__file__).parent.parent}:{os.environ.get('PYTHONPATH', '')}"
    }
    done = subprocess.run(
        [sys.executable, "-m", "tracker", "sweep", "suite=folder", "suite.path=mine", "probe.ids=ids.npy",
         "probe.n=48", "probe.sequences=6", "sink=none", *overrides],
        cwd=folder, env=environment, text=True, capture_output=True, timeout=240, check=False,
    )  # fmt: skip
    store = next((part.split("=")[1] for part in overrides if part.startswith("store=")), "tracker-store")
    return tracker.open_store(folder / store).heads().sort("step", "layer", "head"), done


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    for step in (1, 2, 4):
        torch.manual_seed(step)
        neox().save_pretrained(tmp_path / "mine" / f"step{step}")
    np.save(tmp_path / "ids.npy", tokens_for(number=6).ids)
    return tmp_path


def test_a_sweep_on_the_gpu_is_that_on_the_processor(mine: Path):
    ours, done = swept(mine, "store=gpu", "device=auto")
    assert done.returncode == 0, done.stdout + done.stderr
    theirs, done = swept(mine, "store=cpu", "device=cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in (
        "spectral_entropy",
        "frequency_selectivity",
        "scale_sensitivity_0.5",
        "prefix_matching_score",
    ):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-3, atol=1e-5)
    rows = tracker.open_store(mine / "gpu").checkpoints()
    assert set(rows["device"]) == {torch.cuda.get_device_name()}


def test_a_fault_that_ends_cuda_costs_one_checkpoint_at_most(mine: Path):
    (mine / "faulty.py").write_text(FAULTY)
    found, done = swept(mine, "spectrum.metrics=[faulty.py]")
    assert (mine / "faulty.done").exists()
    assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    assert found["step"].n_unique() >= 2, done.stdout + done.stderr
    again, done = (
        swept(mine, "spectrum.metrics=[faulty.py]", "retry=true") if done.returncode else (found, done)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert again["step"].n_unique() == 3
