"""A checkpoint's files into a model that is ready to be measured."""

import logging
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
