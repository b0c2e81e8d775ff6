"""Every family, and sequences long enough to be cut into tiles, against the float64 reference."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from test_measure import close, reference, unit_for
from test_models_capture import neox
from test_models_families import FAMILIES, HEADS, WORDS, built, eager_output
from transformers import PreTrainedModel

from tracker.measurement.measure import measure, measure_model
from tracker.measurement.probe import prefix_ids, probe_tokens
from tracker.metrics.fused import layers as tiles
from tracker.metrics.registry import head_columns
from tracker.models import model_facts
from tracker.records import Conventions
from tracker.store import conform


def probe(n: int, number: int):
    ids = np.random.default_rng(1).integers(0, WORDS, (number, n))
    return probe_tokens(ids, prefix_ids(WORDS, [], block=12, seed=0))


def eager_maps(model: PreTrainedModel, ids: torch.Tensor) -> list[np.ndarray]:
    """What the model itself tells, layer by layer, an encoder's layers first."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    if model.config.is_encoder_decoder:
        with torch.inference_mode():
            found = model(ids, decoder_input_ids=ids, output_attentions=True)
        layers = (*found.encoder_attentions, *found.decoder_attentions)
    else:
        layers = eager_output(model, ids).attentions
    if before != "eager":
        model.set_attn_implementation(before)
    return [layer.double().numpy() for layer in layers]


def compare(model: PreTrainedModel, n: int, number: int) -> None:
    tokens = probe(n, number)
    ids = torch.from_numpy(tokens.ids)
    maps = eager_maps(model, ids)
    shorts = {
        alpha: eager_maps(model, ids[:, np.arange(m) * n // m])
        for alpha, m in ((0.5, n // 2), (0.25, n // 4))
    }
    means, _ = reference(maps, shorts)
    heads = conform("heads", measure(unit_for(n, number), model, tokens).heads).sort("layer", "head")
    shape = (len(maps), maps[0].shape[1])
    for name, column in means.items():
        values = np.array([[column[s, *at] for s in range(number)] for at in np.ndindex(shape)])
        if np.isnan(values).all():
            assert heads[name].null_count() == heads.height, name
            continue
        close(heads[name], np.nanmean(values, 1))
    assert {"spectral_entropy", "averaged_scale_sensitivity_0.25"} < set(means)
    assert heads["reconstruction_error"].max() < 1e-6  # type: ignore[operator]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_measures_as_the_reference(family: str):
    model = deepcopy(built(family))
    compare(model, 48, 2)
    facts = model_facts(model)
    assert facts.n_heads == HEADS


@pytest.mark.slow
def test_rows_that_end_behind_their_last_key_measure_as_the_reference(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tiles, "TILE_VALUES", 1 << 13)
    compare(neox(max_position_embeddings=256), 200, 2)


@pytest.mark.parametrize("n", [96, 150, 192])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mode": "periodic", "wavelet": "db4"},
        {"align": "gather", "sample": "prefix"},
        {"align": "dilate", "sample": "random", "averaging": "lag"},
        {"queries": 20, "averaging": "last"},
    ],
)
def test_tiles_of_any_size_measure_the_same(n: int, changes: dict, monkeypatch: pytest.MonkeyPatch):
    model, tokens = neox(max_position_embeddings=256), probe(n, 3)
    conventions = Conventions(**changes)
    found = []
    for values, block in ((1 << 30, 1 << 10), (1 << 13, 16)):
        monkeypatch.setattr(tiles, "TILE_VALUES", values)
        monkeypatch.setattr("tracker.models.attention_interface.KEY_BLOCK", 64 if block < 64 else block)
        found.append(measure_model(model, tokens, conventions))
    assert set(found[0].heads) == set(found[1].heads) <= set(head_columns(own=False))
    for name, whole in found[0].heads.items():
        np.testing.assert_allclose(found[1].heads[name], whole, rtol=1e-4, atol=2e-6, err_msg=name)
