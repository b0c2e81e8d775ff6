"""Drivers against independent witnesses: finite differences, dense eigenvalues, matrices without relation."""

from typing import Any

import pytest
import torch

from tests.test_encodings_model import ids, made
from tracker.errors import CheckpointError
from tracker.models.drivers import Curvature, batch_loss, composition, gradient_norms, head_weights
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


def test_another_body_is_refused():
    with pytest.raises(
        CheckpointError, match="BloomForCausalLM: drivers are worked out for GPT-NeoX's body alone"
    ):
        composition(made("bloom"))
