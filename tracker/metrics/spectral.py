"""Fourier structure of attention: power spectrum, bands and frequency selectivity (eqs. 1-3)."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from tracker.errors import unknown_value

UNDEFINED_POWER = 1e-10
"""A signal whose total power is at or below this has no spectrum."""
BAND_EDGES = (0.25, 0.75)
"""Where the low and the middle band end, as shares of the Nyquist frequency."""
WINDOWS: dict[str, Callable[..., Tensor]] = {
    "hann": torch.hann_window,
    "hamming": torch.hamming_window,
    "blackman": torch.blackman_window,
    "rectangular": lambda size, periodic, **kind: torch.ones(size, **kind),
}
"""Tapers by name, each made symmetric."""


def next_power_of_two(size: int) -> int:
    """The smallest power of two at or above ``size``."""
    return 1 << max(size - 1, 0).bit_length()


def power_spectrum(signal: Tensor, *, window: str = "hann", n_fft: int | None = None) -> Tensor:
    """One-sided power spectrum of tapered, zero-padded signals (eq. 1).

    ``P(w) = |sum_t h(t) a(t) exp(-i w t)|^2``, with a symmetric taper ``h`` over K samples, not scaled.

    Args:
        signal: real, shape (..., K).
        window: a key of ``WINDOWS``.
        n_fft: transform length, at least K; default the next power of two at or above K.

    Returns:
        shape (..., n_fft // 2 + 1), frequency 0 to the Nyquist frequency.

    Raises:
        RequestError: an unknown window, or ``n_fft`` shorter than the signal.

    Example:
        >>> power_spectrum(torch.eye(8)[3], window="rectangular")
        tensor([1.0000, 1.0000, 1.0000, 1.0000, 1.0000])
    """
    if window not in WINDOWS:
        raise unknown_value("spectrum.window", window, WINDOWS)
    keys = signal.shape[-1]
    length = next_power_of_two(keys) if n_fft is None else n_fft
    if length < keys:
        raise unknown_value("spectrum.n_fft", length, f"at least the {keys} samples of the signal")
    taper = WINDOWS[window](keys, periodic=False, dtype=signal.dtype, device=signal.device)
    transform = torch.fft.rfft(signal * taper, n=length)
    return transform.real.square() + transform.imag.square()


def total_power(spectrum: Tensor) -> Tensor:
    """Sum over frequencies, shape (...); NaN where it is at or below ``UNDEFINED_POWER``."""
    total = spectrum.sum(-1)
    return torch.where(total > UNDEFINED_POWER, total, torch.nan)


def band_edges(bins: int, bands: int) -> list[int]:
    """First bins of ``bands`` equal shares of the frequency axis, and the number of bins at the end.

    Band k holds the frequencies in [k, k + 1) / bands of the Nyquist frequency, the last one that too.
    """
    return [-(-k * (bins - 1) // bands) for k in range(bands)] + [bins]


def equal_bands(spectrum: Tensor, bands: int) -> Tensor:
    """Power summed over ``bands`` equal shares of the frequency axis, shape (..., bands): ``band_edges``."""
    edges = band_edges(spectrum.shape[-1], bands)
    return torch.stack([spectrum[..., start:stop].sum(-1) for start, stop in pairwise(edges)], -1)


def band_power(spectrum: Tensor) -> Tensor:
    """Shares of power in the low, middle and high band (eq. 2).

    Args:
        spectrum: shape (..., bins), from ``power_spectrum``.

    Returns:
        shape (..., 3): shares below .25, from .25 to below .75, and from .75 of the Nyquist frequency on;
        they sum to 1, and are NaN where the spectrum is undefined.
    """
    nyquist = spectrum.shape[-1] - 1
    low, middle = (-int(-edge * nyquist // 1) for edge in BAND_EDGES)
    parts = (spectrum[..., :low], spectrum[..., low:middle], spectrum[..., middle:])
    return torch.stack([part.sum(-1) for part in parts], -1) / total_power(spectrum).unsqueeze(-1)


def frequency_selectivity(spectrum: Tensor) -> Tensor:
    """The strongest bin over the sum of all others (eq. 3).

    Args:
        spectrum: shape (..., bins).

    Returns:
        shape (...); NaN where the spectrum is undefined, infinite where one bin holds all the power.
    """
    total = total_power(spectrum)
    peak = spectrum.amax(-1)
    rest = total - peak
    noise = torch.finfo(spectrum.dtype).eps * spectrum.shape[-1] * total
    return torch.where(rest <= noise, torch.inf, peak / rest).where(~total.isnan(), torch.nan)
