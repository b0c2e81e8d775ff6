"""Hybrids, learned sinks, models that read images, and families without the interface: as eager attention."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoConfig, PreTrainedModel

import tracker
from tracker.errors import CheckpointError
from tracker.models import AttentionStream, model_facts
from tracker.models.architecture import auto_class
from tracker.models.loading import load_model
from tracker.models.streaming import stream_model

WORDS, TOKENS = 64, 32
USUAL: dict[str, Any] = {
    "vocab_size": WORDS, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4,
    "intermediate_size": 64, "max_position_embeddings": 128, "initializer_range": 0.3, "pad_token_id": None,
    "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
GROUPED = USUAL | {"num_key_value_heads": 2}
MAMBA = {
    "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_expand": 2,
    "mamba_chunk_size": 8,
}  # fmt: skip
DELTA = {
    "head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "layer_types": ["linear_attention", "full_attention"] * 2,
}  # fmt: skip
EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 1}
SLIDING = {"head_dim": 8, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"] * 2}
GEMMA = SLIDING | {
    "hidden_size_per_layer_input": 4, "vocab_size_per_layer_input": WORDS, "num_kv_shared_layers": 0,
}  # fmt: skip

HYBRIDS: dict[str, dict[str, Any]] = {
    "jamba": GROUPED | {
        "attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2, "mamba_d_state": 4,
        "mamba_d_conv": 2, "use_mamba_kernels": False,
    },
    "recurrent_gemma": GROUPED | {
        "lru_width": 32, "attention_window_size": 8, "block_types": ["recurrent", "attention"], "head_dim": 8,
    },
    "minimax": GROUPED | {
        "head_dim": 8, "num_local_experts": 2, "block_size": 8,
        "layer_types": ["linear_attention", "full_attention"] * 2,
    },
    "bamba": GROUPED | MAMBA | {"attn_layer_indices": [1, 3]},
    "granitemoehybrid": GROUPED | MAMBA | EXPERTS | {
        "layer_types": ["mamba", "attention"] * 2, "shared_intermediate_size": 32,
    },
    "qwen3_next": GROUPED | DELTA | {
        "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
    },
    "qwen3_5_text": GROUPED | DELTA,
    "olmo_hybrid": GROUPED | {"layer_types": ["linear_attention", "full_attention"] * 2},
    "lfm2": GROUPED | {"layer_types": ["conv", "full_attention"] * 2, "block_ff_dim": 64},
    "zamba2": USUAL | {
        "layers_block_type": ["mamba", "hybrid"] * 2, "hybrid_layer_ids": [1, 3], "mamba_d_state": 8,
        "n_mamba_heads": 4, "mamba_ngroups": 1, "chunk_size": 8, "num_mem_blocks": 1,
        "num_key_value_heads": 4,
    },
}  # fmt: skip
WHOLE: dict[str, dict[str, Any]] = {
    "gpt_oss": GROUPED | EXPERTS | {"head_dim": 8, "sliding_window": 8},
    "falcon_h1": GROUPED | MAMBA | {"head_dim": 8, "mamba_d_ssm": 32, "mamba_d_head": 8},
    "openai-gpt": {"vocab_size": WORDS, "n_positions": 128, "n_embd": 32, "n_layer": 4, "n_head": 4},
    "xglm": {
        "vocab_size": WORDS, "d_model": 32, "num_layers": 4, "attention_heads": 4, "ffn_dim": 64,
        "max_position_embeddings": 128, "init_std": 0.3, "pad_token_id": 1,
    },
    "gpt_neox_japanese": {name: value for name, value in USUAL.items() if name != "intermediate_size"}
    | {"intermediate_multiple_size": 2},
    "roformer": USUAL | {"pad_token_id": 0, "embedding_size": 32},
    "mpnet": USUAL | {"pad_token_id": 1},
    "deberta-v2": USUAL | {"pad_token_id": 0},
    "gemma4_text": GROUPED | GEMMA | {"global_head_dim": 8},
    "gemma3n_text": GROUPED | GEMMA | {
        "laurel_rank": 4, "activation_sparsity_pattern": [0.0] * 4, "intermediate_size": [64] * 4,
    },
    "llama4_text": GROUPED | {"head_dim": 8, "num_local_experts": 2, "intermediate_size_mlp": 64},
}  # fmt: skip
TEXT = GROUPED | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
VISION = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "image_size": 16, "patch_size": 8,
}  # fmt: skip
QWEN = {
    "image_token_id": 60, "video_token_id": 61, "vision_start_token_id": 62, "vision_end_token_id": 63,
    "text_config": TEXT | {
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0},
    },
}  # fmt: skip
MULTIMODAL: dict[str, dict[str, Any]] = {
    "gemma3": {
        "text_config": TEXT | SLIDING, "vision_config": VISION, "mm_tokens_per_image": 4,
        "boi_token_index": 61, "eoi_token_index": 62, "image_token_index": 60,
    },
    "qwen2_vl": QWEN | {
        "vision_config": {
            "depth": 2, "embed_dim": 32, "num_heads": 4, "mlp_ratio": 2, "hidden_size": 32, "patch_size": 8,
        },
    },
    "llava": {
        "text_config": TEXT | {"model_type": "llama"}, "image_token_index": 60,
        "vision_config": VISION | {"model_type": "clip_vision_model"},
    },
    "idefics3": {
        "text_config": TEXT | {"model_type": "llama"}, "vision_config": VISION, "image_token_id": 60,
    },
}  # fmt: skip


def built(family: str, fields: dict[str, Any]) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **fields)
    model = auto_class(config).from_config(config, attn_implementation="eager").eval()
    for weights in model.parameters():
        if weights.ndim >= 2 and float(weights.detach().std()) < 0.1:
            torch.nn.init.normal_(weights, std=0.2)
    return model


def ids() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(3, 50, (2, TOKENS)))


def eager(model: PreTrainedModel) -> tuple[list[torch.Tensor], Any]:
    """The model's own attention where it is one of every query over every key, and its logits."""
    with torch.inference_mode():
        found: Any = model(input_ids=ids(), output_attentions=True, use_cache=False)
    square = (TOKENS, TOKENS)
    return [each for each in found.attentions if each is not None and each.shape[-2:] == square], found.logits


def check(model: PreTrainedModel) -> Any:
    """Compare attention and loss with the model's own; return the measurement."""
    maps, logits = eager(model)
    facts = model_facts(model)
    assert len(maps) == facts.n_layers
    measured = tracker.track(model, ids())
    with torch.inference_mode():
        layers = [attention.whole() for _, (attention,) in AttentionStream(model, [ids()])]
    for found, expected in zip(layers, maps, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    if facts.causal:
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids()[:, 1:].flatten())
        assert measured.summary["loss"].item() == pytest.approx(float(loss), abs=1e-4)
    else:
        assert measured.summary["loss"].item() is None
    return measured


@pytest.mark.parametrize("family", HYBRIDS)
def test_the_layers_of_a_hybrid_that_have_attention_are_measured(family: str):
    summary = check(built(family, HYBRIDS[family])).summary
    assert summary.select("n_layers", "attention_layers").row(0) == (2, "1, 3")


@pytest.mark.parametrize("family", WHOLE)
def test_other_families_measure_as_eager_attention(family: str):
    measured = check(built(family, WHOLE[family]))
    assert measured.summary.select("n_layers", "attention_layers").row(0) == (4, None)
    assert (measured.heads["learned_sink_share"].null_count() == 0) == (family == "gpt_oss")


def test_the_mass_of_a_learned_sink_is_a_column_of_its_own():
    model = built("gpt_oss", WHOLE["gpt_oss"])
    maps, _ = eager(model)
    expected = torch.stack([1 - each.sum(-1).mean((0, 2)) for each in maps]).flatten()
    found = tracker.track(model, ids()).heads["learned_sink_share"].to_numpy()
    assert float(expected.min()) > 0.01
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("family", MULTIMODAL)
def test_the_language_model_of_one_that_reads_images_is_measured(family: str, tmp_path: Path):
    model = built(family, MULTIMODAL[family])
    bare = check(model)
    language: Any = model.get_decoder()
    head: Any = model.get_output_embeddings()
    assert bare.summary["params_total"].item() == sum(
        {id(p): p.numel() for p in (*language.parameters(), *head.parameters())}.values()
    )
    assert bare.summary.select("n_layers", "n_heads", "d_model", "causal").row(0) == (4, 4, 32, True)
    model.set_attn_implementation("sdpa")
    model.save_pretrained(tmp_path)
    for load in (load_model, stream_model):
        found = tracker.track(load(tmp_path), ids())
        assert found.heads.drop("model").equals(bare.heads.drop("model")), load.__name__


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        ("fnet", USUAL, "FNetForMaskedLM has no layer with attention"),
        (
            "longformer",
            USUAL | {"attention_window": 8, "pad_token_id": 1},
            "gives no attention probabilities of",
        ),
        ("diffllama", GROUPED, "computes more than one attention in it"),
        ("xlnet", {"vocab_size": WORDS, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}, "XLNet"),
    ],
)
def test_what_cannot_be_measured_exactly_is_refused_in_one_line(family: str, fields: dict, message: str):
    with pytest.raises(CheckpointError, match=message) as caught:
        tracker.track(built(family, fields), ids())
    assert "\n" not in str(caught.value)
