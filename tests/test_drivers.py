"""Drivers against independent witnesses: finite differences, dense eigenvalues, matrices without relation."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.test_encodings_model import ids, made
from tracker.checkpoints import discover_folder
from tracker.cli import run as run_cli
from tracker.commands.drivers import DRIVERS, _link
from tracker.engines.load import load_with_probe
from tracker.errors import CheckpointError
from tracker.measurement.probe import probe_spec
from tracker.models.drivers import Curvature, batch_loss, composition, gradient_norms, head_weights
from tracker.nano import NanoRecipe
from tracker.nano.model import fresh
from tracker.nano.recipe import Size
from tracker.planning.plan import Plan
from tracker.planning.resolve import ResolvedSweep
from tracker.records import Conventions, ProbeSource


def tiny():
    return fresh(NanoRecipe(tokens=16, vocab=300), Size(width=4, layers=1, heads=2), 12, 0)


def vector(model) -> torch.Tensor:
    return torch.randn(sum(p.numel() for p in model.parameters()), generator=torch.Generator().manual_seed(3))


def moved(model, by: torch.Tensor) -> None:
    start = 0
    with torch.no_grad():
        for weights in model.parameters():
            weights += by[start : start + weights.numel()].view_as(weights)
            start += weights.numel()


def test_curvature_along_a_direction_is_the_second_difference_of_the_loss():
    model, tokens = tiny().double(), ids(4, 12) % 12
    unit = vector(model).double()
    unit /= unit.norm()
    told = Curvature(model, tokens).along(3 * unit)
    step = 1e-3
    values = []
    for place in (-step, 0.0, step):
        there = tiny().double()
        moved(there, place * unit)
        values.append(batch_loss(there, tokens).item())
    assert told == pytest.approx((values[0] - 2 * values[1] + values[2]) / step**2, rel=1e-3, abs=1e-5)


def test_sharpness_is_the_largest_eigenvalue():
    model, tokens = tiny(), ids(4, 12) % 12
    curvature = Curvature(model, tokens)
    size = len(vector(model))
    dense = torch.stack([curvature.times(row) for row in torch.eye(size)])
    torch.testing.assert_close(dense, dense.T, rtol=1e-3, atol=1e-5)
    largest = float(torch.linalg.eigvalsh((dense + dense.T) / 2)[-1])
    assert curvature.sharpness(steps=30) == pytest.approx(largest, rel=1e-2)
    assert curvature.sharpness(steps=4) <= largest * (1 + 1e-4)


def test_gradients_of_heads_are_the_slopes_of_their_weights():
    model, tokens = made("rotary"), ids()
    norms = gradient_norms(model, tokens)
    batch_loss(model, tokens).backward()
    body: Any = model.gpt_neox
    attention = body.layers[1].attention
    own = [attention.query_key_value.weight.grad[2 * 24 : 3 * 24], attention.dense.weight.grad[:, 16:24]]
    assert norms.shape == (2, 4)
    assert norms[1, 2].item() == pytest.approx(
        sum(float(part.square().sum()) for part in own) ** 0.5, rel=1e-5
    )


def test_matrices_without_relation_do_not_compose_and_planted_ones_do():
    model = fresh(NanoRecipe(vocab=300), Size(width=64, layers=2, heads=4), 300, 0)
    before = composition(model)
    assert all(value[0, :, 1].abs().max() < 0.05 for value in before.values())
    assert before["K"][1].isnan().all()
    first, second = head_weights(model)
    with torch.no_grad():  # head 3 of layer 1 reads through its keys what head 2 of layer 0 writes
        second.key[3] = first.output[2].T
    after = composition(model)["K"][0, :, 1]
    assert after.flatten().argmax().item() == 2 * 4 + 3
    assert after[2, 3] > 0.15


def test_a_run_that_cannot_be_worked_out_costs_itself_alone(tmp_path: Path, capfd):
    """GPT-2's body has no drivers; the other model's are measured and written all the same."""
    request = [f"store={tmp_path / 'store'}", "suite.models=[0.05m]", "encodings=[gpt2,rotary]",
               "suite.train_steps=4", "probe.sequences=2", "sink=none", "engine=inline"]  # fmt: skip
    assert run_cli(["sweep", *request]) == 0
    assert run_cli(["drivers", *request]) == 1
    told = capfd.readouterr().out
    assert "0.05m-gpt2 seed 0: GPT2LMHeadModel: drivers are worked out for GPT-NeoX's body alone" in told
    report = json.loads((tmp_path / "store" / "drivers.json").read_text())
    (run,) = report["runs"]
    assert run["model"] == "0.05m"
    assert [row["step"] for row in run["checkpoints"]] == [0, 1, 2, 4]
    # The first step of the warm-up has no length.
    assert [row["curvature"] is None for row in run["checkpoints"]] == [True, True, False, False]
    assert all(row[name] is not None for row in run["checkpoints"][2:] for name in DRIVERS)
    assert all(run["checkpoints"][1][name] > 0 for name in ("gradient", "sharpness"))
    assert report["sentences"][0].startswith("0.05m, 1 seed: rank correlation")
    assert "One seed tells no common sign" in report["sentences"][0]


def test_the_probe_is_encoded_by_the_tokenizer_that_the_request_names(tmp_path: Path):
    store = tmp_path / "trained"
    assert run_cli(["nano", f"store={store}", "suite.models=[0.05m]", "suite.train_steps=1"]) == 0
    (first, *_) = sorted(store.rglob("step0"))
    checkpoint, tokenizer = tmp_path / "mine" / "step0", tmp_path / "tokenizer"
    shutil.copytree(first, checkpoint)
    tokenizer.mkdir()
    for each in checkpoint.glob("*token*"):
        shutil.move(each, tokenizer)
    source = ProbeSource(tokenizer=str(tokenizer))
    surveyed = ResolvedSweep(Plan(()), probe_spec(source, name="p", n=16, number=2), source, Conventions())
    (found,) = discover_folder(tmp_path / "mine")
    _, ids = load_with_probe(surveyed, found, "float32")
    assert ids.shape == (2, 16)


def test_a_link_is_the_rank_correlation_with_the_change_that_follows():
    steps, entropy = [0, 1, 3, 7, 15, 31], [0.0, 1.0, 3.0, 6.0, 10.0, 15.0]  # faster with every doubling
    rows = [
        {"step": step, "spectral_entropy": each, "gradient": float(at), "sharpness": -float(at),
         "gradient_unevenness": 2.0, "curvature": None, "composition": [0, 2, 1, 3, 4, 9][at]}
        for at, (step, each) in enumerate(zip(steps, entropy, strict=True))
    ]  # fmt: skip
    link = _link({"suite": "s", "model": "m", "seed": 0, "checkpoints": rows})
    assert (link["gradient"], link["sharpness"]) == (pytest.approx(1), pytest.approx(-1))
    assert link["composition"] == pytest.approx(0.9)
    assert link["gradient_unevenness"] is link["curvature"] is None


def test_another_body_is_refused():
    with pytest.raises(
        CheckpointError, match="BloomForCausalLM: drivers are worked out for GPT-NeoX's body alone"
    ):
        composition(made("bloom"))
