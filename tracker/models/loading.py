"""Load a checkpoint's files into a model that is ready to be measured."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from tracker.errors import INTERRUPTIONS, CheckpointError, unknown_value
from tracker.models.architecture import auto_class, model_class
from tracker.models.attention_hooks import needs_hooks
from tracker.models.attention_interface import IMPLEMENTATION
from tracker.models.attention_modules import text_config
from tracker.models.stored_state import ANSI, absent_tensors, check_sizes, plain_state, stored_shapes, wrapped

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
DROPOUT_FIELDS = ("attention_dropout", "hidden_dropout", "resid_pdrop", "attn_pdrop", "embd_pdrop")


def load_model(path: Path, *, dtype: str = "float32", device: str = "cpu") -> PreTrainedModel:
    """Load a checkpoint folder as a language model, in evaluation mode.

    Args:
        path: a folder in Hugging Face layout.
        dtype: a key of ``DTYPES``; always given on, since Pythia would otherwise load as float16.
        device: where torch puts it.

    Raises:
        RequestError: unknown dtype.
        CheckpointError: the files do not load, leave weights out, or hold NaN; names the tensor.
    """
    wanted = torch_dtype(dtype)
    with failures_reported(path):
        shapes = stored_shapes(path)
        check_sizes(path, shapes)
        config = read_config(path)
        state = plain_state(path) if wrapped(path, shapes) else None
        # An Auto class wants a folder that transformers reads by itself.
        kind = auto_class(config) if state is None else model_class(config)
        loaded: Any = kind.from_pretrained(
            path if state is None else None,
            config=config,
            state_dict=state,
            dtype=wanted,
            attn_implementation=attention_of(config),
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            # Only so that the tensor can be named below.
            ignore_mismatched_sizes=True,
        )
    model, info = loaded
    headless = _headless(model) if absent_tensors(path) else set()
    for problem in ("missing_keys", "mismatched_keys"):  # which transformers fills at random and only logs
        keys = info.get(problem) or ()
        names = sorted(described_key(key) for key in keys if key not in headless)
        if names:
            raise unfit(path, problem, names)
    refuse_nan(path, model)
    model = model.to(torch.device(device)).eval()
    if headless:
        _empty_head(model)
    return model


def _headless(model: PreTrainedModel) -> set[str]:
    """Names of the unembedding's parameters, which may be missing where a file says so."""
    head = model.get_output_embeddings()
    own = {id(p) for p in head.parameters()} if head is not None else set()
    return {name for name, parameter in model.named_parameters() if id(parameter) in own}


def _empty_head(model: PreTrainedModel) -> None:
    """Put zeros that take no memory in place of an unembedding that was not fetched and is not used."""
    head: Any = model.get_output_embeddings()
    for name, parameter in head.named_parameters(recurse=False):
        zeros = torch.zeros((), dtype=parameter.dtype, device=parameter.device).expand(parameter.shape)
        setattr(head, name, torch.nn.Parameter(zeros, requires_grad=False))


def torch_dtype(name: str) -> torch.dtype:
    """Return the torch dtype of a name.

    Raises:
        RequestError: it is not a key of ``DTYPES``.
    """
    if name not in DTYPES:
        raise unknown_value("dtype", name, DTYPES)
    return DTYPES[name]


@contextmanager
def failures_reported(path: Path) -> Iterator[None]:
    """Keep transformers quiet while it loads a checkpoint, and turn its exceptions into CheckpointErrors."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    except CheckpointError:
        raise
    except KeyError as error:
        raise CheckpointError(
            f"{path}: the architecture does not read its attention through transformers' attention "
            f"interface (unknown there: {error}); it is not supported"
        ) from error
    except INTERRUPTIONS:
        raise
    except BaseException as error:
        if "trust_remote_code" in str(error):
            raise CheckpointError(
                f"{path}: the model needs its own code, which tracker does not run"
            ) from error
        reason = " ".join(ANSI.sub("", str(error)).split())[:400]
        raise CheckpointError(f"{path} does not load: {type(error).__name__}: {reason}") from error
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            with warnings.catch_warnings():  # where the user has disabled those of the hub in the environment
                warnings.simplefilter("ignore", UserWarning)
                transformers_logging.enable_progress_bar()


def read_config(path: Path) -> Any:
    """Read a checkpoint's configuration, with dropout off.

    Raises:
        CheckpointError: the architecture has no attention.
    """
    config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    text = text_config(config)
    if not getattr(text, "num_attention_heads", None):
        raise CheckpointError(
            f"{path}: a model of type {config.model_type} has no attention heads, so there is nothing to "
            "measure; leave it out"
        )
    for field in DROPOUT_FIELDS:  # so that nothing depends on the training mode
        if hasattr(text, field):
            setattr(text, field, 0.0)
    return config


def attention_of(config: PreTrainedConfig) -> str:
    """Return the attention implementation by which a model hands out its attention."""
    return "eager" if needs_hooks(config) else IMPLEMENTATION


def unfit(folder: Path, problem: str, names: Sequence[str]) -> CheckpointError:
    """Return the error for weights that do not fit the configuration.

    Args:
        folder: the checkpoint's.
        problem: ``missing_keys`` or ``mismatched_keys``, as transformers calls them.
        names: of the tensors.
    """
    return CheckpointError(
        f"{folder}: weights do not fit the configuration: {problem.replace('_', ' ')} "
        f"{', '.join(names[:3])}{' ...' if len(names) > 3 else ''}; is it another architecture's?"
    )


def described_key(key: Any) -> str:
    """Return a tensor's name as transformers reports it; of one of another shape with both shapes."""
    if not isinstance(key, tuple):
        return str(key)
    shapes = [list(each) for each in key[1:]]
    return (
        f"{key[0]} ({shapes[0]} in the files, {shapes[1]} by config.json)"
        if len(shapes) == 2
        else str(key[0])
    )


def refuse_nan(path: Path, model: PreTrainedModel) -> None:
    """Refuse weights that are NaN or infinite.

    Raises:
        CheckpointError: names the tensor.
    """
    for name, parameter in model.named_parameters():
        refuse_nan_in(path, name, parameter.detach())


def refuse_nan_in(path: Path, name: str, tensor: Tensor) -> None:
    """Refuse one tensor that holds NaN or infinity."""
    if not torch.isfinite(tensor.sum()) and not tensor.isfinite().all():
        raise CheckpointError(f"{path}: weights hold NaN or infinite values in {name}")
