"""Drivers against independent witnesses: finite differences, dense eigenvalues, matrices without relation."""

from typing import Any

import pytest
import torch

from sweeps.studies.drivers import (
    CheckpointDrivers,
    Curvature,
    RunDrivers,
    composition,
    correlations,
    gradient_norms,
    head_weights,
    mean_loss,
)
from tests.test_encodings_model import ids, made
from tracker.errors import CheckpointError
from tracker.nano import NanoRecipe
from tracker.nano.model import fresh
from tracker.nano.recipe import Size


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
    found = Curvature(model, tokens).along(3 * unit)
    step = 1e-3
    values = []
    for place in (-step, 0.0, step):
        there = tiny().double()
        moved(there, place * unit)
        values.append(mean_loss(there, tokens).item())
    assert found == pytest.approx((values[0] - 2 * values[1] + values[2]) / step**2, rel=1e-3, abs=1e-5)


def test_sharpness_is_the_largest_eigenvalue():
    model, tokens = tiny(), ids(4, 12) % 12
    curvature = Curvature(model, tokens)
    size = len(vector(model))
    dense = torch.stack([curvature.times(row) for row in torch.eye(size)])
    torch.testing.assert_close(dense, dense.T, rtol=1e-3, atol=1e-5)
    largest = float(torch.linalg.eigvalsh((dense + dense.T) / 2)[-1])
    assert curvature.sharpness() == pytest.approx(largest, rel=1e-3)


def test_gradients_of_heads_are_the_slopes_of_their_weights():
    model, tokens = made("rotary"), ids()
    norms = gradient_norms(model, tokens)
    mean_loss(model, tokens).backward()
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


@pytest.mark.parametrize("name", ["gradient_norms", "times"])
def test_parts_of_the_probe_give_what_the_whole_gives(name: str, monkeypatch: pytest.MonkeyPatch):
    """Only so many tokens at once, whatever the number of sequences."""
    model, tokens = tiny(), ids(7, 12) % 12
    passes: list[int] = []

    def found() -> torch.Tensor:
        return (
            gradient_norms(model, tokens)
            if name == "gradient_norms"
            else Curvature(model, tokens).times(vector(model))
        )

    whole = found()
    model.register_forward_pre_hook(
        lambda _, args, given: passes.append(given["input_ids"].numel()), with_kwargs=True
    )
    monkeypatch.setattr("sweeps.studies.drivers.TOKENS_AT_ONCE", 36)
    torch.testing.assert_close(found(), whole, rtol=1e-4, atol=1e-6)
    assert passes == [36, 36, 12]


def test_correlations_are_with_the_change_that_follows():
    steps, entropy = [0, 1, 3, 7, 15, 31], [0.0, 1.0, 3.0, 6.0, 10.0, 15.0]  # faster with every doubling
    rows = [
        CheckpointDrivers(step, each, None, gradient=float(at), gradient_unevenness=2.0, gradient_by_head=[],
                          sharpness=-float(at), curvature=None, composition=[0, 2, 1, 3, 4, 9][at])
        for at, (step, each) in enumerate(zip(steps, entropy, strict=True))
    ]  # fmt: skip
    link = correlations(RunDrivers("s", "m", 0, tuple(rows)))
    assert (link.gradient, link.sharpness) == (pytest.approx(1), pytest.approx(-1))
    assert link.composition == pytest.approx(0.9)
    assert link.gradient_unevenness is link.curvature is None


def test_another_body_is_refused():
    with pytest.raises(CheckpointError, match="BloomForCausalLM: drivers support GPT-NeoX models only"):
        composition(made("bloom"))
