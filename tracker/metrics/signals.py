"""Every metric of one layer in one pass over tiles of attention that stay in the processor's cache.

Legend: B sequences, H heads, M maps (B and H flattened), Q queries, K keys, m kept tokens.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tracker.errors import unknown_value
from tracker.metrics.entropy import positional_entropy, spectral_entropy, wavelet_entropy, window_entropy
from tracker.metrics.patterns import local_share, previous_token_score, sink_share
from tracker.metrics.scale import kept_positions, scale_level, scale_sensitivity
from tracker.metrics.spectrum import band_power, equal_bands, frequency_selectivity, power_spectrum
from tracker.metrics.wavelet import max_level, reconstruction_error, wavelet_coefficients
from tracker.records import CONVENTION_CHOICES, Conventions

TILE_VALUES, TILE_VALUES_GPU = 1 << 18, 1 << 25
"""Probabilities worked on at once: so many stay in a processor's cache, and keep a GPU busy."""
SPECTRUM_BANDS = 16
AVERAGINGS = CONVENTION_CHOICES["averaging"]


@dataclass(frozen=True)
class SignalPlan:
    """The conventions worked out for sequences of n tokens; one for a whole run."""

    conventions: Conventions
    n: int
    level: int
    scale_level: int
    positions: tuple[Tensor, ...]
    """Per alpha: where the kept tokens stood, int64, shape (m,)."""

    @classmethod
    def of(cls, conventions: Conventions, n: int, device: str | torch.device = "cpu") -> "SignalPlan":
        """Levels and positions for n tokens.

        Raises:
            RequestError: a convention that is not offered.
        """
        if conventions.averaging not in AVERAGINGS:
            raise unknown_value("spectrum.averaging", conventions.averaging, AVERAGINGS)
        kept = tuple(
            torch.from_numpy(kept_positions(n, alpha, sample=conventions.sample)).to(device)
            for alpha in conventions.alphas
        )
        return cls(
            conventions,
            n,
            max_level(n, conventions.wavelet),
            scale_level(n, conventions.alphas, conventions.wavelet),
            kept,
        )


@dataclass(frozen=True)
class LayerValues:
    """What one layer yields.

    columns: (B, H) per head column, NaN where undefined; spectrum: (B, H, 16) summed power;
    samples: per column prefix the positional and spectral entropies, (B, H, samples), for the correlation;
    undefined: rows without a spectrum or with infinite selectivity.
    """

    columns: dict[str, Tensor]
    spectrum: Tensor
    samples: dict[str, tuple[Tensor, Tensor]]
    undefined: Tensor


def average_signal(attention_MQK: Tensor, averaging: str) -> Tensor:
    """One signal per map, shape (M, K): attention received, of the last query, or by distance."""
    if averaging == "last":
        return attention_MQK[:, -1]
    if averaging == "lag":
        lags = range(attention_MQK.shape[-2])
        return torch.stack([attention_MQK.diagonal(-lag, -2, -1).mean(-1) for lag in lags], -1)
    return attention_MQK.mean(-2)


def chosen_rows(count: int, queries: int | None) -> Tensor:
    """Indices of ``queries`` evenly spaced rows of ``count``, or of all."""
    if queries is None or queries >= count:
        return torch.arange(count)
    return (torch.arange(queries, dtype=torch.float64) * (count - 1) / max(queries - 1, 1)).round().long()


def layer_values(attention_BHQK: Tensor, scaled: list[Tensor], plan: SignalPlan) -> LayerValues:
    """Every head metric of one layer.

    Args:
        attention_BHQK: probabilities of the full sequences.
        scaled: those of the shortened sequences in the order of ``conventions.alphas``, (B, H, m, m).
        plan: the conventions worked out.
    """
    batch, heads = attention_BHQK.shape[:2]
    maps = [attention_BHQK.flatten(0, 1), *(each.flatten(0, 1) for each in scaled)]
    tiles = [_row_values(tile[0], tile[1:], plan) for tile in _tiles(maps)]

    def joined(parts: list[Tensor]) -> Tensor:
        return torch.cat(parts).unflatten(0, (batch, heads))

    columns = {name: joined([tile.columns[name] for tile in tiles]) for name in tiles[0].columns}
    positional, spectral = (joined([tile.samples[side] for tile in tiles]) for side in (0, 1))
    averaged = {
        name: value.unflatten(0, (batch, heads)) for name, value in _averaged_values(maps, plan).items()
    }
    samples = {
        "": (positional, spectral),
        "averaged_": tuple(
            averaged[f"averaged_{name}_entropy"].unsqueeze(-1) for name in ("positional", "spectral")
        ),
    }
    undefined = torch.stack([tile.undefined for tile in tiles]).sum()
    return LayerValues(columns | averaged, joined([tile.spectrum for tile in tiles]), samples, undefined)


def _tiles(maps: list[Tensor]) -> Iterator[list[Tensor]]:
    values = TILE_VALUES if maps[0].device.type == "cpu" else TILE_VALUES_GPU
    size = max(1, values // (maps[0].shape[-2] * maps[0].shape[-1]))
    for start in range(0, maps[0].shape[0], size):
        yield [each[start : start + size] for each in maps]


@dataclass(frozen=True)
class _TileValues:
    """Of the rows of some maps: columns (M,), power (M, 16), the two entropies (M, Q), undefined rows."""

    columns: dict[str, Tensor]
    spectrum: Tensor
    samples: tuple[Tensor, Tensor]
    undefined: Tensor


def _row_values(maps_MQK: Tensor, scaled: list[Tensor], plan: SignalPlan) -> _TileValues:
    conventions = plan.conventions
    rows = maps_MQK
    if conventions.queries is not None:
        rows = maps_MQK[:, chosen_rows(maps_MQK.shape[-2], conventions.queries).to(maps_MQK.device)]
    values, power, coefficients = _signal_values(rows, plan)
    columns = {name: value.nanmean(-1) for name, value in values.items()}
    columns["reconstruction_error"] = _reconstruction(rows, coefficients, plan)
    for alpha, positions, short in zip(conventions.alphas, plan.positions, scaled, strict=True):
        columns[f"scale_sensitivity_{alpha}"] = _row_scale(maps_MQK, short, positions, plan).nanmean(-1)
    columns["local_share"] = local_share(maps_MQK, conventions.span)
    columns["previous_token_score"] = previous_token_score(maps_MQK)
    columns["sink_share"] = sink_share(maps_MQK)
    undefined = values["frequency_selectivity"].isnan().sum()
    samples = values["positional_entropy"], values["spectral_entropy"]
    return _TileValues(columns, power.sum(-2), samples, undefined)


def _averaged_values(maps: list[Tensor], plan: SignalPlan) -> dict[str, Tensor]:
    """Columns of the averaged signals, one signal per map: so few that all of a layer's are done at once."""
    conventions = plan.conventions
    averaged, *scaled = (average_signal(each, conventions.averaging) for each in maps)
    values, _, coefficients = _signal_values(averaged, plan)
    single = [scale.unsqueeze(-2) for scale in coefficients]
    values["reconstruction_error"] = _reconstruction(averaged.unsqueeze(-2), single, plan)
    for alpha, positions, short in zip(conventions.alphas, plan.positions, scaled, strict=True):
        values[f"scale_sensitivity_{alpha}"] = _scale(averaged, short, positions, plan)
    return {f"averaged_{name}": value for name, value in values.items()}


def _signal_values(signal: Tensor, plan: SignalPlan) -> tuple[dict[str, Tensor], Tensor, list[Tensor]]:
    """Metrics of each signal (..., K): values (...), power in 16 bands (..., 16), wavelet coefficients."""
    conventions = plan.conventions
    spectrum = power_spectrum(signal, window=conventions.window, n_fft=conventions.n_fft)
    selectivity = frequency_selectivity(spectrum)
    entropy = spectral_entropy(spectrum)
    low, mid, high = band_power(spectrum).unbind(-1)
    values = {
        "spectral_entropy": entropy,
        "spectral_entropy_normalised": entropy / math.log(spectrum.shape[-1]),
        "frequency_selectivity": selectivity.where(selectivity.isfinite(), torch.nan),
        "band_power_low": low,
        "band_power_mid": mid,
        "band_power_high": high,
        "positional_entropy": positional_entropy(signal),
    }
    coefficients = wavelet_coefficients(
        signal, wavelet=conventions.wavelet, level=plan.level, mode=conventions.mode
    )
    for scale, value in enumerate(wavelet_entropy(coefficients).unbind(-1)):
        values[f"wavelet_entropy_{scale}"] = value
    for width in conventions.windows:
        values[f"window_entropy_{width}"] = window_entropy(signal, width)
    return values, equal_bands(spectrum, SPECTRUM_BANDS), coefficients


def _reconstruction(rows: Tensor, coefficients: list[Tensor], plan: SignalPlan) -> Tensor:
    return reconstruction_error(
        rows, wavelet=plan.conventions.wavelet, level=plan.level, coefficients=coefficients
    )


def _scale(signal: Tensor, scaled: Tensor, positions: Tensor, plan: SignalPlan) -> Tensor:
    conventions = plan.conventions
    return scale_sensitivity(
        signal,
        scaled,
        positions=positions,
        level=plan.scale_level,
        align=conventions.align,
        wavelet=conventions.wavelet,
        mode=conventions.mode,
    )


def _row_scale(maps_MQK: Tensor, short_Mmm: Tensor, positions: Tensor, plan: SignalPlan) -> Tensor:
    """Row i of the shortened sequence against row positions[i] of the full one, (M, rows kept)."""
    first = 2**plan.scale_level - 1
    kept = first + chosen_rows(short_Mmm.shape[-2] - first, plan.conventions.queries).to(positions.device)
    return _scale(maps_MQK[:, positions[kept]], short_Mmm[:, kept], positions, plan)
