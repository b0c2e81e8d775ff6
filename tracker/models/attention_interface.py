"""Attention probabilities of any transformers model, by the library's attention interface or by hooks.

The forward pass runs in a thread of its own and stops at every layer until its attention has been
looked at; several forward passes of one model (a sequence and its shortened twins) so advance in step,
and no layer's attention outlives its turn. Nor is a layer's attention ever whole in memory: it is worked
out tile by tile, some rows of some sequences at a time, by the model file's own attention function.
(Families that need hooks work a layer's attention out whole before they hand it on.)

Legend: B sequences, H heads, Q queries, K keys.
"""

import queue
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

from tracker.errors import CheckpointError
from tracker.models.architecture import causal_layers
from tracker.models.attention_hooks import hooked_attention, needs_hooks
from tracker.models.attention_modules import base_call, layer_number

IMPLEMENTATION = "tracker_capture"
KEY_BLOCK = 64
"""Rows of causal attention are cut behind their last key, at a multiple of this."""
HALVES = (torch.float16, torch.bfloat16)
_forward = threading.local()
_setting = threading.Lock()
_tileable: dict[tuple[type[nn.Module], bool], bool] = {}
"""Per kind of attention module, and whether it was cut: has its function been seen to allow tiles?"""


class _Abandoned(BaseException):
    """Ends a forward pass that nobody waits for any more."""


class LayerAttention:
    """The attention of one layer in one forward pass, worked out when a tile of it is asked for.

    ``shape`` is (B, H, Q, K). ``cut`` tells whether rows end behind their last visible key, ``causal``
    whether looking ahead is refused.
    """

    layer: int
    shape: tuple[int, int, int, int]
    cut: bool = False
    causal: bool = True

    def keys(self, last: int) -> int:
        """How many keys the rows before row ``last`` are given with; all others are zero there."""
        keys = self.shape[3]
        return min(keys, -(-last // KEY_BLOCK) * KEY_BLOCK) if self.cut else keys

    def tile(self, sequences: slice, rows: slice) -> Tensor:
        """Probabilities of some rows of some sequences, shape (B', H, Q', keys(rows.stop)), contiguous.

        Raises:
            CheckpointError: as ``check_attention``.
        """
        attention_BHQK = self._tile(sequences, rows)
        check_attention(attention_BHQK, self.layer, causal=self.causal, first=rows.start)
        return attention_BHQK

    def _tile(self, sequences: slice, rows: slice) -> Tensor:
        raise NotImplementedError

    def whole(self) -> Tensor:
        """Every probability, shape (B, H, Q, K)."""
        batch, _, queries, _ = self.shape
        return self.tile(slice(0, batch), slice(0, queries))

    def finish(self) -> None:
        """Works out what nobody asked for, so that the forward pass can go on."""


Receive = Callable[[LayerAttention], None]


class SeamAttention(LayerAttention):
    """Attention whose queries, keys and values are at hand: the model's own function is called on tiles.

    Half-precision inputs are widened first, since the eager functions cast their float32 softmax back to
    the query's dtype.
    """

    def __init__(
        self,
        module: Any,
        layer: int,
        states: tuple[Tensor, Tensor, Tensor],
        mask: Tensor | None,
        given: tuple[tuple[Any, ...], dict[str, Any]],
        cut: bool,
    ) -> None:
        self.layer, self._module, self._mask, self._given = layer, module, mask, given
        self._dtype = states[0].dtype
        wide = tuple(state.float() if state.dtype in HALVES else state for state in states)
        self._query, self._key, self._value = wide
        batch, heads, queries, _ = self._query.shape
        self.shape = (batch, heads, queries, self._key.shape[2])
        self.output_BQHV = self._query.new_empty(batch, queries, heads, self._value.shape[-1])
        self._done = torch.zeros(batch, queries, dtype=torch.bool)
        self._tiles = True
        self.cut = cut and self.shape[2] == self.shape[3]
        self._settle()

    def _settle(self) -> None:
        """Sees once per kind of module whether tiles give what the whole gives; where not, there are none."""
        kind = type(self._module), self.cut
        if kind not in _tileable:
            _tileable[kind] = self._tiles_agree()
        self._tiles = _tileable[kind]
        self.cut = self.cut and self._tiles

    def _tiles_agree(self) -> bool:
        queries = self.shape[2]
        rows = slice(queries // 3, max(queries // 3 + 1, 2 * queries // 3))
        output, whole = self._call(slice(0, 1), slice(0, queries), self.shape[3])
        try:
            part_output, part = self._call(slice(0, 1), rows, self.keys(rows.stop))
        except (RuntimeError, IndexError):
            return False
        if part.shape[:-1] != whole[:, :, rows].shape[:-1]:
            return False
        same = torch.allclose(part, whole[:, :, rows, : part.shape[-1]], rtol=1e-4, atol=1e-6)
        beyond = bool((whole[:, :, rows, part.shape[-1] :] == 0).all())
        return same and beyond and torch.allclose(part_output, output[:, rows], rtol=1e-3, atol=1e-5)

    def _call(self, sequences: slice, rows: slice, keys: int) -> tuple[Tensor, Tensor]:
        """The model file's own eager attention on a part: (output (B', Q', H, V), probabilities)."""
        args, kwargs = self._given

        def part(value: Any) -> Any:
            return self._part(value, sequences, rows, keys)

        eager = sys.modules[type(self._module).__module__].eager_attention_forward
        return eager(
            self._module,
            self._query[sequences, :, rows],
            self._key[sequences, :, :keys],
            self._value[sequences, :, :keys],
            part(self._mask),
            *(part(value) for value in args),
            **{name: part(value) for name, value in kwargs.items()},
        )

    def _part(self, value: Any, sequences: slice, rows: slice, keys: int) -> Any:
        """The part of a mask or bias over (B, H, Q, K); an axis of length 1 stands for all."""
        if not isinstance(value, Tensor) or value.dim() != 4:
            return value
        batch, _, queries, width = self.shape
        if value.shape[0] == batch and batch > 1:
            value = value[sequences]
        if value.shape[2] == queries and queries > 1:
            value = value[:, :, rows]
        value = value[..., :keys] if value.shape[3] == width else value
        return value.float() if value.dtype in HALVES else value

    @torch.inference_mode()
    def _tile(self, sequences: slice, rows: slice) -> Tensor:
        every = rows if self._tiles else slice(0, self.shape[2])
        output, attention_BHQK = self._call(sequences, every, self.keys(every.stop))
        if attention_BHQK is None:
            raise CheckpointError(f"layer {self.layer}: its attention function gives no probabilities")
        self.output_BQHV[sequences, every] = output
        self._done[sequences, every] = True
        return attention_BHQK if self._tiles else attention_BHQK[:, :, rows].contiguous()

    def finish(self) -> None:
        """Works out every sequence of which some rows were not asked for."""
        for sequence in (~self._done.all(1)).nonzero().flatten().tolist():
            self._tile(slice(sequence, sequence + 1), slice(0, self.shape[2]))

    def result(self) -> Tensor:
        """What the layer's attention gives to the layer, shape (B, Q, H, V), in the model's own dtype."""
        return self.output_BQHV.to(self._dtype)


class GivenAttention(LayerAttention):
    """Attention that a model has already worked out whole."""

    def __init__(self, layer: int, attention_BHQK: Tensor) -> None:
        self.layer, self._attention = layer, attention_BHQK
        batch, heads, queries, keys = attention_BHQK.shape
        self.shape = (batch, heads, queries, keys)

    @torch.inference_mode()
    def _tile(self, sequences: slice, rows: slice) -> Tensor:
        return self._attention[sequences, :, rows].contiguous()


def _capture_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *args: Any,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Stands in for a model's attention: hands it to whoever looks on, and gives the layer its output.

    Returning no probabilities keeps the model from holding on to them.
    """
    number = _forward.number(module)
    states, given = (query, key, value), (args, kwargs)
    cut = _forward.blocks_future(attention_mask)
    if number is None:
        attention = SeamAttention(module, -1, states, attention_mask, given, cut)
        attention.finish()
    else:
        attention = SeamAttention(module, number, states, attention_mask, given, cut)
        _forward.receive(attention)
    return attention.result(), None


AttentionInterface.register(IMPLEMENTATION, _capture_attention)
# Without the mask's own registration transformers passes no mask at all: not causal, and nothing warns.
AttentionMaskInterface.register(IMPLEMENTATION, eager_mask)


class _Masks:
    """Which masks block every later key; each is looked at once, since layers share them."""

    def __init__(self) -> None:
        self._seen: list[tuple[Tensor, bool]] = []

    def __call__(self, mask: Tensor | None) -> bool:
        if mask is None or mask.dim() != 4 or mask.shape[2] != mask.shape[3]:
            return False
        for seen, blocks in self._seen:
            if seen is mask:
                return blocks
        allowed = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
        blocks = not bool(allowed.triu(1).any())
        self._seen.append((mask, blocks))
        return blocks


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
                _forward.receive, _forward.number = self._receive, self._number
                _forward.blocks_future = _Masks()
                with torch.inference_mode():
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
        """Runs to the next layer: its attention, or None at the end."""
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
        finished: how many of them, from the first on, are run to the end of the model, behind the attention
            of its last layer; None: all.

    Iterating yields ``(layer, [LayerAttention, ...])``, one per pass, each good until the next layer is
    asked for. Afterwards ``hidden`` holds each finished pass's last hidden state, shape (B, n_i, d_model).

    Raises (while iterating):
        CheckpointError: a layer does not arrive, or arrives out of order; from a tile: attention that is
            not finite, does not sum to 1, or is not causal where it ought to be.
    """

    def __init__(self, model: PreTrainedModel, ids: Sequence[Tensor], finished: int | None = None) -> None:
        self._hooked = needs_hooks(model.config)
        with _setting:
            if not self._hooked and model.config._attn_implementation != IMPLEMENTATION:
                model.set_attn_implementation(IMPLEMENTATION)
        self.hidden: list[Tensor] = []
        self._model, self._ids, self._finished = model, ids, finished
        self._causal = causal_layers(model.config)

    def __iter__(self) -> Iterator[tuple[int, list[LayerAttention]]]:
        passes = [_Forward(self._run(ids), self._number) for ids in self._ids]
        layers = len(self._causal)
        try:
            for layer in range(layers):
                arrived = [self._due(layer, each.advance()) for each in passes]
                yield layer, arrived
                del arrived
            if any(each.advance() is not None for each in passes[: self._finished]):
                raise CheckpointError(f"more layers than the configuration's {layers} handed out attention")
            self.hidden = [each.hidden_BQD for each in passes if each.hidden_BQD is not None]
        except KeyError as error:
            raise _not_handed_out(self._model, f"its attention interface does not know {error}") from error
        finally:
            for each in passes:
                each.abandon()

    def _run(self, ids: Tensor) -> Callable[[Receive], Tensor]:
        def run(receive: Receive) -> Tensor:
            if not self._hooked:
                return base_call(self._model, ids)
            with hooked_attention(self._model, lambda layer, given: receive(GivenAttention(layer, given))):
                return base_call(self._model, ids)

        return run

    def _number(self, module: nn.Module) -> int | None:
        return layer_number(module, self._model)

    def _due(self, layer: int, arrived: LayerAttention | None) -> LayerAttention:
        if arrived is None:
            raise _not_handed_out(self._model, f"layer {layer} of {len(self._causal)} never arrived")
        if arrived.layer != layer:
            raise CheckpointError(f"layer {arrived.layer} handed out attention where layer {layer} was due")
        arrived.causal = self._causal[layer]
        return arrived


def _not_handed_out(model: PreTrainedModel, detail: str) -> CheckpointError:
    return CheckpointError(
        f"{type(model).__name__} does not hand out its attention: {detail}; the architecture is not supported"
    )


def check_attention(attention_BHQK: Tensor, layer: int, *, causal: bool, first: int = 0) -> None:
    """Refuses attention that cannot be measured.

    Args:
        attention_BHQK: some rows, all their keys or those up to the last row's own.
        layer: for the message.
        causal: whether looking ahead is wrong.
        first: number of the first row.

    Raises:
        CheckpointError: names layer and head of values that are not finite, do not sum to 1, or look ahead.
    """
    sums_BHQ = attention_BHQK.sum(-1)
    # One comparison finds both faults: NaN is not below the limit either.
    sound = (sums_BHQ - 1).abs() <= 1e-3
    if not sound.all():
        broken = ~sums_BHQ.isfinite()
        if broken.any():
            raise CheckpointError(
                f"layer {layer} head {int(broken.nonzero()[0, 1])}: attention is NaN or infinite; "
                "are the weights so?"
            )
        head = int((~sound).nonzero()[0, 1])
        raise CheckpointError(f"layer {layer} head {head}: attention does not sum to 1 over the keys")
    # Each row is checked by the one key next to it: a missing mask fills that diagonal on every head.
    ahead = attention_BHQK.diagonal(first + 1, -2, -1)
    if causal and ahead.numel() and (ahead > 0).any():
        head = int((ahead > 0).nonzero()[0, 1])
        raise CheckpointError(
            f"layer {layer} head {head}: attention looks ahead; only causal language models are supported"
        )
