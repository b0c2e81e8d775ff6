"""Every metric of one layer in one pass over tiles of attention rows, of the full sequences and, in step
with them, of the shortened ones.

Legend: B sequences, H heads, Q queries, K keys, m kept tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tracker.metrics.entropy import co_moments
from tracker.metrics.fused.signals import SignalPlan, signal_values
from tracker.metrics.patterns import local_sum, map_products, mean_cosine, previous_token_sum, sink_sum
from tracker.metrics.wavelets import relative_loss

TILE_VALUES, TILE_VALUES_GPU = 1 << 19, 1 << 25
"""Probabilities worked on at once: so many stay in a processor's cache, and keep a GPU busy."""
TILE_ROWS = 16
"""Fewer rows than this are not worth a tile."""
WHOLE_GPU = 1 << 24
"""So few probabilities are one tile on a GPU: more kernels cost it more than the zeros behind rows."""


class Attention(Protocol):
    """Attention of one layer that is handed out tile by tile, as ``models.LayerAttention``."""

    shape: tuple[int, int, int, int]
    sink: bool
    faults: Tensor | None

    def tile(self, sequences: slice, rows: slice) -> Tensor:
        """Return rows up to their last key that is not zero, shape (B', H, Q', <= K), contiguous."""
        ...


@dataclass(frozen=True)
class LayerValues:
    """What one layer yields.

    names: of head columns; columns: (names, B, H), NaN where undefined; spectrum: (B, H, 16) summed power;
    energy: (B, H, scales) summed energy of wavelet coefficients;
    moments: per column prefix those of positional and spectral entropies over rows, (6, H), ``co_moments``;
    redundancy: (B,); undefined: rows without a spectrum, or with all power in one bin; faults: (2, H), of
    the attention; corner: the first sequence's first tokens, (H, t, t), for the theory checks, or empty.
    """

    names: list[str]
    columns: Tensor
    spectrum: Tensor
    energy: Tensor
    moments: dict[str, Tensor]
    redundancy: Tensor
    undefined: Tensor
    faults: Tensor
    corner: Tensor

    def tensors(self) -> list[Tensor]:
        """Return all that is computed."""
        each = (self.redundancy, self.undefined, self.faults, self.corner)
        return [self.columns, self.spectrum, self.energy, *self.moments.values(), *each]

    def holding(self, tensors: Iterator[Tensor]) -> "LayerValues":
        """Return the same with other tensors, in the order of ``tensors``."""
        columns, spectrum, energy = (next(tensors) for _ in range(3))
        moments = {prefix: next(tensors) for prefix in self.moments}
        rest = (next(tensors) for _ in range(4))
        return LayerValues(self.names, columns, spectrum, energy, moments, *rest)


def on_host(layers: Sequence[LayerValues]) -> list[LayerValues]:
    """Return layers in float64 on the host, brought there by one copy."""
    tensors = [each for layer in layers for each in layer.tensors()]
    flat = torch.cat([each.reshape(-1) for each in tensors]).double().cpu()
    parts = flat.split([each.numel() for each in tensors])
    shaped = iter([part.view(each.shape) for part, each in zip(parts, tensors, strict=True)])
    return [layer.holding(shaped) for layer in layers]


def layer_values(
    attention: Attention, scaled: Sequence[Attention], plan: SignalPlan, corner: int = 0
) -> LayerValues:
    """Compute every head metric of one layer.

    Args:
        attention: of the full sequences.
        scaled: of the shortened sequences, in the order of ``conventions.alphas``.
        plan: the conventions worked out.
        corner: tokens of the first sequence whose attention is handed back; 0 for none.
    """
    sums = _Sums(attention, plan, corner)
    on_gpu = plan.device.type != "cpu"
    for sequences, rows in _tiles(attention.shape, on_gpu):
        tile = attention.tile(sequences, rows)
        sums.add_rows(tile, sequences, rows)
        for alpha, each in enumerate(scaled):
            sums.add_scaled(alpha, each, tile, sequences, rows)
    return sums.result([each.faults for each in (attention, *scaled) if each.faults is not None])


def _tiles(shape: tuple[int, int, int, int], on_gpu: bool) -> Iterator[tuple[slice, slice]]:
    batch, heads, queries, keys = shape
    values = TILE_VALUES_GPU if on_gpu else TILE_VALUES
    if on_gpu and batch * heads * queries * keys <= WHOLE_GPU:
        yield slice(0, batch), slice(0, queries)
        return
    height = min(queries, max(TILE_ROWS, min(values // (heads * keys), max(64, queries // 4))))
    width = max(1, values // (heads * height * keys))
    for first in range(0, batch, width):
        for start in range(0, queries, height):
            yield slice(first, min(first + width, batch)), slice(start, min(start + height, queries))


@dataclass
class _Sums:
    """What is added up over the tiles of a layer."""

    attention: Attention
    plan: SignalPlan
    corner_tokens: int
    names: list[str] = field(default_factory=list)
    sums: dict[str, Tensor] = field(default_factory=dict)

    def _at(self, name: str, like: Tensor, *shape: int) -> Tensor:
        """The running sum of this name, (B, H, *shape), made when first asked for."""
        if name not in self.sums:
            self.sums[name] = like.new_zeros(*self.attention.shape[:2], *shape)
        return self.sums[name]

    def add_rows(self, tile: Tensor, sequences: slice, rows: slice) -> None:
        """Add the measured rows of a tile."""
        measured = _between(self.plan.rows, rows)
        chosen = tile if len(measured) == tile.shape[-2] else tile[:, :, _index(measured - rows.start)]
        found = signal_values(chosen, self.plan)
        self.names = list(found.values)
        stacked = torch.stack(list(found.values.values()))
        defined = stacked.isfinite()
        totals = torch.where(defined, stacked, 0.0).sum(-1).permute(1, 2, 0)
        counts = defined.sum(-1).permute(1, 2, 0).to(tile.dtype)
        queries = len(self.plan.rows)
        first = int(np.searchsorted(self.plan.rows, rows.start))
        where = slice(first, first + len(measured))
        for name in ("positional_entropy", "spectral_entropy"):
            self._at(f"samples {name}", tile, queries)[sequences, :, where] = found.values[name]
        self._add("values", sequences, totals)
        self._add("defined", sequences, counts)
        self._add("power", sequences, found.power.sum(-2))
        self._add("energy", sequences, found.energy.sum(-2))
        self._add("squares", sequences, found.squares.sum(-2))
        self._add_patterns(tile, sequences, rows)
        self._add_averaged("averaged", tile, sequences, rows, self.plan.n)

    def _add(self, name: str, sequences: slice, part: Tensor) -> None:
        self._at(name, part, *part.shape[2:])[sequences] += part

    def _add_patterns(self, tile: Tensor, sequences: slice, rows: slice) -> None:
        span = self.plan.conventions.span
        self._add("products", sequences, map_products(tile))
        self._add("previous", sequences, previous_token_sum(tile, rows.start))
        self._add("sink", sequences, sink_sum(tile, rows.start))
        if self.attention.sink:
            self._add("learned sink", sequences, (1 - tile.sum(-1)).sum(-1))
        self._add("local", sequences, local_sum(tile, span, rows.start))
        size = self.corner_tokens
        if sequences.start == 0 and rows.start < size:
            corner = self._at("corner", tile, size, size)
            part = tile[0, :, : size - rows.start, :size]
            corner[0, :, rows.start : rows.start + part.shape[1], : part.shape[2]] = part

    def _add_averaged(self, name: str, tile: Tensor, sequences: slice, rows: slice, length: int) -> None:
        """Add rows to the signal averaged over queries: as received, the last one, or by distance."""
        signal = self._at(name, tile, length)
        averaging = self.plan.conventions.averaging
        if averaging == "received":
            signal[sequences, :, : tile.shape[-1]] += tile.sum(-2) / length
        elif averaging == "last" and rows.stop == length:
            signal[sequences, :, : tile.shape[-1]] = tile[:, :, -1]
        elif averaging == "lag":
            query = torch.arange(rows.start, rows.stop, device=tile.device).unsqueeze(-1)
            lag = query - torch.arange(tile.shape[-1], device=tile.device)
            weighted = torch.where(lag >= 0, tile / (length - lag), 0.0)
            part = tile.new_zeros(*tile.shape[:2], length)
            signal[sequences] += part.index_add_(-1, lag.clamp(min=0).flatten(), weighted.flatten(-2))

    def add_scaled(
        self, alpha: int, attention: Attention, tile: Tensor, sequences: slice, rows: slice
    ) -> None:
        """Add the rows of the shortened sequence whose tokens stood in these rows of the full one."""
        plan = self.plan
        positions = plan.kept[alpha]
        start, stop = np.searchsorted(positions, (rows.start, rows.stop)).tolist()
        if start == stop:
            return
        short = attention.tile(sequences, slice(start, stop))
        self._add_averaged(f"averaged {alpha}", short, sequences, slice(start, stop), len(positions))
        compared = _between(plan.compared[alpha], slice(start, stop))
        if not len(compared):
            return
        chosen = tile[:, :, _index(positions[compared] - rows.start)]
        sensitivity = plan.comparisons[alpha].sensitivity(chosen, short[:, :, _index(compared - start)])
        defined = sensitivity.isfinite()
        total = torch.where(defined, sensitivity, 0.0).sum(-1)
        self._add(f"scale {alpha}", sequences, torch.stack((total, defined.sum(-1).to(total.dtype)), -1))

    def result(self, faults: list[Tensor]) -> LayerValues:
        """Divide the sums into means; ``faults`` are those of every pass, (2, H)."""
        sums, plan = self.sums, self.plan
        n, span = plan.n, plan.conventions.span
        columns = dict(zip(self.names, (sums["values"] / sums["defined"]).unbind(-1), strict=True))
        columns["reconstruction_error"] = relative_loss(sums["squares"])
        for alpha, name in enumerate(plan.conventions.alphas):
            both = sums.get(f"scale {alpha}")
            missing = torch.full_like(sums["local"], torch.nan)
            columns[f"scale_sensitivity_{name}"] = missing if both is None else both[..., 0] / both[..., 1]
        columns["local_share"] = sums["local"] / (n - span if n > span else torch.nan)
        columns["previous_token_score"] = sums["previous"] / (n - 1)
        columns["sink_share"] = sums["sink"] / (n - 1)
        if self.attention.sink:
            columns["learned_sink_share"] = sums["learned sink"] / n
        averaged, pair = self._averaged()
        batch, heads = self.attention.shape[:2]
        selectivity = self.names.index("frequency_selectivity")
        undefined = batch * heads * len(plan.rows) - sums["defined"][..., selectivity].sum()
        columns |= averaged
        samples = sums["samples positional_entropy"], sums["samples spectral_entropy"]
        pooled = {"": samples, "averaged_": pair}
        return LayerValues(
            list(columns),
            torch.stack(list(columns.values())),
            sums["power"],
            sums["energy"],
            {
                prefix: co_moments(*(each.transpose(0, 1).flatten(1) for each in both))
                for prefix, both in pooled.items()
            },
            mean_cosine(sums["products"]),
            undefined,
            torch.stack(faults).amax(0),
            sums["corner"][0] if self.corner_tokens else sums["local"].new_empty(0),
        )

    def _averaged(self) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor]]:
        """Columns of the averaged signals: so few that all of a layer's are done at once."""
        plan = self.plan
        signal = self.sums["averaged"]
        found = signal_values(signal, plan)
        rows_only = {each.metric.name for each in plan.custom if not each.metric.averaged}
        values = {name: value for name, value in found.values.items() if name not in rows_only}
        values["reconstruction_error"] = relative_loss(found.squares)
        for alpha, name in enumerate(plan.conventions.alphas):
            short = self.sums[f"averaged {alpha}"]
            values[f"scale_sensitivity_{name}"] = plan.comparisons[alpha].sensitivity(signal, short)
        pair = values["positional_entropy"].unsqueeze(-1), values["spectral_entropy"].unsqueeze(-1)
        return {f"averaged_{name}": value for name, value in values.items()}, pair


def _between(rows: np.ndarray, part: slice) -> np.ndarray:
    """Those of some increasing row numbers that lie in a part."""
    first, last = np.searchsorted(rows, (part.start, part.stop))
    return rows[first:last]


def _index(rows: np.ndarray) -> slice | Tensor:
    """Row numbers as a slice where they are evenly spaced, since that copies nothing."""
    if len(rows) == 1:
        return slice(int(rows[0]), int(rows[0]) + 1)
    steps = np.diff(rows)
    if (steps == steps[0]).all():
        return slice(int(rows[0]), int(rows[-1]) + 1, int(steps[0]))
    return torch.from_numpy(rows)
