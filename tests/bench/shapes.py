"""The models that are timed: Pythia's shapes with random weights, since time does not depend on values."""

from dataclasses import dataclass

import numpy as np
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

PREFIX_SEQUENCES, PREFIX_BLOCK = 4, 50


@dataclass(frozen=True)
class Shape:
    """A GPT-NeoX model and the tokens it reads: ``batch`` sequences of ``n``."""

    layers: int
    d_model: int
    heads: int
    intermediate: int
    vocabulary: int
    n: int
    batch: int
    device: str = "cpu"
    dtype: str = "float32"


SHAPES = {
    "tiny": Shape(2, 32, 4, 64, 160, n=96, batch=8),
    "14m": Shape(6, 128, 4, 512, 50304, n=96, batch=16),
    "70m": Shape(6, 512, 8, 2048, 50304, n=512, batch=8),
    "160m": Shape(12, 768, 12, 3072, 50304, n=96, batch=16),
    "410m": Shape(24, 1024, 16, 4096, 50304, n=1024, batch=8),
}
"""By name; ``tiny`` serves the test of the benchmark itself."""


def random_model(shape: Shape) -> GPTNeoXForCausalLM:
    """The same weights for the same shape in every process, in evaluation mode on the shape's device.

    Query and key weights are wider than at initialisation, so that heads differ and attention is not flat.
    """
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.d_model,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.intermediate,
        rotary_pct=0.25,
        max_position_embeddings=2048,
        architectures=["GPTNeoXForCausalLM"],
    )
    with torch.device(shape.device):
        model = GPTNeoXForCausalLM(config)
        for name, parameter in model.named_parameters():
            if name.endswith("query_key_value.weight"):
                parameter.data.normal_(std=1.5 / shape.d_model**0.5)
    return model.to(getattr(torch, shape.dtype)).eval()


def random_ids(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Token ids (batch, n), and those of prefix matching (4, 100): a block twice; int64."""
    draw = np.random.default_rng(0)
    block = draw.integers(0, shape.vocabulary, (PREFIX_SEQUENCES, PREFIX_BLOCK))
    return draw.integers(0, shape.vocabulary, (shape.batch, shape.n)), np.tile(block, (1, 2))
