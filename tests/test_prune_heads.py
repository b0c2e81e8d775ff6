"""Heads switched off for real, and groups of alike heads against what other heads cost."""

from typing import Any

import numpy as np
import pytest
import torch

from sweeps.studies import prune_heads
from sweeps.studies.prune_heads import (
    groups_of,
    judged,
    losses,
    map_similarity,
    other_choices,
    output_projection,
    prune,
    pruning_sentences,
    without_heads,
)
from tests.test_encodings_model import EVERY, eager, ids, made, strong
from tracker.errors import CheckpointError
from tracker.models.attention_modules import self_attention_modules


@pytest.mark.parametrize("name", EVERY)
def test_a_head_is_switched_off_as_if_its_values_were_zero(name):
    """Against a model whose projection has zeros where the head's output enters."""
    model, tokens = strong(name), ids()
    whole = losses(model, tokens)
    with without_heads(model, {1: [2]}):
        without = losses(model, tokens)
    assert torch.equal(losses(model, tokens), whole)  # and on again
    projection: Any = output_projection(self_attention_modules(model)[1], 1)
    with torch.no_grad():
        weight = projection.weight if name != "gpt2" else projection.weight.T
        weight[:, 16:24] = 0
    torch.testing.assert_close(losses(model, tokens), without)
    assert (without - whole).abs().max() > 1e-3


def test_an_architecture_without_a_known_projection_is_refused():
    with pytest.raises(CheckpointError, match="layer 3: Linear has no output projection named dense"):
        output_projection(torch.nn.Linear(2, 2), 3)


def test_groups_are_alike_in_every_pair():
    similarity = np.array([[1, 0.95, 0.5], [0.95, 1, 0.92], [0.5, 0.92, 1]])
    assert groups_of(similarity) == [(0, 1)]
    assert groups_of(np.eye(3)) == []
    assert groups_of(np.eye(1)) == []


def test_a_copied_head_is_found_and_its_loss_is_reported():
    """Head 1 copies head 0 and hands nothing on: it can go, and other heads cannot."""
    model, tokens = strong("rotary"), ids(3, 10)
    layer: Any = self_attention_modules(model)[1]
    with torch.no_grad():
        for parameter in (layer.query_key_value.weight, layer.query_key_value.bias):
            parts = parameter.view(4, 3, 8, -1)
            parts[1, :2] = parts[0, :2]
        layer.dense.weight[:, 8:16] = 0
        layer.dense.weight[:, 16:] *= 8
        for _ in range(30):  # its own words: whatever it does without hurts
            tokens = torch.cat([tokens, model(tokens).logits[:, -1:].argmax(-1)], 1)
    tokens = tokens[:, 10:]
    assert map_similarity(model, tokens)[1][0, 1] == pytest.approx(1)
    found = [each for each in prune(model, tokens) if each.layer == 1 and each.group == (0, 1)]
    assert len(found) == 1
    assert found[0].kept == 0
    assert found[0].rise == pytest.approx(0, abs=1e-9)
    assert found[0].control is not None
    assert found[0].control > 0.01
    assert found[0].redundant
    assert "layer 1 heads 0, 1" in pruning_sentences("m", found)[0]


def test_other_choices_are_all_there_are_or_twelve_drawn_ones():
    assert other_choices(3, (0, 1)) == [(2,)]
    assert other_choices(3, (0, 1, 2)) == []
    few = other_choices(5, (0, 1, 2))
    assert len(few) == 10 - 3
    group = tuple(range(16))
    drawn = other_choices(32, group, 5)  # of 565 million, which no list could hold
    assert len(set(drawn)) == 12
    assert all(len(each) == 15 and not set(each) <= set(group) for each in drawn)
    assert drawn == other_choices(32, group, 5)


def test_redundant_is_what_costs_less_in_every_sequence():
    """Sequences differ more than the two losses do within each: the difference is sure all the same."""
    ours, theirs = np.array([0.1, 1.1, 2.1, 3.1]), np.array([0.2, 1.21, 2.2, 3.19])
    found = judged(0, (0, 1), 0, 0.95, 2.0, [ours, theirs])
    assert found.redundant
    assert found.rise + (found.half or 0) > (found.control or 0)
    assert not judged(0, (0, 1), 0, 0.95, 2.0, [theirs, ours]).redundant


@pytest.mark.parametrize("name", ["rotary", "bloom"])
def test_parts_of_the_probe_give_what_the_whole_gives(name: str, monkeypatch: pytest.MonkeyPatch):
    """Only so many tokens at once; losses are the model's own, and cosines those of its whole maps."""
    model, tokens = strong(name), ids(7, 40)
    with torch.inference_mode():
        logits = model(tokens).logits[:, :-1].double()
        expected = torch.nn.functional.cross_entropy(logits.mT, tokens[:, 1:], reduction="none").mean(1)
        maps = eager(model, tokens)[1].flatten(2).double()
    unit = maps / maps.norm(dim=-1, keepdim=True)
    monkeypatch.setattr(prune_heads, "TOKENS_AT_ONCE", 100)
    monkeypatch.setattr(prune_heads, "ROWS_AT_ONCE", 16)
    passes: list[int] = []
    model.base_model.register_forward_pre_hook(
        lambda _, args, given: passes.append(given["input_ids"].numel()), with_kwargs=True
    )
    torch.testing.assert_close(losses(model, tokens), expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(map_similarity(model, tokens)[1], (unit @ unit.mT).mean(0), atol=1e-6)
    assert passes == [80, 80, 80, 40] * 2


def test_one_sequence_judges_no_pruning():
    found = prune(made("rotary"), ids(1), alike=0.6)
    assert found
    for each in found:
        assert each.half is None
        assert each.redundant is None
        assert "no control to compare with" in pruning_sentences("m", [each])[0]


def test_pruning_leaves_the_model_as_it_was():
    model = strong("rotary").train()
    model.set_attn_implementation("sdpa")
    prune(model, ids(2))
    assert model.training
    assert model.config._attn_implementation == "sdpa"
