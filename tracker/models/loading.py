"""A checkpoint's files into a model that is ready to be measured."""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from tracker.errors import CheckpointError, unknown_value
from tracker.models.architecture import auto_class
from tracker.models.attention_hooks import needs_hooks
from tracker.models.attention_interface import IMPLEMENTATION

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def load_model(path: Path, *, dtype: str = "float32", device: str = "cpu") -> PreTrainedModel:
    """Loads a checkpoint folder as a language model, in evaluation mode.

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
    with QuietTransformers():
        try:
            config = read_config(path)
            loaded: Any = auto_class(config).from_pretrained(
                path,
                config=config,
                dtype=DTYPES[dtype],
                attn_implementation=attention_of(config),
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                # Only so that the tensor can be named below.
                ignore_mismatched_sizes=True,
            )
        except CheckpointError:
            raise
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
    refuse_nan(path, model)
    return model.to(torch.device(device)).eval()


def read_config(path: Path) -> Any:
    """A checkpoint's configuration, dropout off.

    Raises:
        CheckpointError: the architecture has no attention.
    """
    config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    if not getattr(config, "num_attention_heads", None):
        raise CheckpointError(
            f"{path}: a model of type {config.model_type} has no attention heads, so there is nothing to "
            "measure; leave it out"
        )
    _standardise(config)
    return config


def attention_of(config: PreTrainedConfig) -> str:
    """The attention implementation by which a model hands out its attention."""
    return "eager" if needs_hooks(config) else IMPLEMENTATION


def _standardise(config: PreTrainedConfig) -> None:
    """Dropout off in the configuration too, so that nothing depends on the training mode."""
    for field in ("attention_dropout", "hidden_dropout", "resid_pdrop", "attn_pdrop", "embd_pdrop"):
        if hasattr(config, field):
            setattr(config, field, 0.0)


def _refuse_gaps(path: Path, told: dict[str, Any]) -> None:
    """transformers fills absent weights with random ones and only logs it: here that is an error."""
    for kind in ("missing_keys", "mismatched_keys"):
        names = sorted(str(key[0] if isinstance(key, tuple) else key) for key in told.get(kind) or ())
        if names:
            raise CheckpointError(
                f"{path}: weights do not fit the configuration: {kind.replace('_', ' ')} "
                f"{', '.join(names[:3])}{' ...' if len(names) > 3 else ''}; is it another architecture's?"
            )


def refuse_nan(path: Path, model: PreTrainedModel) -> None:
    """Refuses weights that are not numbers.

    Raises:
        CheckpointError: names the tensor.
    """
    for name, parameter in model.named_parameters():
        refuse_nan_in(path, name, parameter.detach())


def refuse_nan_in(path: Path, name: str, tensor: Tensor) -> None:
    """The same for one tensor."""
    if not torch.isfinite(tensor.sum()) and not tensor.isfinite().all():
        raise CheckpointError(f"{path}: weights hold NaN or infinite values in {name}")


class QuietTransformers:
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
