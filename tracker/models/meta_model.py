"""A model on the meta device: modules and computed buffers are real, parameters have no memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights

from tracker.models.architecture import auto_class
from tracker.models.attention_modules import text_config
from tracker.models.loading import attention_of, failures_reported, read_config
from tracker.models.stored_state import check_sizes, stored_shapes


def meta_model(path: Path, dtype: torch.dtype, *, tied: bool = True) -> PreTrainedModel:
    """Make the model of a checkpoint's configuration, with its computed buffers and no memory for parameters.

    Args:
        path, dtype: as for ``load_model``.
        tied: whether embedding and head are one tensor where the configuration says so.

    Raises:
        CheckpointError: no model can be made of the configuration.
    """
    with failures_reported(path), no_init_weights(), _parameters_without_memory():
        check_sizes(path, stored_shapes(path))
        config = read_config(path)
        if not tied:
            config.tie_word_embeddings = text_config(config).tie_word_embeddings = False
        model: Any = auto_class(config).from_config(
            config, dtype=dtype, attn_implementation=attention_of(config), trust_remote_code=False
        )
    model.tie_weights()
    return model


@contextmanager
def _parameters_without_memory() -> Iterator[None]:
    """Put parameters alone on the meta device: buffers that a model computes when made must be real."""
    register = nn.Module.register_parameter

    def without_memory(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None and param.device.type != "meta":
            param = nn.Parameter(param.detach().to("meta"), requires_grad=False)
        register(self, name, param)

    nn.Module.register_parameter = without_memory
    try:
        yield
    finally:
        nn.Module.register_parameter = register
