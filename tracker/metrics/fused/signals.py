"""Metrics of attention rows, each a signal over key positions, as many at once as stay in the cache.

Legend: (...) any signals, K keys of the whole signal, of which the first are given and the others zero.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from tracker.errors import unknown_value
from tracker.metrics.custom import custom_values
from tracker.metrics.entropy import position_entropies, scale_entropies, spectral_entropy
from tracker.metrics.registry import CustomMetric, custom_metrics
from tracker.metrics.scale import Comparison, kept_positions, scale_level
from tracker.metrics.spectral import (
    band_shares,
    defined_power,
    equal_bands,
    frequency_selectivity,
    power_spectrum,
    taper,
    transform_length,
)
from tracker.metrics.wavelets import (
    SHORT,
    SHORT_GPU,
    FilterBank,
    filter_bank,
    max_level,
    reconstruction_squares,
)
from tracker.records import CONVENTION_CHOICES, Conventions


@dataclass(frozen=True)
class SignalPlan:
    """The conventions worked out for sequences of n tokens; one for a whole run."""

    conventions: Conventions
    n: int
    device: torch.device
    level: int
    scale_level: int
    positions: tuple[Tensor, ...]
    """Per alpha: where the kept tokens stood, int64, shape (m,)."""

    @classmethod
    def of(cls, conventions: Conventions, n: int, device: str | torch.device = "cpu") -> "SignalPlan":
        """Work out levels and positions for n tokens.

        Raises:
            RequestError: a convention that is not offered.
        """
        device, offered = torch.device(device), CONVENTION_CHOICES["averaging"]
        if conventions.averaging not in offered:
            raise unknown_value("spectrum.averaging", conventions.averaging, offered)
        taper(conventions.window, n, torch.float32, device)
        transform_length(n, conventions.n_fft)
        kept = tuple(
            torch.from_numpy(kept_positions(n, alpha, sample=conventions.sample)).to(device)
            for alpha in conventions.alphas
        )
        level = max_level(n, conventions.wavelet)
        shortest = scale_level(n, conventions.alphas, conventions.wavelet) if kept else 0
        return cls(conventions, n, device, level, shortest, kept)

    @cached_property
    def custom(self) -> list[CustomMetric]:
        """Custom metrics that the conventions name."""
        return custom_metrics(self.conventions.metrics)

    @cached_property
    def troubles(self) -> dict[str, str]:
        """By custom metric what went wrong with it so far, in words."""
        return {}

    @cached_property
    def bank(self) -> FilterBank:
        """The wavelet transform of a signal."""
        short = SHORT if self.device.type == "cpu" else SHORT_GPU
        return filter_bank(self.n, self.conventions.wavelet, self.level, self.conventions.mode, short)

    @cached_property
    def kept(self) -> tuple[np.ndarray, ...]:
        """``positions`` on the host."""
        return tuple(kept.cpu().numpy() for kept in self.positions)

    @cached_property
    def rows(self) -> np.ndarray:
        """Which rows are measured: all, or ``queries`` evenly spaced ones."""
        return chosen_rows(self.n, self.conventions.queries)

    @cached_property
    def compared(self) -> tuple[np.ndarray, ...]:
        """Per alpha: which rows of the shortened sequence are compared."""
        first = 2**self.scale_level - 1
        queries = self.conventions.queries
        return tuple(first + chosen_rows(max(0, len(kept) - first), queries) for kept in self.positions)

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Per alpha: how signals are compared with those of the shortened sequence."""
        return tuple(
            Comparison(
                keys=self.n,
                positions=kept,
                level=self.scale_level,
                align=self.conventions.align,
                wavelet=self.conventions.wavelet,
                mode=self.conventions.mode,
            )
            for kept in self.positions
        )


def chosen_rows(count: int, queries: int | None) -> np.ndarray:
    """Return the indices of ``queries`` evenly spaced rows of ``count``, or of all.

    Each stands in the middle of its share, so that the first rows, which see few keys, count no more than
    they do among all.
    """
    if queries is None or queries >= count:
        return np.arange(count)
    return (2 * np.arange(queries) + 1) * count // (2 * queries)


@dataclass(frozen=True)
class SignalValues:
    """Of signals (...): values by column (...), NaN where undefined; power in 16 bands (..., 16); wavelet
    energy per scale, coarsest first (..., scales); squared norm, and that of what the transform loses
    (..., 2)."""

    values: dict[str, Tensor]
    power: Tensor
    energy: Tensor
    squares: Tensor


def signal_values(signal: Tensor, plan: SignalPlan) -> SignalValues:
    """Compute every metric of each signal.

    Args:
        signal: shape (..., given): the first samples of a signal of ``plan.n``, the others being zero.
        plan: the conventions worked out.
    """
    values, power = _spectral_values(signal, plan)
    positional, windows = position_entropies(signal, plan.conventions.windows)
    values["positional_entropy"] = positional
    for width, value in zip(plan.conventions.windows, windows, strict=True):
        values[f"window_entropy_{width}"] = value
    if plan.custom:
        values |= custom_values(signal, plan.n, plan.custom, plan.troubles)
    parts, bank = plan.bank.analyse(signal), plan.bank
    squares = [part.square() for part in parts]
    for scale, value in enumerate(scale_entropies(squares, bank.scales)):
        values[f"wavelet_entropy_{scale}"] = value
    energy = torch.stack([scale.sum(-1) for scale in bank.scales(squares)], -1)
    return SignalValues(values, power, energy, reconstruction_squares(signal, parts, bank))


def _spectral_values(signal: Tensor, plan: SignalPlan) -> tuple[dict[str, Tensor], Tensor]:
    """The metrics of the power spectrum from one look at it, and its power in 16 bands."""
    window, n_fft = plan.conventions.window, plan.conventions.n_fft
    spectrum = power_spectrum(signal, window=window, n_fft=n_fft, keys=plan.n)
    power = equal_bands(spectrum)
    total = defined_power(power.sum(-1))
    entropy = spectral_entropy(spectrum, total=total)
    low, mid, high = band_shares(power).unbind(-1)
    return {
        "spectral_entropy": entropy,
        "spectral_entropy_normalised": entropy / math.log(spectrum.shape[-1]),
        "frequency_selectivity": frequency_selectivity(spectrum, total=total),
        "band_power_low": low,
        "band_power_mid": mid,
        "band_power_high": high,
    }, power
