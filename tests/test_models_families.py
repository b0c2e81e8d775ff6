"""Every family hands out the attention that it computes, and is recorded as what it is."""

import threading
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
)

from tracker.errors import CheckpointError
from tracker.models.architecture import auto_class, causal_layers, model_facts
from tracker.models.attention_hooks import hooked_attention, needs_hooks
from tracker.models.attention_modules import base_call, layer_number, self_attention_modules
from tracker.models.loss import sequence_losses

LAYERS, HEADS, WIDTH, WORDS, TOKENS = 3, 4, 32, 64, 24
USUAL: dict[str, Any] = {
    "vocab_size": WORDS, "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "intermediate_size": 64, "max_position_embeddings": 48, "initializer_range": 0.3, "pad_token_id": None,
    "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
GROUPED = {"num_key_value_heads": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt_neox": {"partial_rotary_factor": 0.25},
    "llama": GROUPED,
    "mistral": GROUPED | {"sliding_window": 8},
    "qwen2": GROUPED,
    "qwen3": GROUPED | {"head_dim": 16},
    "gemma2": GROUPED | {"head_dim": 16, "sliding_window": 8, "attn_logit_softcapping": 5.0},
    "olmo2": GROUPED,
    "gpt2": {"n_positions": 48},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 16, "init_std": 0.3},
    "bloom": {},
    "mpt": {"n_heads": HEADS, "n_layers": LAYERS, "d_model": WIDTH, "max_seq_len": 48, "logit_scale": 0.5},
    "gpt_neo": {"attention_types": [[["global", "local", "local"], 1]], "window_size": 8},
    "gptj": {"n_positions": 48, "rotary_dim": 4},
    "codegen": {"n_positions": 48, "rotary_dim": 4},
    "falcon": {},
    "falcon alibi": {"alibi": True, "multi_query": False},
    "falcon grouped": {"new_decoder_architecture": True, "num_kv_heads": 2},
    "bert": {},
    "t5": {"d_kv": 6, "d_ff": 64, "num_decoder_layers": 2, "num_layers": LAYERS, "num_heads": HEADS},
}  # fmt: skip
HOOKED = ("bloom", "mpt", "gpt_neo", "gptj", "codegen", "falcon", "falcon alibi", "falcon grouped")
DECODERS = tuple(name for name in FAMILIES if name not in ("bert", "t5"))

Layer = tuple[int, torch.Tensor]


def configuration(family: str) -> Any:
    kind = family.split()[0]
    usual = {key: value for key, value in USUAL.items() if not (kind == "mpt" and key == "hidden_size")}
    usual |= {"pad_token_id": 0, "decoder_start_token_id": 0} if kind == "t5" else {}
    return AutoConfig.for_model(kind, **(usual | FAMILIES[family]))


@cache
def built(family: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    torch.manual_seed(0)
    config = configuration(family)
    return auto_class(config).from_config(config, attn_implementation="eager", dtype=dtype).eval()


def some_ids(seed: int = 0, tokens: int = TOKENS) -> torch.Tensor:
    return torch.randint(0, WORDS, (2, tokens), generator=torch.Generator().manual_seed(seed))


def hooked(model: PreTrainedModel, ids: torch.Tensor) -> tuple[list[Layer], torch.Tensor]:
    arrived: list[Layer] = []
    with torch.inference_mode(), hooked_attention(model, lambda *layer: arrived.append(layer)):
        hidden = base_call(model, ids)
    return arrived, hidden


def eager_output(model: PreTrainedModel, ids: torch.Tensor) -> Any:
    with torch.inference_mode():
        return model.base_model(ids, output_attentions=True, use_cache=False)


@pytest.mark.parametrize("family", HOOKED)
def test_hooks_hand_out_what_the_model_computes(family: str):
    model = built(family)
    assert needs_hooks(model.config)
    arrived, hidden = hooked(model, some_ids())
    expected = eager_output(model, some_ids())
    assert [layer for layer, _ in arrived] == list(range(LAYERS))
    for (_, attention), one in zip(arrived, expected.attentions, strict=True):
        assert attention.dtype == torch.float32
        assert torch.equal(attention, one)
        assert (attention.triu(1) == 0).all()
        assert float(attention.std()) > 0.05
    assert torch.equal(hidden, expected.last_hidden_state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", HOOKED)
def test_half_precision_weights_give_the_softmax_before_it_is_rounded(family: str, dtype: torch.dtype):
    model = built(family, dtype)
    arrived, hidden = hooked(model, some_ids())
    expected = eager_output(model, some_ids())
    assert [layer for layer, _ in arrived] == list(range(LAYERS))
    for (_, attention), rounded in zip(arrived, expected.attentions, strict=True):
        assert (attention.dtype, rounded.dtype) == (torch.float32, dtype)
        # Falcon's own softmax in half precision rounds another way now and then.
        last_bit = torch.finfo(dtype).eps if family.startswith("falcon") else 0.0
        torch.testing.assert_close(attention.to(dtype), rounded, rtol=last_bit, atol=0.0)
        assert float((attention.sum(-1) - 1).abs().max()) < 1e-6
        assert float((rounded.float().sum(-1) - 1).abs().max()) > 1e-5
    assert torch.equal(hidden, expected.last_hidden_state)


def test_the_hooks_leave_with_the_last_context_and_touch_no_other_run():
    model = built("gpt_neo")
    expected = eager_output(model, some_ids()).attentions
    with hooked_attention(model, lambda *layer: None):
        others: list[Any] = []
        thread = threading.Thread(target=lambda: others.append(eager_output(model, some_ids()).attentions))
        thread.start()
        thread.join()
        assert all(torch.equal(one, other) for one, other in zip(expected, others[0], strict=True))
        with hooked_attention(model, lambda *layer: None):
            pass
        assert sum(len(module._forward_hooks) for module in model.modules()) == LAYERS
        assert eager_output(model, some_ids()).attentions == (None,) * LAYERS
    assert not any(module._forward_hooks for module in model.modules())
    assert eager_output(model, some_ids()).attentions[0] is not None


@pytest.mark.parametrize(("family", "dtype"), [("bloom", torch.float32), ("falcon", torch.float16)])
def test_passes_in_threads_that_stop_at_every_layer_keep_their_own_attention(family: str, dtype: torch.dtype):
    model, lengths = built(family, dtype), (24, 12, 6)
    step = threading.Barrier(len(lengths), timeout=30)
    found: dict[int, list[Layer]] = {}

    def run(length: int) -> None:
        mine: list[Layer] = []

        def receive(layer: int, attention: torch.Tensor) -> None:
            mine.append((layer, attention))
            step.wait()

        with torch.inference_mode(), hooked_attention(model, receive):
            base_call(model, some_ids(length, length))
        found[length] = mine

    threads = [threading.Thread(target=run, args=(length,)) for length in lengths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for length in lengths:
        alone, _ = hooked(model, some_ids(length, length))
        assert [layer for layer, _ in found[length]] == list(range(LAYERS))
        assert all(torch.equal(one, other) for (_, one), (_, other) in zip(found[length], alone, strict=True))
    assert not any(module._forward_hooks for module in model.modules())


def test_an_error_from_the_receiver_ends_the_pass_and_frees_the_model():
    def refuse(layer: int, attention: torch.Tensor) -> None:
        raise CheckpointError(f"layer {layer}")

    model = built("gptj")
    with pytest.raises(CheckpointError, match="layer 0"), hooked_attention(model, refuse):
        base_call(model, some_ids())
    assert not any(module._forward_hooks for module in model.modules())
    assert [layer for layer, _ in hooked(model, some_ids())[0]] == list(range(LAYERS))


def test_a_model_that_was_loaded_otherwise_is_set_to_eager_attention():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(configuration("falcon"), attn_implementation="sdpa").eval()
    ids = some_ids()
    arrived, _ = hooked(model, ids)
    assert all(
        torch.equal(one, other)
        for (_, one), other in zip(arrived, eager_output(model, ids).attentions, strict=True)
    )


def test_a_layer_without_probabilities_is_an_error():
    model = AutoModelForCausalLM.from_config(configuration("llama"), attn_implementation="sdpa")
    with hooked_attention(model, lambda *layer: None):
        model.set_attn_implementation("sdpa")
        with pytest.raises(CheckpointError, match="layer 0: LlamaAttention gives no attention prob"):
            base_call(model, some_ids())


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_are_numbered_as_they_run(family: str):
    """The order of output_attentions, encoder first, is the numbering; cross attention has no number."""
    model, ran = built(family), []
    watched = [each for each in model.named_modules() if "Attention" in type(each[1]).__name__]
    handles = [
        module.register_forward_hook(lambda module, *_: ran.append(layer_number(module, model)))
        for _, module in watched
    ]
    try:
        with torch.inference_mode():
            hidden = base_call(model, some_ids())
    finally:
        for handle in handles:
            handle.remove()
    count = len(causal_layers(model))
    assert [number for number in ran if number is not None] == list(range(count))
    assert len(self_attention_modules(model)) == count == model_facts(model).n_layers
    crossing = [module for name, module in watched if "EncDecAttention" in name]
    assert [layer_number(module, model) for module in crossing] == [None] * (2 if family == "t5" else 0)
    # OPT projects its last state down to the width of its embedding.
    assert hidden.shape == (2, TOKENS, 16 if family == "opt" else WIDTH)


def test_the_body_of_an_encoder_decoder_gets_the_same_ids_on_both_sides():
    model, ids = built("t5"), some_ids()
    with torch.inference_mode():
        whole: Any = model(input_ids=ids, decoder_input_ids=ids, output_hidden_states=True)
        assert torch.equal(base_call(model, ids), whole.decoder_hidden_states[-1])


RELATED: dict[str, dict[str, Any]] = {
    "roberta": USUAL | {"max_position_embeddings": 50, "pad_token_id": 0},
    "distilbert": {
        "vocab_size": WORDS, "dim": WIDTH, "n_heads": HEADS, "n_layers": LAYERS, "hidden_dim": 64,
    },
    "modernbert": USUAL | {"pad_token_id": 0},
    "bart": {
        "vocab_size": WORDS, "d_model": WIDTH, "encoder_layers": LAYERS, "decoder_layers": 2,
        "encoder_attention_heads": HEADS, "decoder_attention_heads": HEADS, "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64, "pad_token_id": 0,
    },
}  # fmt: skip


@pytest.mark.parametrize("family", RELATED)
def test_related_families_run_too(family: str):
    config = AutoConfig.for_model(family, **RELATED[family])
    model = auto_class(config).from_config(config, attn_implementation="eager").eval()
    facts = model_facts(model)
    layers = LAYERS + 2 if family == "bart" else LAYERS
    assert len(self_attention_modules(model)) == facts.n_layers == layers
    assert (facts.causal, facts.n_heads, facts.d_head) == (False, HEADS, WIDTH // HEADS)
    with torch.inference_mode():
        assert base_call(model, some_ids()).shape == (2, TOKENS, WIDTH)


FACTS: dict[str, tuple[Any, ...]] = {
    # family: n_layers, d_head, rotary_dims, position_encoding, causal, max_positions
    "gpt_neox": (3, 8, 2, "rotary", True, 48),
    "llama": (3, 8, 8, "rotary", True, 48),
    "mistral": (3, 8, 8, "rotary", True, 48),
    "qwen2": (3, 8, 8, "rotary", True, 48),
    "qwen3": (3, 16, 16, "rotary", True, 48),
    "gemma2": (3, 16, 16, "rotary", True, 48),
    "olmo2": (3, 8, 8, "rotary", True, 48),
    "gpt2": (3, 8, None, "learned", True, 48),
    "opt": (3, 8, None, "learned", True, 48),
    "bloom": (3, 8, None, "alibi", True, None),
    "mpt": (3, 8, None, "alibi", True, 48),
    "gpt_neo": (3, 8, None, "learned", True, 48),
    "gptj": (3, 8, 4, "rotary", True, 48),
    "codegen": (3, 8, 4, "rotary", True, 48),
    "falcon": (3, 8, 8, "rotary", True, 48),
    "falcon alibi": (3, 8, None, "alibi", True, None),
    "falcon grouped": (3, 8, 8, "rotary", True, 48),
    "bert": (3, 8, None, "learned", False, 48),
    "t5": (5, 6, None, "relative", False, None),
}
POSITION_ROWS = {"gpt2": 48, "opt": 50, "gpt_neo": 48, "bert": 48 + 2}
"""Rows of tables besides the tokens': OPT's has two more than positions, BERT's segments are two."""


@pytest.mark.parametrize("family", FAMILIES)
def test_facts(family: str):
    model = built(family)
    facts = asdict(model_facts(model))
    names = ("n_layers", "d_head", "rotary_dims", "position_encoding", "causal", "max_positions")
    assert tuple(facts[name] for name in names) == FACTS[family]
    assert (facts["n_heads"], facts["d_model"], facts["vocabulary"]) == (HEADS, WIDTH, WORDS)
    head: Any = model.get_output_embeddings()
    tokens: Any = model.get_input_embeddings()
    untied = 0 if head is None or head.weight is tokens.weight else head.weight.numel()
    buckets = 2 * 32 * HEADS if family == "t5" else 0
    tables = tokens.weight.numel() + untied + buckets + POSITION_ROWS.get(family, 0) * WIDTH
    assert facts["params_total"] == sum(p.numel() for p in model.parameters())
    assert facts["params_total"] - facts["params_non_embedding"] == tables


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "opt"])
def test_the_attention_has_the_shape_that_the_facts_give(family: str):
    model, ids = built(family), some_ids()
    facts = model_facts(model)
    with torch.inference_mode():
        if family == "t5":
            output: Any = model(input_ids=ids, decoder_input_ids=ids, output_attentions=True)
            attentions = (*output.encoder_attentions, *output.decoder_attentions)
        else:
            attentions = eager_output(model, ids).attentions
    assert len(attentions) == facts.n_layers
    for attention, causal in zip(attentions, causal_layers(model), strict=True):
        assert attention.shape == (2, facts.n_heads, TOKENS, TOKENS)
        assert bool((attention.triu(1) == 0).all()) == causal


@pytest.mark.parametrize("family", [name for name in FAMILIES if FACTS[name][5] is None])
def test_what_is_recorded_as_unbounded_runs_beyond_its_configured_length(family: str):
    assert base_call(built(family), some_ids(tokens=60)).isfinite().all()


@pytest.mark.parametrize("family", DECODERS)
def test_the_loss_is_the_model_s_own(family: str):
    model, ids = built(family), some_ids()
    facts = model_facts(model)
    with torch.inference_mode():
        logits = model(ids).logits.float()
        found = sequence_losses(model, base_call(model, ids), ids, facts)
    assert found is not None
    loss, _ = found
    assert facts.vocabulary * facts.d_model < facts.params_non_embedding, "not every position would be scored"
    expected = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    np.testing.assert_allclose(loss, expected.view(2, -1).double().mean(1), rtol=1e-5)


@pytest.mark.parametrize(
    ("family", "hooked"),
    [("gpt_neox", False), ("gpt_neox", True), ("gptj", False), ("gptj", True), ("gemma2", False)],
)
def test_the_loss_does_not_depend_on_the_slices_of_the_vocabulary(
    family: str, hooked: bool, monkeypatch: pytest.MonkeyPatch
):
    model, ids = built(family), some_ids()
    facts = model_facts(model)
    with torch.inference_mode():
        hidden = base_call(model, ids)
        whole = sequence_losses(model, hidden, ids, facts)
    monkeypatch.setattr("tracker.models.loss.SLICE", (5, 7))
    head: Any = model.get_output_embeddings()
    handle = head.register_forward_hook(lambda *given: given[-1] + 1) if hooked else None
    with torch.inference_mode():
        parts = sequence_losses(model, hidden, ids, facts)
    if handle is not None:
        handle.remove()  # adding one to every logit changes no loss
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "fields", "expected"),
    [
        ("llama", {}, AutoModelForCausalLM),
        ("bloom", {"architectures": ["BloomModel"]}, AutoModelForCausalLM),
        ("bert", {"architectures": ["BertForPreTraining"]}, AutoModelForMaskedLM),
        ("bert", {"architectures": ["BertModel"]}, AutoModel),
        ("bert", {"architectures": ["BertLMHeadModel"], "is_decoder": True}, AutoModelForCausalLM),
        ("t5", {"architectures": ["T5WithLMHeadModel"]}, AutoModelForSeq2SeqLM),
        ("t5", {"architectures": ["T5Model"]}, AutoModel),
        ("bart", {}, AutoModelForSeq2SeqLM),
    ],
)
def test_the_auto_class_fits_the_files(kind: str, fields: dict[str, Any], expected: Callable[..., Any]):
    assert auto_class(AutoConfig.for_model(kind, **fields)) is expected


def test_a_bert_used_as_a_decoder_is_causal():
    config = AutoConfig.for_model("bert", **(USUAL | {"is_decoder": True}))
    assert causal_layers(auto_class(config).from_config(config)) == [True] * LAYERS


def test_a_model_without_attention_heads_is_refused_by_name():
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("mamba", hidden_size=16, num_hidden_layers=1, vocab_size=WORDS)
    )
    with pytest.raises(CheckpointError, match="mamba gives num_attention_heads=None"):
        model_facts(model)


def test_a_real_model(real: Path):
    """Grouped queries: 8 query heads on 4 of keys and values."""
    model = AutoModelForCausalLM.from_pretrained(real / "stories260k", attn_implementation="eager")
    facts = model_facts(model)
    assert (facts.n_layers, facts.n_heads, facts.d_model, facts.d_head) == (5, 8, 64, 8)
    assert (facts.position_encoding, facts.rotary_dims, facts.causal) == ("rotary", 8, True)
