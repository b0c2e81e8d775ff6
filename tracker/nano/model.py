"""A fresh GPT-NeoX model as Pythia initialises it, or one that differs from it in its position encoding."""

import math
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    GPT2Config,
    GPTNeoXConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from tracker.models.position_bias import PositionedNeoXConfig
from tracker.nano.encoding import ROTARY, Encoding
from tracker.nano.recipe import NanoRecipe, Size

_INTO_THE_STREAM = (
    "attention.dense.weight",  # GPT-NeoX, Bloom
    "mlp.dense_4h_to_h.weight",
    "attn.c_proj.weight",  # GPT-2
    "mlp.c_proj.weight",
)
_POSITIONS = ("embed_positions.weight", "relative_bias.weight")
"""What one encoding has and another has not: drawn apart, so that all else starts the same."""
_NO_ROTATION = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.0}


def configuration(
    recipe: NanoRecipe, size: Size, vocab: int, encoding: Encoding | None = None
) -> PreTrainedConfig:
    """Return the Hugging Face configuration of one size; token 0 begins and ends texts."""
    encoding = encoding or Encoding(ROTARY)
    same: dict[str, Any] = {
        "vocab_size": vocab,
        "tie_word_embeddings": False,
        "attention_dropout": 0.0,
        "use_cache": False,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    if encoding.kind == "gpt2":
        return GPT2Config(
            **{name: value for name, value in same.items() if name != "attention_dropout"},
            n_embd=size.width, n_layer=size.layers, n_head=size.heads, n_positions=recipe.tokens,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )  # fmt: skip
    if encoding.kind == "bloom":
        return BloomConfig(**same, hidden_size=size.width, n_layer=size.layers, n_head=size.heads)
    same |= {
        "hidden_size": size.width,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "intermediate_size": 4 * size.width,
        "max_position_embeddings": recipe.tokens,
        "use_parallel_residual": True,
        "hidden_dropout": 0.0,
    }
    if encoding.kind != ROTARY:
        return PositionedNeoXConfig(
            **same, position_encoding=encoding.kind, rope_parameters=dict(_NO_ROTATION)
        )
    share = recipe.rotary_pct if encoding.rotary_pct is None else encoding.rotary_pct
    return GPTNeoXConfig(
        **same,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": encoding.base,
            "partial_rotary_factor": share,
        },
    )


def fresh(
    recipe: NanoRecipe, size: Size, vocab: int, seed: int, encoding: Encoding | None = None
) -> PreTrainedModel:
    """Make an untrained model, float32: the same for the same seed and, except for what encodes positions,
    for every encoding of GPT-NeoX's body.

    small-init (normal, sd sqrt(2 / (5 width))) for both embeddings, queries, keys, values and the way
    up; wang-init (sd 2 / (layers sqrt(width))) for the two projections into the residual stream; biases
    0, norms 1. Source: GPT-NeoX, ``small_init`` and ``wang_init``, as named in Pythia's configurations.
    A table of positions is drawn as the other embeddings; a relative bias with sd 1 / sqrt(width), as T5's.
    """
    model = AutoModelForCausalLM.from_config(configuration(recipe, size, vocab, encoding))
    generator, apart = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed)
    small = math.sqrt(2 / (5 * size.width))
    wang = 2 / (size.layers * math.sqrt(size.width))
    with torch.no_grad():
        for name, weights in sorted(model.named_parameters()):
            if name.endswith(_POSITIONS):
                sd = 1 / math.sqrt(size.width) if "relative" in name else small
                weights.normal_(0, sd, generator=apart)
            elif weights.ndim == 2:
                sd = wang if name.endswith(_INTO_THE_STREAM) else small
                weights.normal_(0, sd, generator=generator)
            else:
                weights.fill_(1.0 if _is_norm(name) else 0.0)
    return model


def _is_norm(name: str) -> bool:
    """GPT-2 calls its norms ln_1, ln_2 and ln_f."""
    return name.endswith(".weight") and ("norm." in name or ".ln_" in name)


def decay_groups(model: torch.nn.Module, weight_decay: float) -> list[dict]:
    """Return parameter groups for the optimizer: matrices decay; biases (of attention too) and norms do not.

    Source: GPT-NeoX's ``get_params_for_weight_decay_optimization``.
    """
    matrices, others = [], []
    for name, weights in model.named_parameters():
        decays = weights.ndim == 2 and not name.endswith("relative_bias.weight")
        (matrices if decays else others).append(weights)
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
