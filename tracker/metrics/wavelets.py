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


@lru_cache(maxsize=256)
def _sources(length: int, left: int, right: int, mode: str) -> list[int]:
    """Which sample stands at each place of a signal extended beyond its ends."""
    return np.pad(np.arange(length), (left, right), mode=MODES[mode]).tolist()  # type: ignore[call-overload]


def _phases(signal: Tensor, left: int, right: int, length: int, mode: str) -> tuple[Tensor, Tensor]:
    """Even and odd places of a signal extended beyond its ends, each side by side in memory."""
    given = signal.shape[-1]
    sources = _sources(length, left, right, mode)
    zero_after = mode == "zero" or given < length
    phases = []
    for phase in (0, 1):
        part = signal.new_empty(*signal.shape[:-1], (left + given + right - phase + 1) // 2)
        first = (left - phase + 1) // 2
        inside = signal[..., 2 * first + phase - left :: 2]
        last = first + inside.shape[-1]
        part[..., first:last] = inside
        for place in (*range(first), *range(last, part.shape[-1])):
            zero = mode == "zero" if place < first else zero_after
            part[..., place] = 0 if zero else signal[..., sources[2 * place + phase]]
        phases.append(part)
    return phases[0], phases[1]


def _filtered(even: Tensor, odd: Tensor, taps: list[float], count: int) -> Tensor:
    """Sum of the taps over samples 2 i + t, the samples of each parity side by side in memory."""
    total = even[..., :count] * taps[0]
    for t in range(1, len(taps)):
        source = odd if t % 2 else even
        total.add_(source[..., t // 2 : t // 2 + count], alpha=taps[t])
    return total


def _analyse(signal: Tensor, filters: list[list[float]], length: int, mode: str) -> tuple[Tensor, Tensor]:
    """One level of a signal of ``length`` samples, given up to its last one that is not zero: its
    (approximation, detail), likewise."""
    low, high = filters[:2]
    taps, given = len(low), signal.shape[-1]
    if given < length and (mode == "periodic" or not taps <= given <= length - taps):
        signal, given = torch.nn.functional.pad(signal, (0, length - given)), length
    count = (given + taps - 1) // 2
    even, odd = _phases(signal, taps - 2, 2 * count - given, length, mode)
    return _filtered(even, odd, low[::-1], count), _filtered(even, odd, high[::-1], count)


def _synthesise(approximation: Tensor, detail: Tensor, low: list[float], high: list[float]) -> Tensor:
    """One level back: the two phases of the output are filtered apart and interleaved."""
    half = len(low) // 2
    count = detail.shape[-1] - half + 1
    phases = []
    for phase in (0, 1):
        total = approximation[..., half - 1 : half - 1 + count] * low[phase]
        total.add_(detail[..., half - 1 : half - 1 + count], alpha=high[phase])
        for i in range(1, half):
            part = slice(half - 1 - i, half - 1 - i + count)
            total.add_(approximation[..., part], alpha=low[phase + 2 * i])
            total.add_(detail[..., part], alpha=high[phase + 2 * i])
        phases.append(total)
    # Complex numbers are interleaved pairs, and torch makes them several times faster than it stacks.
    return torch.view_as_real(torch.complex(*phases)).flatten(-2)


SHORT = 100
"""Signals of at most so many samples are transformed, all levels at once, by one small matrix: there the
filter bank would spend its time on starting operations, not on samples."""


class FilterBank:
    """The multilevel transform there and back, of signals of one length.

    A signal may be given without its last samples where those are zero, as in rows of causal attention;
    its coefficients then come without the zeros behind. Filters halve the signal until it is short, a
    matrix made of the same filters does the remaining levels.

    Args:
        length: samples of the whole signal.
        wavelet: any of ``pywt.wavelist(kind="discrete")``.
        level: how many times the approximation is split; 0 leaves the signal.
        mode: how the signal goes on beyond its ends, a key of ``MODES``.

    Raises:
        RequestError: unknown wavelet or mode.
    """

    def __init__(self, length: int, wavelet: str, level: int, mode: str) -> None:
        if mode not in MODES:
            raise unknown_value("spectrum.mode", mode, MODES)
        self.level, self.mode = level, mode
        self.filters = [[float(tap) for tap in taps] for taps in _filters(wavelet)]
        self.lengths = [length]
        for _ in range(level):
            self.lengths.append((self.lengths[-1] + len(self.filters[0]) - 1) // 2)
        self.steps = next((j for j, each in enumerate(self.lengths) if each <= SHORT), level)
        self.sizes = (self.lengths[-1], *reversed(self.lengths[self.steps + 1 :]))
        """Of the scales in the matrix's part: cA_L, cD_L, ..., down to the filters' last level."""
        self._matrices: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def analyse(self, signal: Tensor) -> list[Tensor]:
        """Coefficients of a signal, shape (..., given): the matrix's scales [cA_L, cD_L, ...] side by side,
        then the filters' details, coarsest first."""
        details: list[Tensor] = []
        for j in range(self.steps):
            signal, detail = _analyse(signal, self.filters, self.lengths[j], self.mode)
            details.append(detail)
        if self.steps < self.level:
            signal = signal @ self._matrix("forward", signal)[: signal.shape[-1]]
        return [signal, *reversed(details)]

    def synthesise(self, parts: list[Tensor]) -> Tensor:
        """The signal of such coefficients, as long as they reach."""
        signal, *details = parts
        if self.steps < self.level:
            signal = signal @ self._matrix("backward", signal)
        for detail in details:
            signal = signal[..., : detail.shape[-1]]
            signal = _synthesise(signal, detail, *self.filters[2:])
        return signal

    def scales(self, parts: list[Tensor]) -> list[Tensor]:
        """[cA_L, cD_L, ..., cD_1] of such coefficients."""
        if self.steps == self.level:
            return parts
        return [*parts[0].split(self.sizes, -1), *parts[1:]]

    def _matrix(self, kind: str, like: Tensor) -> Tensor:
        """The remaining levels as a matrix: the filters applied to every unit impulse, in float64."""
        at = kind, like.dtype, like.device
        if at not in self._matrices:
            size = self.lengths[self.steps]
            if kind == "forward":
                made = torch.cat(self._bank(torch.eye(size, dtype=torch.float64)), -1)
            else:
                impulses = torch.eye(sum(self.sizes), dtype=torch.float64).split(self.sizes, -1)
                made = self._back(list(impulses))[..., :size]
            self._matrices[at] = made.to(like.device, like.dtype)
        return self._matrices[at]

    def _bank(self, signal: Tensor) -> list[Tensor]:
        details: list[Tensor] = []
        for j in range(self.steps, self.level):
            signal, detail = _analyse(signal, self.filters, self.lengths[j], self.mode)
            details.append(detail)
        return [signal, *reversed(details)]

    def _back(self, scales: list[Tensor]) -> Tensor:
        signal = scales[0]
        for detail in scales[1:]:
            signal = _synthesise(signal[..., : detail.shape[-1]], detail, *self.filters[2:])
        return signal


@lru_cache(maxsize=64)
def filter_bank(length: int, wavelet: str, level: int, mode: str) -> FilterBank:
    """The transform of signals of ``length`` samples, made once."""
    return FilterBank(length, wavelet, level, mode)


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
    bank = filter_bank(signal.shape[-1], wavelet, level, mode)
    return bank.scales(bank.analyse(signal))


def reconstruct_signal(coefficients: list[Tensor], *, wavelet: str = "db2") -> Tensor:
    """The inverse of ``wavelet_coefficients``, equal to ``pywt.waverec``.

    Args:
        coefficients: ``[cA_L, cD_L, ..., cD_1]``.
        wavelet: the wavelet they were made with.

    Returns:
        shape (..., K) or (..., K + 1) where K is odd, as pywt does.
    """
    low, high = ([float(tap) for tap in taps] for taps in _filters(wavelet)[2:])
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
