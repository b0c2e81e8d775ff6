"""What kind of model it is: the facts of its architecture that the checkpoint table records."""

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

POSITION_ENCODINGS = {
    "gpt2": "learned",
    "opt": "learned",
    "gpt_neo": "learned",
    "bloom": "alibi",
    "mpt": "alibi",
}
"""By model_type, where the configuration does not tell; those with rope parameters are rotary."""


@dataclass(frozen=True)
class ModelFacts:
    """Architecture of a model, as the checkpoint table records it."""

    params_total: int
    params_non_embedding: int
    n_layers: int
    n_heads: int
    d_model: int
    d_head: int
    rotary_dims: int | None
    position_encoding: str
    causal: bool
    vocabulary: int
    max_positions: int | None


def model_facts(model: PreTrainedModel) -> ModelFacts:
    """The architecture of a loaded model; embeddings are those of tokens in and out, and of positions."""
    config = model.config
    d_head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = getattr(config, "rope_parameters", None)
    rotary = int(d_head * rope.get("partial_rotary_factor", 1.0)) if rope else None
    encoding = "rotary" if rope else POSITION_ENCODINGS.get(config.model_type, "unknown")
    total = sum(p.numel() for p in model.parameters())
    tokens: Any = model.get_input_embeddings()
    embeddings = {
        id(module.weight): module.weight.numel()
        for module in (*_position_tables(model), tokens, model.get_output_embeddings())
        if module is not None
    }
    return ModelFacts(
        params_total=total,
        params_non_embedding=total - sum(embeddings.values()),
        n_layers=config.num_hidden_layers,
        n_heads=config.num_attention_heads,
        d_model=config.hidden_size,
        d_head=d_head,
        rotary_dims=rotary,
        position_encoding=encoding,
        causal=True,
        vocabulary=tokens.weight.shape[0],
        max_positions=getattr(config, "max_position_embeddings", None),
    )


def _position_tables(model: PreTrainedModel) -> list[Any]:
    return [
        module
        for name, module in model.named_modules()
        if name.rsplit(".", 1)[-1] in ("wpe", "embed_positions") and hasattr(module, "weight")
    ]
