"""Heads switched off: what a layer's attention hands on with some heads' outputs set to zero.

Legend: B sequences, Q queries, H heads, V dimensions of a head's value.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tracker.errors import CheckpointError
from tracker.models.attention_modules import self_attention_modules

PROJECTIONS = ("dense", "o_proj", "c_proj", "out_proj", "wo", "o", "out_lin")
"""Names under which families keep the projection that mixes the heads' outputs."""


def output_projection(attention: nn.Module, layer: int) -> nn.Module:
    """The projection behind the heads of one layer's attention.

    Raises:
        CheckpointError: the module has none of a known name.
    """
    for name, module in attention.named_children():
        if name in PROJECTIONS and isinstance(module, nn.Linear | Conv1D):
            return module
    raise CheckpointError(
        f"layer {layer}: {type(attention).__name__} has no output projection named "
        f"{', '.join(PROJECTIONS)}, so its heads cannot be switched off; the architecture is not supported"
    )


@contextmanager
def without_heads(model: PreTrainedModel, heads: Mapping[int, Collection[int]]) -> Iterator[None]:
    """Switches heads off for the length of a block.

    Args:
        model: a loaded model.
        heads: layer -> heads whose output is zero, which is what pruning them would leave.

    Raises:
        CheckpointError: the model's attention has no output projection of a known name.
    """
    config: Any = model.config
    layers, handles = self_attention_modules(model), []
    try:
        for layer, gone in heads.items():
            projection = output_projection(layers[layer], layer)
            hook = _zeroing(sorted(gone), config.num_attention_heads)
            handles.append(projection.register_forward_pre_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _zeroing(gone: list[int], heads: int) -> Any:
    def hook(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        mixed_BQHV = given[0].unflatten(-1, (heads, -1)).clone()
        mixed_BQHV[..., gone, :] = 0
        return mixed_BQHV.flatten(-2), *given[1:]

    return hook


@torch.inference_mode()
def losses(model: PreTrainedModel, ids_BQ: Tensor) -> Tensor:
    """Next-token loss of each sequence, nats per token, shape (B,), float64."""
    logits = model(input_ids=ids_BQ, use_cache=False).logits[:, :-1].double()
    wanted = ids_BQ[:, 1:]
    return F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").view_as(wanted).mean(1)
