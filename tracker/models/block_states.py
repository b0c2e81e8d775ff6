"""What the residual stream holds behind each block with attention, kept during a forward pass.

Hooks are shared by all threads that run the model; what they keep is the thread's own.
"""

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from tracker.errors import CheckpointError
from tracker.models.attention_modules import block_of, self_attention_names


class _Kept(threading.local):
    def __init__(self) -> None:
        self.states: list[Tensor] | None = None


_kept = _Kept()
_hooked: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()


@contextmanager
def hooked_blocks(model: PreTrainedModel) -> Iterator[None]:
    """Let forward passes of a model keep their states, for the length of a block.

    Args:
        model: a loaded transformers model; what it computes stays the same.
    """
    blocks = [model.get_submodule(block_of(name)) for name in self_attention_names(model)]
    handles = [block.register_forward_hook(_keep) for block in blocks]
    _hooked.add(model)
    try:
        yield
    finally:
        _hooked.discard(model)
        for handle in handles:
            handle.remove()


@contextmanager
def states_kept(model: PreTrainedModel, states: list[Tensor]) -> Iterator[None]:
    """Keep the states of the passes that this thread runs, where ``hooked_blocks`` asks for it.

    Args:
        model: that runs.
        states: gets one tensor of shape (B, n, D) per block with attention, in the order in which they run.
    """
    _kept.states = states if model in _hooked else None
    try:
        yield
    finally:
        _kept.states = None


def _keep(module: nn.Module, given: Any, output: Any) -> None:
    if _kept.states is None:
        return
    state = output if isinstance(output, Tensor) else next(iter(output), None)
    if not isinstance(state, Tensor) or state.dim() != 3:
        raise CheckpointError(f"{type(module).__name__} gives no hidden states; leave out spectrum.states")
    _kept.states.append(state.detach().clone())  # some families add to it in place
