"""Position encodings on one body: each is what its paper says, and is measured with its bias."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.t5.modeling_t5 import T5Attention

import tracker
from tracker.errors import RequestError
from tracker.models import AttentionStream, load_model, model_facts
from tracker.models.position_bias import PositionedNeoXConfig, alibi_slopes, relative_bucket
from tracker.models.streaming import stream_model
from tracker.nano import NanoRecipe
from tracker.nano.encoding import encoding_of
from tracker.nano.model import decay_groups, fresh
from tracker.nano.recipe import Size

RECIPE, SIZE, VOCAB = NanoRecipe(tokens=48, vocab=300), Size(width=32, layers=2, heads=4), 300
BIASED = ("learned", "alibi", "relative", "none")
EVERY = ("rotary", "rotary0", "rotary100base500", *BIASED, "gpt2", "bloom")


def made(name: str, seed: int = 0):
    return fresh(RECIPE, SIZE, VOCAB, seed, encoding_of(name)).eval()


def strong(name: str):
    """A model whose attention is far from uniform."""
    model = made(name)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
    return model


def ids(batch: int = 3, n: int = 40) -> torch.Tensor:
    return torch.randint(1, VOCAB, (batch, n), generator=torch.Generator().manual_seed(1))


def eager(model, tokens: torch.Tensor):
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        return model(tokens, output_attentions=True).attentions


@pytest.mark.parametrize("name", BIASED)
def test_all_that_does_not_encode_positions_starts_the_same(name):
    plain, other = made("rotary").state_dict(), made(name).state_dict()
    assert set(plain) <= set(other)
    assert all(torch.equal(plain[key], other[key]) for key in plain)
    extra = {key.rpartition("gpt_neox.")[2] for key in set(other) - set(plain)}
    assert extra == {"learned": {"embed_positions.weight"}, "relative": {"relative_bias.weight"}}.get(
        name, set()
    )


def test_another_seed_is_another_start_of_the_positions_too():
    bodies: list[Any] = [made("learned", seed).gpt_neox for seed in (0, 1)]
    one, two = (body.embed_positions.weight for body in bodies)
    assert not torch.equal(one, two)


def test_no_encoding_is_rotary_of_no_dimension():
    tokens = ids()
    with torch.inference_mode():
        torch.testing.assert_close(strong("none")(tokens).logits, strong("rotary0")(tokens).logits)
        assert not torch.allclose(strong("none")(tokens).logits, strong("rotary")(tokens).logits, atol=1e-2)


@pytest.mark.parametrize("heads", [1, 3, 4, 8, 12])
def test_alibi_is_blooms(heads):
    n = 20
    theirs = build_alibi_tensor(torch.ones(1, n), heads, torch.float32).view(heads, 1, n).expand(-1, n, -1)
    distance = torch.arange(n)[:, None] - torch.arange(n)
    ours = -alibi_slopes(heads)[:, None, None] * distance
    hidden = (distance < 0)[None]
    softmax = [bias.masked_fill(hidden, -torch.inf).softmax(-1) for bias in (ours, theirs)]
    torch.testing.assert_close(softmax[0], softmax[1])


def test_buckets_are_those_of_t5s_decoder():
    distance = torch.arange(400)
    for buckets, furthest in ((32, 128), (8, 20)):
        theirs = T5Attention._relative_position_bucket(-distance, False, buckets, furthest)
        assert torch.equal(relative_bucket(distance, buckets, furthest), theirs)


@pytest.mark.parametrize("name", ["alibi", "relative"])
def test_the_bias_is_in_the_attention(name):
    """Against softmax of scores and bias computed here from the layer's own weights."""
    model, tokens = strong(name), ids()
    body: Any = model.gpt_neox
    layer = body.layers[0].attention
    with torch.inference_mode():
        hidden = body.layers[0].input_layernorm(body.embed_in(tokens))
        q, k, _ = (
            layer.query_key_value(hidden).view(*tokens.shape, SIZE.heads, -1).transpose(1, 2).chunk(3, -1)
        )
        n = tokens.shape[1]
        distance = torch.arange(n)[:, None] - torch.arange(n)
        if name == "alibi":
            bias = -torch.tensor([1 / 4, 1 / 16, 1 / 64, 1 / 256])[:, None, None] * distance
        else:
            bias = body.relative_bias.weight[relative_bucket(distance, 32, 128)].permute(2, 0, 1)
        scores = q @ k.transpose(-1, -2) / SIZE.width**0.5 * SIZE.heads**0.5 + bias
        expected = scores.masked_fill(distance < 0, -torch.inf).softmax(-1)
        torch.testing.assert_close(eager(model, tokens)[0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_a_saved_checkpoint_loads_without_code_and_is_measured_as_it_is(name, tmp_path: Path):
    model, tokens = strong(name), ids()
    model.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.py"))
    expected = eager(model, tokens)
    for loaded in (load_model(tmp_path), stream_model(tmp_path)):
        stream = AttentionStream(loaded, [tokens, tokens[:, ::2]])
        for layer, (whole, _) in stream:
            tiles = [whole.tile(slice(1, 3), slice(7, 20)), whole.whole()]
            keys = tiles[0].shape[-1]
            assert torch.equal(tiles[0], tiles[1][1:3, :, 7:20, :keys])
            torch.testing.assert_close(tiles[1], expected[layer], rtol=1e-5, atol=1e-6)
    facts = model_facts(load_model(tmp_path))
    named = {"rotary0": "none", "rotary100base500": "rotary", "gpt2": "learned", "bloom": "alibi"}
    assert facts.position_encoding == named.get(name, name)
    assert facts.causal
    assert facts.rotary_dims == {"rotary": 2, "rotary100base500": 8}.get(name)


@pytest.mark.parametrize("name", BIASED)
def test_padding_and_a_cache_change_nothing(name):
    model, tokens = strong(name), ids()
    padded = torch.cat([tokens, torch.zeros(3, 5, dtype=torch.long)], 1)
    seen = torch.cat([torch.ones_like(tokens), torch.zeros(3, 5, dtype=torch.long)], 1)
    with torch.inference_mode():
        plain = model(tokens, use_cache=True)
        whole = model(padded, attention_mask=seen).logits[:, : tokens.shape[1]]
        torch.testing.assert_close(plain.logits, whole, rtol=1e-4, atol=1e-5)
        first = model(tokens[:, :30], use_cache=True)
        rest = model(tokens[:, 30:], past_key_values=first.past_key_values, use_cache=True).logits
        torch.testing.assert_close(rest, plain.logits[:, 30:], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_only_tracker_knows_the_type(tmp_path: Path):
    made("alibi").save_pretrained(tmp_path)
    load = f"AutoModelForCausalLM.from_pretrained({str(tmp_path)!r})"
    script = f"from transformers import AutoModelForCausalLM\ntry:\n {load}\n"
    script += f"except ValueError:\n print('unknown')\nimport tracker.models\nprint(type({load}).__name__)"
    found = {"PYTHONPATH": str(Path(tracker.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=os.environ | found, check=True
    )
    assert done.stdout.split() == ["unknown", "PositionedNeoXForCausalLM"]
    assert type(AutoModelForCausalLM.from_pretrained(tmp_path)).__name__ == "PositionedNeoXForCausalLM"


def test_an_unknown_encoding_is_refused():
    with pytest.raises(Exception, match="position_encoding=polar"):
        PositionedNeoXConfig(position_encoding="polar")
    for name in ("polar", "rotary101", "rotary25base0", "alibi2", ""):
        with pytest.raises(RequestError, match=r"encodings=.*rotary, learned, alibi, relative, none"):
            encoding_of(name)


def test_the_bias_does_not_decay_and_matrices_do():
    model = made("relative")
    body: Any = model.gpt_neox
    decaying, others = (group["params"] for group in decay_groups(model, 0.1))
    assert any(weights is body.relative_bias.weight for weights in others)
    assert any(weights is body.embed_in.weight for weights in decaying)
