"""Attention probabilities of any model that computes them through transformers' attention interface.

The forward pass runs in a thread of its own and stops at every layer until its attention has been
looked at; several forward passes of one model (a sequence and its shortened twins) so advance in step,
and no layer's attention outlives its turn.

Legend: B sequences, H heads, Q queries, K keys.
"""

import queue
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

from tracker.errors import CheckpointError

IMPLEMENTATION = "tracker_capture"
_forward = threading.local()


class _Abandoned(BaseException):
    """Ends a forward pass that nobody waits for any more."""


def _capture_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *args: Any,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The model file's own eager attention, whose probabilities go to the waiting forward pass.

    It is called in float32 where the weights are half precision, since it casts its float32 softmax back
    to the query's dtype; returning no probabilities keeps the model from holding on to them.
    """
    eager = sys.modules[type(module).__module__].eager_attention_forward
    dtype = query.dtype
    if dtype in (torch.float16, torch.bfloat16):
        query, key, value = query.float(), key.float(), value.float()
        attention_mask = attention_mask.float() if attention_mask is not None else None
    output, attention_BHQK = eager(module, query, key, value, attention_mask, *args, **kwargs)
    _forward.receive(module.layer_idx, attention_BHQK)
    return output.to(dtype), None


AttentionInterface.register(IMPLEMENTATION, _capture_attention)
# Without the mask's own registration transformers passes no mask at all: not causal, and nothing warns.
AttentionMaskInterface.register(IMPLEMENTATION, eager_mask)


class _Forward:
    """One forward pass that halts at every layer."""

    def __init__(self, model: nn.Module, ids_BQ: Tensor) -> None:
        self.hidden_BQD: Tensor | None = None
        self._model, self._ids = model, ids_BQ
        self._error: BaseException | None = None
        self._abandoned = False
        self._arrived: queue.SimpleQueue[tuple[int, Tensor] | None] = queue.SimpleQueue()
        self._go = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._go.acquire()
        try:
            if not self._abandoned:
                _forward.receive = self._receive
                with torch.inference_mode():
                    output = self._model(input_ids=self._ids, use_cache=False)
                self.hidden_BQD = output.last_hidden_state
        except BaseException as error:
            self._error = error
        self._arrived.put(None)

    def _receive(self, layer: int, attention_BHQK: Tensor) -> None:
        self._arrived.put((layer, attention_BHQK))
        del attention_BHQK
        self._go.acquire()
        if self._abandoned:
            raise _Abandoned

    def advance(self) -> tuple[int, Tensor] | None:
        """Runs to the next layer: its number and attention, or None at the end."""
        self._go.release()
        arrived = self._arrived.get()
        if self._error is not None:
            raise self._error
        return arrived

    def abandon(self) -> None:
        """Ends the thread, wherever the pass stands."""
        self._abandoned = True
        self._go.release()
        self._thread.join()


class AttentionStream:
    """Iterates over the layers of one or more simultaneous forward passes of one model.

    Args:
        model: a loaded transformers model; its body is run, the vocabulary head is not.
        ids: token ids of each pass, int64, shapes (B, n_i).

    Iterating yields ``(layer, [attention_BHQK, ...])``, one float32 (or float64) tensor per pass.
    Afterwards ``hidden`` holds each pass's last hidden state, shape (B, n_i, d_model).

    Raises (while iterating):
        CheckpointError: a layer does not arrive, arrives out of order, or its attention is not causal in
            a causal model, not finite or does not sum to 1.
    """

    def __init__(self, model: PreTrainedModel, ids: Sequence[Tensor], *, causal: bool = True) -> None:
        if model.config._attn_implementation != IMPLEMENTATION:
            model.set_attn_implementation(IMPLEMENTATION)
        self.hidden: list[Tensor] = []
        self._model, self._ids, self._causal = model, ids, causal
        self._layers = model.config.num_hidden_layers

    def __iter__(self) -> Iterator[tuple[int, list[Tensor]]]:
        passes = [_Forward(self._model.base_model, ids) for ids in self._ids]
        try:
            for layer in range(self._layers):
                arrived = [each.advance() for each in passes]
                attention = [self._checked(layer, item) for item in arrived]
                del arrived
                yield layer, attention
                del attention
            if any(each.advance() is not None for each in passes):
                raise CheckpointError(
                    f"more layers than the configuration's {self._layers} handed out attention"
                )
            self.hidden = [each.hidden_BQD for each in passes if each.hidden_BQD is not None]
        except KeyError as error:
            raise _not_handed_out(self._model, f"its attention interface does not know {error}") from error
        finally:
            for each in passes:
                each.abandon()

    def _checked(self, layer: int, item: tuple[int, Tensor] | None) -> Tensor:
        if item is None:
            raise _not_handed_out(self._model, f"layer {layer} of {self._layers} never arrived")
        number, attention_BHQK = item
        if number != layer:
            raise CheckpointError(f"layer {number} handed out attention where layer {layer} was due")
        check_attention(attention_BHQK, layer, causal=self._causal)
        return attention_BHQK


def _not_handed_out(model: PreTrainedModel, detail: str) -> CheckpointError:
    return CheckpointError(
        f"{type(model).__name__} does not hand out its attention: {detail}; the architecture is not supported"
    )


def check_attention(attention_BHQK: Tensor, layer: int, *, causal: bool) -> None:
    """Refuses attention that cannot be measured.

    Raises:
        CheckpointError: names layer and head of values that are not finite, do not sum to 1, or look ahead.
    """
    sums_BHQ = attention_BHQK.sum(-1)
    broken = ~sums_BHQ.isfinite()
    if broken.any():
        head = int(broken.nonzero()[0, 1])
        raise CheckpointError(f"layer {layer} head {head}: attention is NaN or infinite; are the weights so?")
    wrong = (sums_BHQ - 1).abs() > 1e-3
    if wrong.any():
        head = int(wrong.nonzero()[0, 1])
        raise CheckpointError(f"layer {layer} head {head}: attention does not sum to 1 over the keys")
    # Each row is checked by the one key next to it: a missing mask fills that diagonal on every head.
    if causal and (attention_BHQK.diagonal(1, -2, -1) > 0).any():
        head = int((attention_BHQK.diagonal(1, -2, -1) > 0).nonzero()[0, 1])
        raise CheckpointError(
            f"layer {layer} head {head}: attention looks ahead; only causal language models are supported"
        )
