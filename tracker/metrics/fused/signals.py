"""Metrics of attention rows, each a signal over key positions, as many at once as stay in the cache.

Legend: (...) any signals, K keys of the whole signal, of which the first are given and the others zero.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tracker.errors import unknown_value
from tracker.metrics.custom import own_values
from tracker.metrics.entropy import EMPTY_WINDOW
from tracker.metrics.extension import OwnMetric, own_metrics
from tracker.metrics.fused.coefficients import CoefficientProduct, coefficient_product
from tracker.metrics.scale import kept_positions, scale_level, scale_sensitivity
from tracker.metrics.spectral import UNDEFINED_POWER, WINDOWS, band_edges, next_power_of_two
from tracker.metrics.wavelets import FilterBank, filter_bank, max_level
from tracker.records import CONVENTION_CHOICES, Conventions

SPECTRUM_BANDS = 16
FINEST_WINDOW = 16
AVERAGINGS = CONVENTION_CHOICES["averaging"]


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
        """Levels and positions for n tokens.

        Raises:
            RequestError: a convention that is not offered.
        """
        for name, allowed in (("averaging", AVERAGINGS), ("window", tuple(WINDOWS))):
            if getattr(conventions, name) not in allowed:
                raise unknown_value(f"spectrum.{name}", getattr(conventions, name), allowed)
        if conventions.n_fft is not None and conventions.n_fft < n:
            raise unknown_value(
                "spectrum.n_fft", conventions.n_fft, f"at least the {n} samples of the signal"
            )
        kept = tuple(
            torch.from_numpy(kept_positions(n, alpha, sample=conventions.sample)).to(device)
            for alpha in conventions.alphas
        )
        level = max_level(n, conventions.wavelet)
        shortest = scale_level(n, conventions.alphas, conventions.wavelet) if kept else 0
        return cls(conventions, n, torch.device(device), level, shortest, kept)

    @cached_property
    def own(self) -> list[OwnMetric]:
        """Metrics of users' own that the conventions name."""
        return own_metrics(self.conventions.metrics)

    @cached_property
    def troubles(self) -> dict[str, str]:
        """By own metric what went wrong with it so far, in words."""
        return {}

    @property
    def n_fft(self) -> int:
        """Length of the Fourier transform."""
        return self.conventions.n_fft or next_power_of_two(self.n)

    @cached_property
    def bank(self) -> FilterBank:
        """The wavelet transform of a signal."""
        return filter_bank(self.n, self.conventions.wavelet, self.level, self.conventions.mode)

    def scale_product(self, dtype: torch.dtype) -> CoefficientProduct | None:
        """How a signal is compared with its shortened twin, where the wavelet is orthogonal."""
        wavelet, mode = self.conventions.wavelet, self.conventions.mode
        return coefficient_product(self.n, wavelet, self.scale_level, mode, dtype, self.device)

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
    def _constants(self) -> dict[torch.dtype, tuple[Tensor, Tensor]]:
        return {}

    def taper_and_bands(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The taper, shape (K,), and what sums a spectrum's bins into 16 bands, shape (bins, 16)."""
        if dtype not in self._constants:
            taper = WINDOWS[self.conventions.window](self.n, periodic=False, dtype=dtype, device=self.device)
            edges = band_edges(self.n_fft // 2 + 1, SPECTRUM_BANDS)
            bands = torch.zeros(self.n_fft // 2 + 1, SPECTRUM_BANDS, dtype=dtype, device=self.device)
            for band, (start, stop) in enumerate(pairwise(edges)):
                bands[start:stop, band] = 1
            self._constants[dtype] = taper, bands
        return self._constants[dtype]


def chosen_rows(count: int, queries: int | None) -> np.ndarray:
    """Indices of ``queries`` evenly spaced rows of ``count``, or of all.

    Each stands in the middle of its share, so that the first rows, which see few keys, count no more than
    they do among all.
    """
    if queries is None or queries >= count:
        return np.arange(count)
    return (2 * np.arange(queries) + 1) * count // (2 * queries)


@dataclass(frozen=True)
class SignalValues:
    """Of signals (...): values by column (...), NaN where undefined; power in 16 bands (..., 16); wavelet
    energy per scale, coarsest first (..., scales); norm and norm of what the transform loses (...)."""

    values: dict[str, Tensor]
    power: Tensor
    energy: Tensor
    norm: Tensor
    loss: Tensor


def signal_values(signal: Tensor, plan: SignalPlan) -> SignalValues:
    """Every metric of each signal.

    Args:
        signal: shape (..., given): the first samples of a signal of ``plan.n``, the others being zero.
        plan: the conventions worked out.
    """
    values, power = _spectral_values(signal, plan)
    values |= _positional_values(signal, plan)
    if plan.own:
        values |= own_values(signal, plan.n, plan.own, plan.troubles)
    parts = plan.bank.analyse(signal)
    energy, entropies = _scale_values(parts, plan.bank)
    for scale, value in enumerate(entropies):
        values[f"wavelet_entropy_{scale}"] = value
    back = plan.bank.synthesise(parts)[..., : plan.n]
    back[..., : signal.shape[-1]].sub_(signal)
    norms = [torch.linalg.vector_norm(each, dim=-1) for each in (signal, back)]
    return SignalValues(values, power, energy, *norms)


def _spectral_values(signal: Tensor, plan: SignalPlan) -> tuple[dict[str, Tensor], Tensor]:
    """The metrics of ``spectrum`` and ``entropy`` from one look at the power spectrum P: with T = sum P,
    spectral entropy is log T - sum P log P / T, and the three bands are sums of the sixteen."""
    taper, bands = plan.taper_and_bands(signal.dtype)
    transform = torch.fft.rfft(signal * taper[: signal.shape[-1]], n=plan.n_fft)
    squares = torch.view_as_real(transform).square_()
    spectrum = squares[..., 0] + squares[..., 1]
    power = spectrum @ bands
    total, peak = power.sum(-1), spectrum.amax(-1)
    total = torch.where(total > UNDEFINED_POWER, total, torch.nan)
    rest = total - peak
    noise = torch.finfo(signal.dtype).eps * spectrum.shape[-1] * total
    entropy = total.log() - _x_log_x(spectrum).sum(-1) / total
    shares = power / total.unsqueeze(-1)
    return {
        "spectral_entropy": entropy,
        "spectral_entropy_normalised": entropy / math.log(spectrum.shape[-1]),
        "frequency_selectivity": torch.where(rest > noise, peak / rest, torch.nan),
        "band_power_low": shares[..., : SPECTRUM_BANDS // 4].sum(-1),
        "band_power_mid": shares[..., SPECTRUM_BANDS // 4 : -(SPECTRUM_BANDS // 4)].sum(-1),
        "band_power_high": shares[..., -(SPECTRUM_BANDS // 4) :].sum(-1),
    }, power


def _x_log_x(x: Tensor) -> Tensor:
    """x log x, 0 at 0; ``torch.special.entr`` asks about every sign, and numpy's logarithm takes a third of
    the time that torch's takes on a processor."""
    logarithm = x + torch.finfo(x.dtype).tiny
    if x.device.type == "cpu":
        np.log(logarithm.numpy(), out=logarithm.numpy())
    else:
        logarithm.log_()
    return logarithm.mul_(x)


def _positional_values(signal: Tensor, plan: SignalPlan) -> dict[str, Tensor]:
    """Positional and window entropies: those of wide windows are sums over narrow ones."""
    information = _x_log_x(signal)
    values = {"positional_entropy": -information.sum(-1)}
    windows = signal.shape[-1] // FINEST_WINDOW
    inside = windows * FINEST_WINDOW
    split = (windows, FINEST_WINDOW)
    mass, inner = (each[..., :inside].unflatten(-1, split).sum(-1) for each in (signal, information))
    for width in plan.conventions.windows:
        values[f"window_entropy_{width}"] = _window_entropy(mass, inner, width)
    return values


def _window_entropy(mass: Tensor, inner: Tensor, width: int) -> Tensor:
    merged = width // FINEST_WINDOW
    windows = mass.shape[-1] // merged
    if windows == 0:
        return torch.full_like(mass.sum(-1), torch.nan)
    if merged > 1:
        split = (windows, merged)
        mass, inner = (each[..., : windows * merged].unflatten(-1, split).sum(-1) for each in (mass, inner))
    full = mass > EMPTY_WINDOW
    entropy = torch.where(full, mass.log() - inner / mass, 0.0).sum(-1) / math.log(width)
    return entropy / full.sum(-1)  # 0 / 0 where no window holds attention


def _scale_values(parts: list[Tensor], bank: FilterBank) -> tuple[Tensor, list[Tensor]]:
    """Energy, shape (..., scales), and entropy of each scale's squared coefficients."""
    squares = [part.square() for part in parts]
    energy = torch.stack([scale.sum(-1) for scale in bank.scales(squares)], -1)
    information = [_x_log_x(each) for each in squares]
    return energy, [-scale.sum(-1) for scale in bank.scales(information)]


def row_scale_sensitivity(rows: Tensor, short: Tensor, plan: SignalPlan, alpha: int) -> Tensor:
    """Scale sensitivity of rows (eq. 10), shape (...).

    Args:
        rows: of the full sequence, shape (..., given).
        short: the shortened sequence's rows at the same tokens, shape (..., given short).
        plan: the conventions worked out.
        alpha: number of the shortening in ``conventions.alphas``.
    """
    conventions, kept = plan.conventions, len(plan.positions[alpha])
    product = plan.scale_product(rows.dtype)
    if conventions.align != "interpolate" or product is None:
        return scale_sensitivity(
            _padded(rows, plan.n),
            _padded(short, kept),
            positions=plan.positions[alpha],
            level=plan.scale_level,
            align=conventions.align,
            wavelet=conventions.wavelet,
            mode=conventions.mode,
        )
    longer = _lengthened(short, kept, plan.n)
    norm = (product(rows, rows) * product(longer, longer)).sqrt()
    return 1 - product(rows, longer) / torch.where(norm > 1e-10, norm, torch.nan)


def _padded(signal: Tensor, length: int) -> Tensor:
    return F.pad(signal, (0, length - signal.shape[-1]))


def _lengthened(short: Tensor, length: int, n: int) -> Tensor:
    """Signals of ``length`` samples resampled linearly onto n, ends aligned, up to their last non-zero
    sample."""
    given = short.shape[-1]
    reach = n if given == length or length < 2 else min(n, -(-given * (n - 1) // (length - 1)))
    flat = _padded(short, length).flatten(0, -3)
    longer = F.interpolate(flat, size=n, mode="linear", align_corners=True)
    return longer[..., :reach].unflatten(0, short.shape[:-2])
