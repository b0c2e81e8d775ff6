"""The attention that is measured is the model's own, layer by layer; nothing is left out silently."""

import gc
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from tracker.errors import CheckpointError, RequestError
from tracker.models import AttentionStream, load_model, model_facts, refuse_faults
from tracker.models.attention_interface import attention_faults


def neox(**changes) -> PreTrainedModel:
    torch.manual_seed(0)
    fields = {
        "vocab_size": 64,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
    }
    return GPTNeoXForCausalLM(GPTNeoXConfig(**(fields | changes))).eval()


def llama() -> PreTrainedModel:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
            initializer_range=0.3,
        )
    ).eval()


def eager(model: PreTrainedModel, ids: torch.Tensor) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        output = model(ids, output_attentions=True)
    return output.attentions, output.logits


def streamed(
    model: PreTrainedModel, *ids: torch.Tensor
) -> tuple[list[list[torch.Tensor]], list[torch.Tensor]]:
    stream = AttentionStream(model, list(ids))
    with torch.inference_mode():
        layers = [[each.whole() for each in attention] for _, attention in stream]
    return layers, stream.hidden


@pytest.mark.parametrize("make", [neox, llama])
def test_attention_is_the_eager_one_of_every_pass_and_the_head_sees_the_same_states(make):
    model = make()
    full = torch.randint(0, 64, (2, 24))
    half = full[:, ::2]
    layers, hidden = streamed(model, full, half)
    assert len(layers) == 3
    for index, ids in enumerate((full, half)):
        expected, logits = eager(model, ids)
        for layer, attention in enumerate(expected):
            torch.testing.assert_close(layers[layer][index], attention, rtol=0, atol=1e-6)
        with torch.inference_mode():
            mine = model.get_output_embeddings()(hidden[index])
        torch.testing.assert_close(mine, logits, rtol=0, atol=1e-5)


def test_the_real_model_gives_its_eager_attention(real: Path):
    model = load_model(real / "stories260k")
    ids = torch.randint(3, 512, (4, 96), generator=torch.Generator().manual_seed(0))
    layers, _ = streamed(model, ids)
    expected, _ = eager(model, ids)
    assert len(expected) == len(layers) == 5
    worst = max(float((mine[0] - theirs).abs().max()) for mine, theirs in zip(layers, expected, strict=True))
    assert worst <= 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_still_give_float32_probabilities(dtype: torch.dtype):
    model = neox().to(dtype)
    layers, _ = streamed(model, torch.randint(0, 64, (1, 24)))
    for (attention,) in layers:
        assert attention.dtype == torch.float32
        assert float((attention.sum(-1) - 1).abs().max()) < 1e-6


def test_no_layer_outlives_its_turn():
    stream = iter(AttentionStream(neox(), [torch.randint(0, 64, (1, 24))]))
    with torch.inference_mode():
        _, (attention,) = next(stream)
        gone = weakref.ref(attention)
        del attention
        next(stream)
    gc.collect()
    assert gone() is None


def test_a_stream_left_early_leaves_no_thread_behind():
    before = threading.active_count()
    stream = iter(AttentionStream(neox(), [torch.randint(0, 64, (1, 24))] * 3))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_a_layer_that_never_arrives_is_an_error_not_a_gap():
    model: Any = neox()
    model.gpt_neox.layers[2].forward = lambda hidden, *_, **__: hidden
    with pytest.raises(
        CheckpointError,
        match=r"GPTNeoXForCausalLM does not hand out its attention: layer 2 of 3 never arrived",
    ):
        streamed(model, torch.randint(0, 64, (1, 24)))


@pytest.mark.parametrize("make", [neox, llama])
def test_tiles_are_parts_of_the_whole_and_the_model_goes_on_from_them(make):
    model = make(max_position_embeddings=256) if make is neox else make()
    n = 200 if make is neox else 60
    ids = torch.randint(0, 64, (3, n))
    expected, logits = eager(model, ids)
    stream = AttentionStream(model, [ids])
    with torch.inference_mode():
        for layer, (attention,) in stream:
            assert (attention.cut and attention.keys(70 if n > 70 else 10) < n) or n <= 64
            for rows in (slice(0, n // 3), slice(n // 3, n)):
                tile = attention.tile(slice(1, 3), rows)
                part = expected[layer][1:3, :, rows]
                torch.testing.assert_close(tile, part[..., : tile.shape[-1]], rtol=0, atol=1e-6)
                assert not part[..., tile.shape[-1] :].any()
        mine = model.get_output_embeddings()(stream.hidden[0])
    torch.testing.assert_close(mine, logits, rtol=0, atol=1e-4)


def test_a_model_without_a_mask_is_not_cut_into_a_causal_one():
    model = BertModel(
        BertConfig(
            vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
        )
    ).eval()
    ids = torch.randint(0, 64, (2, 100))
    layers, _ = streamed(model, ids)
    assert all(float(attention[:, :, 0, 1:].sum()) > 0.5 for (attention,) in layers)


def test_an_error_inside_the_model_is_one_of_the_checkpoint():
    with pytest.raises(CheckpointError, match="GPTNeoXForCausalLM does not run on token ids: IndexError"):
        streamed(neox(), torch.tensor([[1, 2, 999]]))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a: a[0, 1].fill_(float("nan")), "layer 2 head 1: attention is NaN or infinite"),
        (lambda a: a[0, 3].mul_(0.5), "layer 2 head 3: attention does not sum to 1"),
        (
            lambda a: a[0, 2].fill_(1 / 8),
            "layer 2 head 2: attention looks ahead; only causal language models",
        ),
    ],
)
def test_attention_that_cannot_be_measured_names_layer_and_head(spoil, message: str):
    attention = torch.tril(torch.ones(1, 4, 8, 8))
    attention /= attention.sum(-1, keepdim=True)
    refuse_faults(2, attention_faults(attention, causal=True))
    spoil(attention)
    with pytest.raises(CheckpointError, match=message):
        refuse_faults(2, attention_faults(attention, causal=True))


def test_facts_of_pythia_in_small():
    facts = model_facts(
        neox(
            hidden_size=128,
            num_attention_heads=4,
            num_hidden_layers=6,
            intermediate_size=512,
            vocab_size=50304,
        )
    )
    assert (facts.params_total, facts.params_non_embedding) == (14067712, 1189888)
    assert (facts.n_layers, facts.n_heads, facts.d_model, facts.d_head, facts.rotary_dims) == (
        6,
        4,
        128,
        32,
        8,
    )
    assert (facts.position_encoding, facts.causal, facts.vocabulary) == ("rotary", True, 50304)


def test_loading_refuses_what_transformers_would_fill_with_noise(tmp_path: Path):
    model = neox()
    state = model.state_dict()
    del state["gpt_neox.layers.1.attention.dense.weight"]
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(CheckpointError, match=r"missing keys gpt_neox.layers.1.attention.dense.weight"):
        load_model(tmp_path)


def test_loading_names_a_tensor_with_nan(tmp_path: Path):
    model = neox()
    with torch.no_grad():
        model.get_parameter("gpt_neox.layers.2.mlp.dense_h_to_4h.weight")[3, 3] = float("nan")
    model.save_pretrained(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"NaN or infinite values in gpt_neox.layers.2.mlp.dense_h_to_4h.weight"
    ):
        load_model(tmp_path)


def test_loading_names_files_of_another_shape_or_kind(tmp_path: Path):
    neox().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(neox(hidden_size=64).config.to_json_string())
    with pytest.raises(CheckpointError, match=r"does not load|do not fit"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="does not load"):
        load_model(tmp_path)
    with pytest.raises(RequestError, match="dtype=int8: invalid value; expected one of float32"):
        load_model(tmp_path, dtype="int8")


def test_a_checkpoint_loads_as_float32_whatever_it_was_saved_in(tmp_path: Path):
    model = neox().half()
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    for mine, theirs in zip(loaded.parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_pass_that_is_not_finished_leaves_nothing_for_the_garbage_collector():
    model, ids = neox(), torch.arange(40).view(2, 20)
    gc.collect()
    gc.disable()
    try:
        stream = AttentionStream(model, [ids, ids[:, ::2]], finished=1)
        seen = [weakref.ref(each) for _, passes in stream for each in passes]
        assert len(seen) == 6
        assert [each() for each in seen if each() is not None] == []
    finally:
        gc.enable()
