"""A fresh GPT-NeoX model as Pythia initialises it."""

import math

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from tracker.nano.recipe import NanoRecipe, Size

_INTO_THE_STREAM = ("attention.dense.weight", "mlp.dense_4h_to_h.weight")


def configuration(recipe: NanoRecipe, size: Size, vocab: int) -> GPTNeoXConfig:
    """The Hugging Face configuration of one size; token 0 begins and ends texts."""
    return GPTNeoXConfig(
        vocab_size=vocab,
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.width,
        max_position_embeddings=recipe.tokens,
        use_parallel_residual=True,
        tie_word_embeddings=False,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10000.0,
            "partial_rotary_factor": recipe.rotary_pct,
        },
        use_cache=False,
        bos_token_id=0,
        eos_token_id=0,
    )


def fresh(recipe: NanoRecipe, size: Size, vocab: int, seed: int) -> GPTNeoXForCausalLM:
    """An untrained model, the same for the same seed, float32.

    small-init (normal, sd sqrt(2 / (5 width))) for both embeddings, queries, keys, values and the way
    up; wang-init (sd 2 / (layers sqrt(width))) for the two projections into the residual stream; biases
    0, norms 1. Source: GPT-NeoX, ``small_init`` and ``wang_init``, as named in Pythia's configurations.
    """
    model = GPTNeoXForCausalLM(configuration(recipe, size, vocab))
    generator = torch.Generator().manual_seed(seed)
    small = math.sqrt(2 / (5 * size.width))
    wang = 2 / (size.layers * math.sqrt(size.width))
    with torch.no_grad():
        for name, weights in sorted(model.named_parameters()):
            if weights.ndim == 2:
                sd = wang if name.endswith(_INTO_THE_STREAM) else small
                weights.normal_(0, sd, generator=generator)
            else:
                weights.fill_(1.0 if name.endswith("norm.weight") or "layernorm.weight" in name else 0.0)
    return model


def decay_groups(model: torch.nn.Module, weight_decay: float) -> list[dict]:
    """Parameter groups for the optimizer: matrices decay, biases and norms do not (as in GPT-NeoX)."""
    matrices = [weights for weights in model.parameters() if weights.ndim == 2]
    others = [weights for weights in model.parameters() if weights.ndim != 2]
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
