"""Discrete wavelet transform as a filter bank on tensors, equal to pywt's, and what it loses (eqs. 4, 11)."""

from functools import lru_cache

import numpy as np
import torch
from pywt import Wavelet, dwt_max_level, wavelist  # pyright: ignore[reportAttributeAccessIssue]
from torch import Tensor

from tracker.errors import unknown_value

MODES: dict[str, str] = {
    "symmetric": "symmetric",
    "reflect": "reflect",
    "constant": "edge",
    "periodic": "wrap",
    "zero": "constant",
}
"""pywt's names of the signal extensions offered, with numpy's names for the same."""


def max_level(length: int, wavelet: str = "db2") -> int:
    """The deepest useful level for signals of ``length`` samples (``pywt.dwt_max_level``)."""
    return dwt_max_level(length, _filters(wavelet)[0].shape[0])


@lru_cache(maxsize=32)
def _filters(wavelet: str) -> np.ndarray:
    """Rows: analysis low and high, synthesis low and high."""
    if wavelet not in wavelist(kind="discrete"):
        raise unknown_value("spectrum.wavelet", wavelet, "pywt.wavelist(kind='discrete')")
    return np.array(Wavelet(wavelet).filter_bank)


def _filters_like(wavelet: str, signal: Tensor) -> list[list[float]]:
    return [[float(tap) for tap in taps] for taps in _filters(wavelet)]


@lru_cache(maxsize=256)
def _edges(length: int, left: int, right: int, mode: str) -> Tensor:
    """Which samples stand for those before the first and after the last."""
    index = np.pad(np.arange(length), (left, right), mode=MODES[mode])  # type: ignore[call-overload]
    return torch.from_numpy(np.concatenate((index[:left], index[left + length :])))


def _extend(signal: Tensor, left: int, right: int, mode: str) -> Tensor:
    if mode == "zero":
        return torch.nn.functional.pad(signal, (left, right))
    outside = signal.index_select(-1, _edges(signal.shape[-1], left, right, mode).to(signal.device))
    return torch.cat((outside[..., :left], signal, outside[..., left:]), -1)


def _analyse(signal: Tensor, low: list[float], high: list[float], mode: str) -> tuple[Tensor, Tensor]:
    """One level: (approximation, detail), each of floor((N + taps - 1) / 2) samples."""
    taps, length = len(low), signal.shape[-1]
    out = (length + taps - 1) // 2
    extended = _extend(signal, taps - 2, 2 * out - length, mode)
    samples = [extended[..., i : i + 2 * out - 1 : 2] for i in range(taps)]
    approximation = samples[0] * low[-1]
    detail = samples[0] * high[-1]
    for i in range(1, taps):
        approximation = torch.add(approximation, samples[i], alpha=low[taps - 1 - i])
        detail = torch.add(detail, samples[i], alpha=high[taps - 1 - i])
    return approximation, detail


def wavelet_coefficients(
    signal: Tensor, *, wavelet: str = "db2", level: int, mode: str = "symmetric"
) -> list[Tensor]:
    """Multilevel wavelet transform, equal to ``pywt.wavedec`` (eq. 4).

    Args:
        signal: shape (..., K).
        wavelet: any of ``pywt.wavelist(kind="discrete")``.
        level: how many times the approximation is split; 0 leaves the signal.
        mode: how the signal goes on beyond its ends, a key of ``MODES``.

    Returns:
        ``[cA_L, cD_L, ..., cD_1]``, each of shape (..., its length).

    Raises:
        RequestError: unknown wavelet or mode.
    """
    if mode not in MODES:
        raise unknown_value("spectrum.mode", mode, MODES)
    low, high = _filters_like(wavelet, signal)[:2]
    details: list[Tensor] = []
    for _ in range(level):
        signal, detail = _analyse(signal, low, high, mode)
        details.append(detail)
    return [signal, *reversed(details)]


def _synthesise(approximation: Tensor, detail: Tensor, low: list[float], high: list[float]) -> Tensor:
    """One level back: the two phases of the output are filtered apart and interleaved."""
    half = len(low) // 2
    count = detail.shape[-1] - half + 1
    phases = []
    for phase in (0, 1):
        total = torch.zeros_like(detail[..., :count])
        for i in range(half):
            part = slice(half - 1 - i, half - 1 - i + count)
            total = torch.add(total, approximation[..., part], alpha=low[phase + 2 * i])
            total = torch.add(total, detail[..., part], alpha=high[phase + 2 * i])
        phases.append(total)
    return torch.stack(phases, -1).flatten(-2)


def reconstruct_signal(coefficients: list[Tensor], *, wavelet: str = "db2") -> Tensor:
    """The inverse of ``wavelet_coefficients``, equal to ``pywt.waverec``.

    Args:
        coefficients: ``[cA_L, cD_L, ..., cD_1]``.
        wavelet: the wavelet they were made with.

    Returns:
        shape (..., K) or (..., K + 1) where K is odd, as pywt does.
    """
    low, high = _filters_like(wavelet, coefficients[0])[2:]
    signal = coefficients[0]
    for detail in coefficients[1:]:
        signal = _synthesise(signal[..., : detail.shape[-1]], detail, low, high)
    return signal


def reconstruction_error(
    signal: Tensor,
    *,
    wavelet: str = "db2",
    level: int,
    mode: str = "symmetric",
    coefficients: list[Tensor] | None = None,
) -> Tensor:
    """Frobenius norm of what the transform there and back loses, over that of the signal (eq. 11).

    Args:
        signal: all rows of a head and sequence, shape (..., Q, K).
        wavelet, level, mode: as in ``wavelet_coefficients``.
        coefficients: the signal's coefficients, where they are already at hand.

    Returns:
        shape (...); NaN where the signal's norm is at most 1e-10.
    """
    if coefficients is None:
        coefficients = wavelet_coefficients(signal, wavelet=wavelet, level=level, mode=mode)
    back = reconstruct_signal(coefficients, wavelet=wavelet)[..., : signal.shape[-1]]
    norm = torch.linalg.matrix_norm(signal)
    return torch.linalg.matrix_norm(back - signal) / torch.where(norm > 1e-10, norm, torch.nan)
