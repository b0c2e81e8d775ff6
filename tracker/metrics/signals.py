"""Every metric of one layer in one pass over tiles of attention that stay in the processor's cache.

Legend: B sequences, H heads, M maps (B and H flattened), Q queries, K keys, m kept tokens.
"""

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

TILE_ROWS = 1024
"""Attention rows worked on at once: transforms of that many stay in cache."""
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
    positional, spectral: (B, H, samples) entropies per column prefix, for the correlation;
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
    tiles = [_tile_values(tile[0], tile[1:], plan) for tile in _tiles(maps)]
    names = tiles[0][0].keys()
    columns = {
        name: torch.cat([tile[0][name] for tile in tiles]).unflatten(0, (batch, heads)) for name in names
    }

    def joined(parts: list[Tensor]) -> Tensor:
        return torch.cat(parts).unflatten(0, (batch, heads))

    samples = {
        prefix: (
            joined([tile[2][prefix][0] for tile in tiles]),
            joined([tile[2][prefix][1] for tile in tiles]),
        )
        for prefix in ("", "averaged_")
    }
    return LayerValues(
        columns, joined([tile[1] for tile in tiles]), samples, torch.stack([t[3] for t in tiles]).sum()
    )


def _tiles(maps: list[Tensor]) -> Iterator[list[Tensor]]:
    size = max(1, TILE_ROWS // maps[0].shape[-2])
    for start in range(0, maps[0].shape[0], size):
        yield [each[start : start + size] for each in maps]


def _tile_values(maps_MQK: Tensor, scaled: list[Tensor], plan: SignalPlan):
    conventions = plan.conventions
    rows = maps_MQK
    if conventions.queries is not None:
        rows = maps_MQK[:, chosen_rows(maps_MQK.shape[-2], conventions.queries).to(maps_MQK.device)]
    values, bands, undefined = _signal_values(rows, plan)
    samples = {"": (values["positional_entropy"], values["spectral_entropy"])}
    columns = {name: value.nanmean(-1) for name, value in values.items()}
    columns["reconstruction_error"] = _reconstruction(rows, plan)

    averaged = average_signal(maps_MQK, conventions.averaging)
    single, _, _ = _signal_values(averaged, plan)
    samples["averaged_"] = (
        single["positional_entropy"].unsqueeze(-1),
        single["spectral_entropy"].unsqueeze(-1),
    )
    columns |= {f"averaged_{name}": value for name, value in single.items()}
    columns["averaged_reconstruction_error"] = _reconstruction(averaged.unsqueeze(-2), plan)

    for alpha, positions, short in zip(conventions.alphas, plan.positions, scaled, strict=True):
        name = f"scale_sensitivity_{alpha}"
        columns[name] = _row_scale(maps_MQK, short, positions, plan).nanmean(-1)
        short_averaged = average_signal(short, conventions.averaging)
        columns[f"averaged_{name}"] = _scale(averaged, short_averaged, positions, plan)
    columns["local_share"] = local_share(maps_MQK, conventions.span)
    columns["previous_token_score"] = previous_token_score(maps_MQK)
    columns["sink_share"] = sink_share(maps_MQK)
    return columns, bands.sum(-2), samples, undefined


def _signal_values(signal: Tensor, plan: SignalPlan) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Metrics of each signal (..., K): values (...), power in 16 bands (..., 16), count of undefined."""
    conventions = plan.conventions
    spectrum = power_spectrum(signal, window=conventions.window, n_fft=conventions.n_fft)
    selectivity = frequency_selectivity(spectrum)
    entropy = spectral_entropy(spectrum)
    bins = torch.tensor(float(spectrum.shape[-1]))
    low, mid, high = band_power(spectrum).unbind(-1)
    values = {
        "spectral_entropy": entropy,
        "spectral_entropy_normalised": entropy / bins.log().item(),
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
    undefined = (~selectivity.isfinite()).sum()
    return values, equal_bands(spectrum, SPECTRUM_BANDS), undefined


def _reconstruction(rows: Tensor, plan: SignalPlan) -> Tensor:
    conventions = plan.conventions
    return reconstruction_error(rows, wavelet=conventions.wavelet, level=plan.level, mode=conventions.mode)


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
