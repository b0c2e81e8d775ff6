"""The script one would write first: keep all attention, then loop over sequences, layers, heads and rows.

It is written with care, float64 inside a map and no step slower than it need be, but one row at a time,
and it shares no code with tracker. ``test_bench.py`` holds its numbers against tracker's.

Legend: S sequences, L layers, H heads, m kept tokens.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pywt
import torch
from scipy.special import entr

ALPHAS, WIDTHS, SPAN = (0.5, 0.25), (16, 32, 64), 16
Maps = list[np.ndarray]


@dataclass
class Attention:
    """All attention of a probe: per layer (S, H, n, n), that of each shortened probe, and the prefix's."""

    full: Maps
    shortened: list[Maps]
    prefix: Maps
    positions: list[np.ndarray]


@dataclass
class Found:
    """Columns by name, one value per (sequence, layer, head); entropies of every row for the correlation."""

    columns: dict[str, dict[tuple[int, int, int], float]] = field(default_factory=lambda: defaultdict(dict))
    entropies: dict[tuple[str, int, int], list] = field(default_factory=lambda: defaultdict(list))
    redundancy: dict[tuple[int, int], float] = field(default_factory=dict)


def keep_attention(model: Any, ids: np.ndarray, prefix_ids: np.ndarray, alphas=ALPHAS) -> Attention:
    """Four forward passes with ``output_attentions``; everything they return is kept."""
    model.set_attn_implementation("eager")

    def attentions(part: np.ndarray) -> Maps:
        tokens = torch.from_numpy(part).to(model.device)
        with torch.inference_mode():
            output = model.base_model(input_ids=tokens, output_attentions=True, use_cache=False)
        return [layer.float().cpu().numpy() for layer in output.attentions]

    n = ids.shape[1]
    positions = [np.floor(np.arange(int(alpha * n)) * n / int(alpha * n)).astype(int) for alpha in alphas]
    shortened = [attentions(ids[:, kept]) for kept in positions]
    return Attention(attentions(ids), shortened, attentions(prefix_ids), positions)


def signal_columns(signal: np.ndarray, taper: np.ndarray, level: int) -> tuple[dict[str, float], np.ndarray]:
    """Metrics of one signal, and what the wavelet transform there and back loses of it."""
    n = len(signal)
    power = np.abs(np.fft.rfft(signal * taper, n=len_fft(n))) ** 2
    total = power.sum()
    found: dict[str, float] = dict.fromkeys(
        ("spectral_entropy", "spectral_entropy_normalised", "frequency_selectivity"), np.nan
    )
    found |= dict.fromkeys(("band_power_low", "band_power_mid", "band_power_high"), np.nan)
    if total > 1e-10:
        frequency = np.arange(len(power)) / (len(power) - 1)
        found["spectral_entropy"] = entr(power / total).sum()
        found["spectral_entropy_normalised"] = found["spectral_entropy"] / np.log(len(power))
        peak = power.max()
        found["frequency_selectivity"] = peak / (total - peak) if peak < total else np.nan
        found["band_power_low"] = power[frequency < 0.25].sum() / total
        found["band_power_mid"] = power[(frequency >= 0.25) & (frequency < 0.75)].sum() / total
        found["band_power_high"] = power[frequency >= 0.75].sum() / total
    found["positional_entropy"] = entr(signal).sum()
    coefficients = pywt.wavedec(signal, "db2", mode="symmetric", level=level)
    for scale, values in enumerate(coefficients):
        found[f"wavelet_entropy_{scale}"] = entr(values**2).sum()
    for width in WIDTHS:
        found[f"window_entropy_{width}"] = window_entropy(signal, width)
    return found, pywt.waverec(coefficients, "db2", mode="symmetric")[:n] - signal


def len_fft(n: int) -> int:
    return int(2 ** np.ceil(np.log2(n)))


def window_entropy(signal: np.ndarray, width: int) -> float:
    parts = signal[: len(signal) // width * width].reshape(-1, width)
    mass = parts.sum(1)
    parts = parts[mass > 1e-10] / mass[mass > 1e-10, None]
    return float((entr(parts).sum(1) / np.log(width)).mean()) if len(parts) else np.nan


def scale_sensitivity(signal: np.ndarray, short: np.ndarray, level: int) -> float:
    longer = np.interp(np.linspace(0, len(short) - 1, len(signal)), np.arange(len(short)), short)
    ours = np.concatenate(pywt.wavedec(signal, "db2", mode="symmetric", level=level))
    theirs = np.concatenate(pywt.wavedec(longer, "db2", mode="symmetric", level=level))
    norm = np.linalg.norm(ours) * np.linalg.norm(theirs)
    return float(1 - ours @ theirs / norm) if norm > 1e-10 else np.nan


def measure_head(attention: Attention, place: tuple[int, int, int], found: Found) -> None:
    """Every column of one map; ``place`` is its sequence, layer and head."""
    sequence, layer, head = place
    rows = attention.full[layer][sequence, head].astype(np.float64)
    n = len(rows)
    taper, level = np.hanning(n), pywt.dwt_max_level(n, 4)
    per_row, lost = defaultdict(list), np.empty_like(rows)
    for query, row in enumerate(rows):
        values, lost[query] = signal_columns(row, taper, level)
        for name, value in values.items():
            per_row[name].append(value)
        found.entropies["", layer, head].append((values["positional_entropy"], values["spectral_entropy"]))
    average = rows.mean(0)
    averaged, difference = signal_columns(average, taper, level)
    found.entropies["averaged_", layer, head].append(
        (averaged["positional_entropy"], averaged["spectral_entropy"])
    )
    columns = {name: nanmean(values) for name, values in per_row.items()}
    columns |= {f"averaged_{name}": value for name, value in averaged.items()}
    columns["reconstruction_error"] = np.linalg.norm(lost) / np.linalg.norm(rows)
    columns["averaged_reconstruction_error"] = np.linalg.norm(difference) / np.linalg.norm(average)
    columns |= covariates(rows) | scale_columns(attention, place, rows)
    for name, value in columns.items():
        found.columns[name][place] = value


def scale_columns(attention: Attention, place: tuple[int, int, int], rows: np.ndarray) -> dict[str, float]:
    """Each kept token's row against its row in the shortened sequence, and the averaged signals."""
    sequence, layer, head = place
    columns: dict[str, float] = {}
    if not attention.positions:
        return columns
    level = pywt.dwt_max_level(min(map(len, attention.positions)), 4)
    for alpha, positions, maps in zip(ALPHAS, attention.positions, attention.shortened, strict=True):
        short = maps[layer][sequence, head].astype(np.float64)
        kept = range(2**level - 1, len(short))
        values = [scale_sensitivity(rows[positions[i]], short[i], level) for i in kept]
        columns[f"scale_sensitivity_{alpha}"] = nanmean(values)
        columns[f"averaged_scale_sensitivity_{alpha}"] = scale_sensitivity(rows.mean(0), short.mean(0), level)
    return columns


def covariates(rows: np.ndarray) -> dict[str, float]:
    n = len(rows)
    local = [rows[q, q - SPAN + 1 : q + 1].sum() for q in range(SPAN, n)]
    return {
        "previous_token_score": float(np.mean([rows[q, q - 1] for q in range(1, n)])),
        "sink_share": float(rows[1:, 0].mean()),
        "local_share": float(np.mean(local)) if local else np.nan,
    }


def measure_layer(attention: Attention, sequence: int, layer: int, found: Found) -> None:
    """Every head of one layer and sequence, and the mean cosine between its maps."""
    maps = attention.full[layer][sequence]
    for head in range(len(maps)):
        measure_head(attention, (sequence, layer, head), found)
    flat = [each.ravel() / np.linalg.norm(each) for each in maps]
    pairs = [float(flat[i] @ flat[j]) for i in range(len(flat)) for j in range(i)]
    found.redundancy[sequence, layer] = float(np.mean(pairs))


def head_columns(attention: Attention, found: Found) -> dict[str, np.ndarray]:
    """Means over sequences, (L, H), with correlation and prefix matching."""
    layers, heads = len(attention.full), attention.full[0].shape[1]
    names = [*found.columns, "position_spectrum_correlation", "averaged_position_spectrum_correlation"]
    table = {name: np.full((layers, heads), np.nan) for name in [*names, "prefix_matching_score"]}
    for layer in range(layers):
        for head in range(heads):
            for name, values in found.columns.items():
                per_sequence = [value for place, value in values.items() if place[1:] == (layer, head)]
                table[name][layer, head] = nanmean(per_sequence)
            for signal in ("", "averaged_"):
                pairs = np.array(found.entropies[signal, layer, head]).reshape(-1, 2)
                table[f"{signal}position_spectrum_correlation"][layer, head] = correlation(pairs)
            table["prefix_matching_score"][layer, head] = prefix_matching(attention.prefix[layer][:, head])
    return table


def prefix_matching(maps: np.ndarray) -> float:
    block = maps.shape[-1] // 2
    return float(np.mean([each[q, q - block + 1] for each in maps for q in range(block, 2 * block)]))


def correlation(pairs: np.ndarray) -> float:
    pairs = pairs[np.isfinite(pairs).all(1)]
    return float(np.corrcoef(pairs.T)[0, 1]) if len(pairs) >= 8 else np.nan


def nanmean(values: list[float]) -> float:
    known = np.array([value for value in values if np.isfinite(value)])
    return float(known.mean()) if len(known) else np.nan
