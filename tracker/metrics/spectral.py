"""Fourier structure of attention: power spectrum, bands and frequency selectivity (eqs. 1-3)."""

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

from tracker.errors import unknown_value

UNDEFINED_POWER = 1e-10
"""A signal whose total power is at or below this has no spectrum."""
SPECTRUM_BANDS = 16
"""Equal shares of the frequency axis whose power is stored; four each make the low and the high band."""
WINDOWS: dict[str, Callable[..., Tensor]] = {
    "hann": torch.hann_window,
    "hamming": torch.hamming_window,
    "blackman": torch.blackman_window,
    "rectangular": lambda size, periodic, **kind: torch.ones(size, **kind),
}
"""Tapers by name, each made symmetric."""


def next_power_of_two(size: int) -> int:
    """Return the smallest power of two at or above ``size``.

    Example:
        >>> next_power_of_two(96)
        128
    """
    return 1 << max(size - 1, 0).bit_length()


def transform_length(keys: int, n_fft: int | None) -> int:
    """Return the length of the Fourier transform of ``keys`` samples: ``n_fft``, or the next power of two.

    Raises:
        RequestError: ``n_fft`` is shorter than the signal.
    """
    length = next_power_of_two(keys) if n_fft is None else n_fft
    if length < keys:
        raise unknown_value("spectrum.n_fft", length, f"at least the {keys} samples of the signal")
    return length


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def taper(window: str, keys: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the symmetric taper ``h`` of a name in ``WINDOWS``, shape (keys,).

    Raises:
        RequestError: unknown window.
    """
    if window not in WINDOWS:
        raise unknown_value("spectrum.window", window, WINDOWS)
    return WINDOWS[window](keys, periodic=False, dtype=dtype, device=device)


def power_spectrum(
    signal: Tensor, *, window: str = "hann", n_fft: int | None = None, keys: int | None = None
) -> Tensor:
    """Compute the one-sided power spectrum of tapered, zero-padded signals (eq. 1).

    ``P(w) = |sum_t h(t) a(t) exp(-i w t)|^2``, with a symmetric taper ``h`` over K samples, not scaled.

    Args:
        signal: real, shape (..., K), or its first samples where all others are zero.
        window: a key of ``WINDOWS``.
        n_fft: transform length, at least K; default the next power of two at or above K.
        keys: K, where the signal is given without its zeros at the end.

    Returns:
        shape (..., n_fft // 2 + 1), frequency 0 to the Nyquist frequency.

    Raises:
        RequestError: an unknown window, or ``n_fft`` shorter than the signal.

    Example:
        >>> power_spectrum(torch.eye(8)[3], window="rectangular")
        tensor([1.0000, 1.0000, 1.0000, 1.0000, 1.0000])
    """
    keys = signal.shape[-1] if keys is None else keys
    weights = taper(window, keys, signal.dtype, signal.device)[: signal.shape[-1]]
    transform = torch.fft.rfft(signal * weights, n=transform_length(keys, n_fft))
    parts = torch.view_as_real(transform)
    squares = parts.square() if parts.requires_grad else parts.square_()
    return squares[..., 0] + squares[..., 1]


def defined_power(total: Tensor) -> Tensor:
    """Return total power with NaN where it is at or below ``UNDEFINED_POWER``; same shape."""
    return torch.where(total > UNDEFINED_POWER, total, torch.nan)


def total_power(spectrum: Tensor) -> Tensor:
    """Sum a power spectrum over frequencies, the denominator of eqs. 2 and 7.

    Args:
        spectrum: shape (..., bins), from ``power_spectrum``.

    Returns:
        shape (...); NaN where it is at or below ``UNDEFINED_POWER``.

    Example:
        >>> total_power(torch.ones(2, 5))
        tensor([5., 5.])
    """
    return defined_power(spectrum.sum(-1))


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _band_matrix(bins: int, bands: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What sums bins into bands, shape (bins, bands)."""
    edges = [-(-k * (bins - 1) // bands) for k in range(bands)] + [bins]
    matrix = torch.zeros(bins, bands, dtype=dtype, device=device)
    for band, (start, stop) in enumerate(pairwise(edges)):
        matrix[start:stop, band] = 1
    return matrix


def equal_bands(spectrum: Tensor, bands: int = SPECTRUM_BANDS) -> Tensor:
    """Sum power over equal shares of the frequency axis.

    Band k holds the frequencies in [k, k + 1) / bands of the Nyquist frequency, the last one that too.

    Args:
        spectrum: shape (..., bins).
        bands: how many shares.

    Returns:
        shape (..., bands).

    Example:
        >>> equal_bands(torch.ones(9), 4)
        tensor([2., 2., 2., 3.])
    """
    return spectrum @ _band_matrix(spectrum.shape[-1], bands, spectrum.dtype, spectrum.device)


def band_shares(power: Tensor) -> Tensor:
    """Return the shares of power in the low, middle and high band (eq. 2).

    Args:
        power: in ``SPECTRUM_BANDS`` equal bands, shape (..., 16).

    Returns:
        shape (..., 3), as ``band_power``.
    """
    shares = power / total_power(power).unsqueeze(-1)
    edge = SPECTRUM_BANDS // 4
    parts = shares[..., :edge], shares[..., edge:-edge], shares[..., -edge:]
    return torch.stack([part.sum(-1) for part in parts], -1)


def band_power(spectrum: Tensor) -> Tensor:
    """Compute the shares of power in the low, middle and high band (eq. 2).

    Args:
        spectrum: shape (..., bins), from ``power_spectrum``.

    Returns:
        shape (..., 3): shares below .25, from .25 to below .75, and from .75 of the Nyquist frequency on;
        they sum to 1, and are NaN where the spectrum is undefined.

    Example:
        >>> band_power(torch.ones(65)) * 65
        tensor([16., 32., 17.])
    """
    return band_shares(equal_bands(spectrum))


def frequency_selectivity(spectrum: Tensor, *, total: Tensor | None = None) -> Tensor:
    """Divide the strongest bin by the sum of all others, ``max P / (sum P - max P)`` (eq. 3).

    Args:
        spectrum: shape (..., bins), from ``power_spectrum``.
        total: ``total_power(spectrum)``, where it is at hand.

    Returns:
        shape (...); NaN where the spectrum is undefined, and where one bin holds all the power but for
        rounding.

    Example:
        >>> frequency_selectivity(torch.tensor([1.0, 6.0, 2.0]))
        tensor(2.)
    """
    total = total_power(spectrum) if total is None else total
    peak = spectrum.amax(-1)
    rest = total - peak
    noise = torch.finfo(spectrum.dtype).eps * spectrum.shape[-1] * total
    return torch.where(rest > noise, peak / rest, torch.nan)
