"""Facts of a model's architecture, as the checkpoint table records them."""

from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForMultimodalLM,
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from tracker.errors import CheckpointError
from tracker.models.attention_modules import (
    attention_modules_by_name,
    self_attention_modules,
    text_body,
    text_config,
)
from tracker.models.position_bias import MODEL_TYPE

POSITION_ENCODINGS = {
    "gpt2": "learned",
    "gpt_bigcode": "learned",
    "gpt_neo": "learned",
    "opt": "learned",
    "bert": "learned",
    "roberta": "learned",
    "distilbert": "learned",
    "electra": "learned",
    "albert": "learned",
    "bart": "learned",
    "bloom": "alibi",
    "mpt": "alibi",
    "t5": "relative",
    "mt5": "relative",
    "umt5": "relative",
    "longt5": "relative",
    "switch_transformers": "relative",
    "openai-gpt": "learned",
    "xlm": "learned",
    "mpnet": "learned",
    "jamba": "none",
    "nemotron_h": "none",
    "roformer": "rotary",
    "gptj": "rotary",
    "codegen": "rotary",
}
"""By model_type, where the configuration has neither an ALiBi flag nor rope parameters."""
UNBOUNDED = ("alibi", "relative", "none")
"""Position encodings that need no table as long as the sequence."""


@dataclass(frozen=True)
class ModelFacts:
    """Architecture of a model, as the checkpoint table records it."""

    params_total: int
    params_non_embedding: int
    n_layers: int
    attention_layers: str | None
    n_heads: int
    d_model: int
    d_head: int
    rotary_dims: int | None
    position_encoding: str
    causal: bool
    vocabulary: int
    max_positions: int | None


def model_facts(model: PreTrainedModel) -> ModelFacts:
    """Return the architecture of a loaded model.

    ``n_heads`` counts queries' heads, whatever keys and values they share. Embeddings, which
    ``params_non_embedding`` leaves out, are all tables looked up by an index (tokens, positions, segments,
    T5's distance buckets) and the vocabulary head; a tied one counts once. Of a model that also reads images
    or sound, the language model counts. ``n_layers`` counts layers with attention; ``attention_layers`` names
    them, from 0, where others have none.

    Raises:
        CheckpointError: the configuration does not name a size that every transformer has, or no layer has
            attention.
    """
    config: Any = text_config(model.config)
    heads, width = _size(config, "num_attention_heads"), _size(config, "hidden_size")
    d_head = int(getattr(config, "head_dim", None) or width // heads)
    encoding = position_encoding(config)
    causal = causal_layers(model)
    text, head = text_body(model), model.get_output_embeddings()
    counted = [*text.parameters(), *(head.parameters() if head is not None else ())]
    total = sum({id(p): p.numel() for p in counted}.values())
    tokens: Any = model.get_input_embeddings()
    return ModelFacts(
        params_total=total,
        params_non_embedding=total - _embedding_parameters(model),
        n_layers=len(causal),
        attention_layers=_attention_layers(model, config),
        n_heads=heads,
        d_model=width,
        d_head=d_head,
        rotary_dims=rotary_dims(config, d_head) if encoding == "rotary" else None,
        position_encoding=encoding,
        causal=all(causal),
        vocabulary=tokens.weight.shape[0],
        max_positions=_max_positions(model, encoding),
    )


def position_encoding(config: Any) -> str:
    """Return one of rotary, learned, alibi, relative, none, unknown."""
    if config.model_type == MODEL_TYPE:
        return config.position_encoding
    # Falcon's configuration keeps rope parameters that its ALiBi variant never uses.
    if getattr(config, "alibi", False):
        return "alibi"
    rope: Any = getattr(config, "rope_parameters", None)
    if rope:
        return "none" if rope.get("partial_rotary_factor") == 0 else "rotary"
    return POSITION_ENCODINGS.get(config.model_type, "unknown")


def causal_layers(model: PreTrainedModel) -> list[bool]:
    """Return, per self-attention layer in the order in which they run, whether it must not look ahead.

    An encoder-decoder has its encoder's layers first, then its decoder's; cross attention is none of them,
    nor are a hybrid's layers without attention.

    Raises:
        CheckpointError: no layer has attention.
    """
    modules = self_attention_modules(model)
    if not modules:
        raise CheckpointError(
            f"{type(model).__name__} has no layer with attention: nothing to measure; leave it out"
        )
    config: Any = model.config
    if getattr(config, "is_encoder_decoder", False):
        encoder = set(model.get_encoder().modules())
        return [module not in encoder for module in modules]
    return [not _is_encoder(config)] * len(modules)


def _attention_layers(model: PreTrainedModel, config: Any) -> str | None:
    """Which blocks have attention, where not all do: ``1, 3``."""
    names = attention_modules_by_name(model)
    blocks = [next((part for part in name.split(".") if part.isdigit()), "?") for name in names]
    some = not getattr(config, "is_encoder_decoder", False) and len(names) < config.num_hidden_layers
    return ", ".join(blocks) if some else None


def auto_class(config: Any) -> Any:
    """Return the Auto class that loads a checkpoint whole: with its head where its files have one."""
    bare = any(
        name.endswith("Model") and not name.endswith("HeadModel")
        for name in getattr(config, "architectures", None) or ()
    )
    if getattr(config, "is_encoder_decoder", False):
        headed = config.model_type in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
        return AutoModelForSeq2SeqLM if headed and not bare else AutoModel
    if _is_encoder(config):
        headed = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
        return AutoModelForMaskedLM if headed and not bare else AutoModel
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and _reads_images(config):
        return AutoModelForMultimodalLM
    return AutoModelForCausalLM


def model_class(config: Any) -> Any:
    """Return the class that is loaded for a configuration; None where transformers has none."""
    try:
        found = auto_class(config)._model_mapping[type(config)]
    except (KeyError, ImportError):
        return None
    return found[0] if isinstance(found, tuple) else found


def _reads_images(config: Any) -> bool:
    return config.model_type in MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES


def _is_encoder(config: Any) -> bool:
    """BERT and related families are among transformers' causal models too, for use as decoders."""
    kind = config.model_type
    decoder = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or _reads_images(config) or _is_decoder_body(config)
    known = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES or not decoder
    return kind != MODEL_TYPE and known and not getattr(config, "is_decoder", False)


def _is_decoder_body(config: Any) -> bool:
    """The language model that lies inside one that reads images is no family of its own."""
    return config.model_type.removesuffix("_text") in MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES


def _size(config: Any, field: str) -> int:
    value = getattr(config, field, None)
    if not isinstance(value, int) or value < 1:
        raise CheckpointError(
            f"the configuration of {config.model_type} gives {field}={value}, so its attention cannot be "
            "counted; the architecture is not supported"
        )
    return value


def rotary_dims(config: Any, d_head: int) -> int:
    """Return how many dimensions of a head rotate; Gemma 3 has parameters per kind of layer, which agree."""
    if hasattr(config, "rotary_dim"):
        return config.rotary_dim or d_head
    rope: Any = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in rope.values() if isinstance(value, dict)]
    factor = (nested[0] if nested else rope).get("partial_rotary_factor")
    return int(d_head * (factor or getattr(config, "partial_rotary_factor", None) or 1.0))


def _max_positions(model: PreTrainedModel, encoding: str) -> int | None:
    config: Any = text_config(model.config)
    # MPT's bias is a table of this length, though ALiBi itself would need none.
    if hasattr(config, "max_seq_len"):
        return config.max_seq_len
    positions = getattr(config, "max_position_embeddings", None)
    if encoding in UNBOUNDED or positions is None or positions < 1:  # XLNet: -1
        return None
    return positions - _first_position(model)


def _first_position(model: PreTrainedModel) -> int:
    """The row of the first token: Roberta and its kin count positions from behind the padding's on."""
    named = (
        (name, module)
        for name, module in text_body(model).named_modules()
        if isinstance(module, nn.Embedding)
    )
    found = next((table for name, table in named if name.endswith("position_embeddings")), None)
    return 0 if found is None or found.padding_idx is None else found.padding_idx + 1


def _embedding_parameters(model: PreTrainedModel) -> int:
    tables: list[Any] = [module for module in text_body(model).modules() if isinstance(module, nn.Embedding)]
    tables += [model.get_input_embeddings(), model.get_output_embeddings()]
    weights = {id(table.weight): table.weight.numel() for table in tables if table is not None}
    return sum(weights.values())
