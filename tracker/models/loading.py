"""A checkpoint's files into a model that is ready to be measured, and the facts of its architecture."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from tracker.errors import CheckpointError, unknown_value
from tracker.models.capture import IMPLEMENTATION

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
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


def load_model(path: Path, *, dtype: str = "float32", device: str = "cpu") -> PreTrainedModel:
    """Loads a checkpoint folder as a causal language model, in evaluation mode.

    Args:
        path: a folder in Hugging Face layout.
        dtype: a key of ``DTYPES``; always given on, since Pythia would otherwise load as float16.
        device: where torch puts it.

    Raises:
        RequestError: unknown dtype.
        CheckpointError: the files do not load, leave weights out, or hold NaN; names the tensor.
    """
    if dtype not in DTYPES:
        raise unknown_value("dtype", dtype, DTYPES)
    with _QuietTransformers():
        try:
            config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
            _standardise(config)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                path,
                config=config,
                dtype=DTYPES[dtype],
                attn_implementation=IMPLEMENTATION,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except KeyError as error:
            raise CheckpointError(
                f"{path}: the architecture does not read its attention through transformers' attention "
                f"interface (unknown there: {error}); it is not supported"
            ) from error
        except Exception as error:
            reason = " ".join(str(error).split())[:400]
            raise CheckpointError(f"{path} does not load: {type(error).__name__}: {reason}") from error
    model, told = loaded
    _refuse_gaps(path, told)
    _refuse_nan(path, model)
    return model.to(torch.device(device)).eval()


def _standardise(config: PreTrainedConfig) -> None:
    """Dropout off in the configuration too, so that nothing depends on the training mode."""
    for field in ("attention_dropout", "hidden_dropout", "resid_pdrop", "attn_pdrop", "embd_pdrop"):
        if hasattr(config, field):
            setattr(config, field, 0.0)


def _refuse_gaps(path: Path, told: dict[str, Any]) -> None:
    """transformers fills absent weights with random ones and only logs it: here that is an error."""
    for kind in ("missing_keys", "mismatched_keys"):
        names = sorted(str(name) for name in told.get(kind) or ())
        if names:
            raise CheckpointError(
                f"{path}: weights do not fit the configuration: {kind.replace('_', ' ')} "
                f"{', '.join(names[:3])}{' ...' if len(names) > 3 else ''}; is it another architecture's?"
            )


def _refuse_nan(path: Path, model: PreTrainedModel) -> None:
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter.detach().sum()) and not parameter.detach().isfinite().all():
            raise CheckpointError(f"{path}: weights hold NaN or infinite values in {name}")


class _QuietTransformers:
    """transformers tells of unexpected keys and slow paths on stderr; what matters becomes an error here."""

    def __enter__(self) -> None:
        self._level = transformers_logging.get_verbosity()
        self._bars = transformers_logging.is_progress_bar_enabled()
        transformers_logging.set_verbosity(logging.ERROR)
        transformers_logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        transformers_logging.set_verbosity(self._level)
        if self._bars:
            transformers_logging.enable_progress_bar()


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
