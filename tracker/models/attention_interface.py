"""Attention probabilities of one layer, by transformers' attention interface, without keeping them whole.

A layer's attention is computed tile by tile, some rows of some sequences at a time, by the model file's own
attention function. (Families that need hooks compute a layer's attention whole before they hand it on.)

Legend: B sequences, H heads, Q queries, K keys.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from tracker.errors import CheckpointError
from tracker.models.attention_hooks import HALVES

IMPLEMENTATION = "tracker_capture"
KEY_BLOCK = 64
"""Rows of causal attention are cut behind their last key, at a multiple of this."""
_forward = threading.local()
_tileable: dict[tuple[type[nn.Module], bool], bool] = {}
"""Per kind of attention module, and whether it was cut: has its function been seen to allow tiles?"""


class LayerAttention:
    """The attention of one layer in one forward pass, computed when a tile of it is asked for.

    ``shape`` is (B, H, Q, K). ``cut``: whether rows end behind their last visible key, ``causal``:
    whether looking ahead is refused, ``sink``: whether a learned sink takes part of every row's attention,
    whose rows then sum to less than 1. ``faults``: those of the tiles so far (``attention_faults``).
    """

    layer: int
    shape: tuple[int, int, int, int]
    cut: bool = False
    causal: bool = True
    sink: bool = False
    faults: Tensor | None = None

    def keys(self, last: int) -> int:
        """Return how many keys the rows before row ``last`` are given with; all others are zero there."""
        keys = self.shape[3]
        return min(keys, -(-last // KEY_BLOCK) * KEY_BLOCK) if self.cut else keys

    def tile(self, sequences: slice, rows: slice) -> Tensor:
        """Compute some rows of some sequences, shape (B', H, Q', keys(rows.stop)), contiguous.

        Their faults are kept, not looked at: on a GPU each look would wait for all that was asked before.
        """
        attention_BHQK = self._tile(sequences, rows)
        found = attention_faults(attention_BHQK, causal=self.causal, first=rows.start, sink=self.sink)
        self.faults = found if self.faults is None else torch.maximum(self.faults, found)
        return attention_BHQK

    def _tile(self, sequences: slice, rows: slice) -> Tensor:
        raise NotImplementedError

    def whole(self) -> Tensor:
        """Compute every probability, shape (B, H, Q, K)."""
        batch, _, queries, _ = self.shape
        return self.tile(slice(0, batch), slice(0, queries))

    def finish(self) -> None:
        """Compute what nobody asked for, so that the forward pass can go on."""


Receive = Callable[[LayerAttention], None]


class TiledAttention(LayerAttention):
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
        self.sink = isinstance(getattr(module, "sinks", None), Tensor)
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
        """Check once per kind of module whether tiles give what the whole gives; else do without."""
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
        """Compute every sequence of which some rows were not asked for."""
        for sequence in (~self._done.all(1)).nonzero().flatten().tolist():
            self._tile(slice(sequence, sequence + 1), slice(0, self.shape[2]))

    def result(self) -> Tensor:
        """Return the output of the layer's attention, shape (B, Q, H, V), in the model's own dtype."""
        return self.output_BQHV.to(self._dtype)


class WholeAttention(LayerAttention):
    """Attention that a model has already computed whole."""

    def __init__(self, layer: int, attention_BHQK: Tensor) -> None:
        self.layer, self._attention = layer, attention_BHQK
        batch, heads, queries, keys = attention_BHQK.shape
        self.shape = (batch, heads, queries, keys)

    @torch.inference_mode()
    def _tile(self, sequences: slice, rows: slice) -> Tensor:
        return self._attention[sequences, :, rows].contiguous()


@contextmanager
def captured_attention(receive: Receive, number: Callable[[nn.Module], int | None]) -> Iterator[None]:
    """Hand the attention of every layer that the current thread runs to a function, for a block's length.

    Args:
        receive: called with each layer's attention before the layer goes on.
        number: gives an attention module's layer, or None for one that is not measured.
    """
    _forward.receive, _forward.number, _forward.blocks_future = receive, number, _Masks()
    try:
        yield
    finally:
        del _forward.receive, _forward.number, _forward.blocks_future


def _capture_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *args: Any,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Stand in for a model's attention: hand it to the receiver, and give the layer its output.

    Returning no probabilities keeps the model from holding on to them.
    """
    number = _forward.number(module)
    states, given = (query, key, value), (args, kwargs)
    cut = _forward.blocks_future(attention_mask)
    if number is None:
        attention = TiledAttention(module, -1, states, attention_mask, given, cut)
        attention.finish()
    else:
        attention = TiledAttention(module, number, states, attention_mask, given, cut)
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


def attention_faults(attention_BHQK: Tensor, *, causal: bool, first: int = 0, sink: bool = False) -> Tensor:
    """Compute by how much each head breaks what attention keeps to.

    Args:
        attention_BHQK: some rows, all their keys or those up to the last row's own.
        causal: whether looking ahead is wrong.
        first: number of the first row.
        sink: whether rows may sum to less than 1, since a learned sink takes the rest.

    Returns:
        shape (2, H): how far a row's sum is from 1 at most, NaN or infinite where attention is; most
        attention on the key behind a row's own. A missing mask fills that diagonal on every head.
    """
    apart_BHQ = attention_BHQK.sum(-1) - 1
    apart_H = (apart_BHQ if sink else apart_BHQ.abs()).amax((0, 2))
    ahead = attention_BHQK.diagonal(first + 1, -2, -1)
    looks = causal and ahead.numel() > 0
    return torch.stack([apart_H, ahead.amax((0, 2)) if looks else torch.zeros_like(apart_H)])


def refuse_faults(layer: int, faults_2H: Tensor) -> None:
    """Refuse attention that cannot be measured.

    Args:
        layer: for the message.
        faults_2H: of all its tiles, on the host.

    Raises:
        CheckpointError: names layer and head of values that are not finite, do not sum to 1, or look ahead.
    """
    apart_H, ahead_H = faults_2H
    checks = (
        (~apart_H.isfinite(), "attention is NaN or infinite; are the weights so?"),
        (apart_H > 1e-3, "attention does not sum to 1 over the keys"),
        (ahead_H > 0, "attention looks ahead; only causal language models are supported"),
    )
    for wrong_H, told in checks:
        if wrong_H.any():
            raise CheckpointError(f"layer {layer} head {int(wrong_H.nonzero()[0, 0])}: {told}")
