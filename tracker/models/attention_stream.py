"""Forward passes of one model that halt at every layer, so that its attention can be looked at in turn.

A forward pass runs in a thread of its own and stops at every layer until its attention has been looked at;
several passes of one model (a sequence and its shortened twins) so advance in step, and no layer's attention
outlives its turn.

Legend: B sequences, D width of the model.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tracker.errors import CheckpointError, needs_new_process
from tracker.models.architecture import causal_layers
from tracker.models.attention_hooks import hook_options, hooked_attention, needs_hooks
from tracker.models.attention_interface import (
    IMPLEMENTATION,
    LayerAttention,
    Receive,
    WholeAttention,
    captured_attention,
)
from tracker.models.attention_modules import base_call, layer_number, text_body, text_config
from tracker.models.block_states import states_kept

_setting = threading.Lock()


class _Abandoned(BaseException):
    """Ends a forward pass that nobody waits for any more."""


class _Forward:
    """One forward pass that halts at every layer."""

    def __init__(self, call: Callable[[Receive], Tensor], number: Callable[[nn.Module], int | None]) -> None:
        self.hidden_BQD: Tensor | None = None
        self._call, self._number = call, number
        self._error: BaseException | None = None
        self._abandoned = False
        self._arrived: queue.SimpleQueue[LayerAttention | None] = queue.SimpleQueue()
        self._go = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._go.acquire()
        try:
            if not self._abandoned:
                with torch.inference_mode(), captured_attention(self._receive, self._number):
                    self.hidden_BQD = self._call(self._receive)
        except _Abandoned:
            pass  # kept, its traceback would keep the layer's states until garbage is collected
        except BaseException as error:
            self._error = error
        self._arrived.put(None)

    def _receive(self, attention: LayerAttention) -> None:
        self._arrived.put(attention)
        self._go.acquire()
        if self._abandoned:
            raise _Abandoned
        attention.finish()

    def advance(self) -> LayerAttention | None:
        """Run to the next layer and return its attention, or None at the end."""
        self._go.release()
        arrived = self._arrived.get()
        if self._error is not None:
            raise self._error
        return arrived

    def abandon(self) -> None:
        """End the thread, wherever the pass stands."""
        self._abandoned = True
        self._go.release()
        self._thread.join()


class AttentionStream:
    """Iterates over the layers of one or more simultaneous forward passes of one model.

    Args:
        model: a loaded transformers model; its body is run, the vocabulary head is not.
        ids: token ids of each pass, int64, shapes (B, n_i).
        finished: how many of them, from the first on, are run to the end of the model, behind the attention
            of its last layer; None: all.

    Iterating yields ``(layer, [LayerAttention, ...])``, one per pass, each good until the next layer is
    asked for. Afterwards ``hidden`` holds each finished pass's last hidden state, shape (B, n_i, d_model),
    and ``states`` the first pass's hidden states behind each layer, where ``hooked_blocks`` asks for them.

    Raises (while iterating):
        CheckpointError: a layer does not arrive, or arrives out of order; from a tile: attention that is
            not finite, does not sum to 1, or is not causal where it ought to be.
    """

    def __init__(self, model: PreTrainedModel, ids: Sequence[Tensor], finished: int | None = None) -> None:
        self._hooked = needs_hooks(model.config, type(model))
        text = text_body(model)
        with _setting:
            if not self._hooked and text.config._attn_implementation != IMPLEMENTATION:
                text.set_attn_implementation(IMPLEMENTATION)
        self.hidden: list[Tensor] = []
        self.states: list[Tensor] = []
        self._model, self._ids, self._finished = model, ids, finished
        self._causal = causal_layers(model)
        self._heads = text_config(model.config).num_attention_heads

    def __iter__(self) -> Iterator[tuple[int, list[LayerAttention]]]:
        first, *others = (self._run(ids) for ids in self._ids)
        passes = [_Forward(run, self._number) for run in (self._keeping(first), *others)]
        layers = len(self._causal)
        try:
            for layer in range(layers):
                arrived = [self._due(layer, each.advance()) for each in passes]
                yield layer, arrived
                del arrived
            if any(each.advance() is not None for each in passes[: self._finished]):
                raise CheckpointError(f"more layers than the {layers} with attention handed out attention")
            self.hidden = [each.hidden_BQD for each in passes if each.hidden_BQD is not None]
        except KeyError as error:
            raise _not_handed_out(self._model, f"its attention interface does not know {error}") from error
        except torch.cuda.OutOfMemoryError:
            raise
        except (AttributeError, TypeError, ValueError, IndexError, RuntimeError) as error:
            if needs_new_process(error):
                raise
            raise CheckpointError(
                f"{type(self._model).__name__} does not run on token ids: {type(error).__name__}: "
                f"{' '.join(str(error).split())[:200]}"
            ) from error
        finally:
            for each in passes:
                each.abandon()

    def _keeping(self, run: Callable[[Receive], Tensor]) -> Callable[[Receive], Tensor]:
        def kept(receive: Receive) -> Tensor:
            with states_kept(self._model, self.states):
                return run(receive)

        return kept

    def _run(self, ids: Tensor) -> Callable[[Receive], Tensor]:
        def run(receive: Receive) -> Tensor:
            if not self._hooked:
                return base_call(self._model, ids)
            with hooked_attention(self._model, lambda layer, given: receive(WholeAttention(layer, given))):
                return base_call(self._model, ids, **hook_options(self._model))

        return run

    def _number(self, module: nn.Module) -> int | None:
        return layer_number(module, self._model)

    def _due(self, layer: int, arrived: LayerAttention | None) -> LayerAttention:
        if arrived is None:
            raise _not_handed_out(self._model, f"layer {layer} of {len(self._causal)} never arrived")
        if arrived.layer != layer:
            raise CheckpointError(
                f"layer {arrived.layer} handed out attention where layer {layer} was due: "
                f"{type(self._model).__name__} runs a layer several times, or computes more than one "
                "attention in it; the architecture is not supported"
            )
        if arrived.shape[1] != self._heads:
            raise CheckpointError(
                f"layer {layer} has {arrived.shape[1]} heads, the configuration says {self._heads}; layers "
                "with numbers of heads of their own are not supported"
            )
        arrived.causal = self._causal[layer]
        return arrived


def _not_handed_out(model: PreTrainedModel, detail: str) -> CheckpointError:
    return CheckpointError(
        f"{type(model).__name__} does not hand out its attention: {detail}; the architecture is not supported"
    )
