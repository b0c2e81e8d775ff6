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
    """Return the deepest useful level for signals of ``length`` samples (``pywt.dwt_max_level``).

    Raises:
        RequestError: unknown wavelet.

    Example:
        >>> max_level(96)
        5
    """
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


SHORT, SHORT_GPU = 100, 1024
"""Signals of at most so many samples are transformed, all levels at once, by one matrix: there the filter
bank would spend its time on starting operations, not on samples."""


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
        short: samples up to which a signal is short.

    Raises:
        RequestError: unknown wavelet or mode.
    """

    def __init__(self, length: int, wavelet: str, level: int, mode: str, short: int = SHORT) -> None:
        if mode not in MODES:
            raise unknown_value("spectrum.mode", mode, MODES)
        self.level, self.mode = level, mode
        self.filters = [[float(tap) for tap in taps] for taps in _filters(wavelet)]
        self.lengths = [length]
        for _ in range(level):
            self.lengths.append((self.lengths[-1] + len(self.filters[0]) - 1) // 2)
        self.steps = next((j for j, each in enumerate(self.lengths) if each <= short), level)
        self.sizes = (self.lengths[-1], *reversed(self.lengths[self.steps + 1 :]))
        """Of the scales in the matrix's part: cA_L, cD_L, ..., down to the filters' last level."""
        self._matrices: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def analyse(self, signal: Tensor) -> list[Tensor]:
        """Compute the coefficients of a signal, shape (..., given): the matrix's scales [cA_L, cD_L, ...]
        side by side, then the filters' details, coarsest first."""
        signal, *details = self._split(signal, range(self.steps))
        if self.steps < self.level:
            signal = signal @ self._matrix("forward", signal)[: signal.shape[-1]]
        return [signal, *details]

    def synthesise(self, parts: list[Tensor]) -> Tensor:
        """Compute the signal of such coefficients, as long as they reach."""
        signal, *details = parts
        if self.steps < self.level:
            signal = signal @ self._matrix("backward", signal)
        return _join([signal, *details], *self.filters[2:])

    def scales(self, parts: list[Tensor]) -> list[Tensor]:
        """Take such coefficients apart: [cA_L, cD_L, ..., cD_1]."""
        if self.steps == self.level:
            return parts
        return [*parts[0].split(self.sizes, -1), *parts[1:]]

    def parts(self, scales: list[Tensor]) -> list[Tensor]:
        """Put [cA_L, cD_L, ..., cD_1] side by side as ``analyse`` does."""
        if self.steps == self.level:
            return scales
        return [torch.cat(scales[: len(self.sizes)], -1), *scales[len(self.sizes) :]]

    def _split(self, signal: Tensor, levels: range) -> list[Tensor]:
        details: list[Tensor] = []
        for j in levels:
            signal, detail = _analyse(signal, self.filters, self.lengths[j], self.mode)
            details.append(detail)
        return [signal, *reversed(details)]

    @torch.inference_mode(False)
    def _matrix(self, kind: str, like: Tensor) -> Tensor:
        """The remaining levels as a matrix: the filters applied to every unit impulse, in float64."""
        at = kind, like.dtype, like.device
        if at not in self._matrices:
            size = self.lengths[self.steps]
            if kind == "forward":
                impulses = torch.eye(size, dtype=torch.float64)
                made = torch.cat(self._split(impulses, range(self.steps, self.level)), -1)
            else:
                impulses = torch.eye(sum(self.sizes), dtype=torch.float64)
                made = _join(list(impulses.split(self.sizes, -1)), *self.filters[2:])[..., :size]
            self._matrices[at] = made.to(like.device, like.dtype)
        return self._matrices[at]


def _join(scales: list[Tensor], low: list[float], high: list[float]) -> Tensor:
    """All levels back, from an approximation and details, coarsest first."""
    signal, *details = scales
    for detail in details:
        signal = _synthesise(signal[..., : detail.shape[-1]], detail, low, high)
    return signal


@lru_cache(maxsize=64)
def filter_bank(length: int, wavelet: str, level: int, mode: str, short: int = SHORT) -> FilterBank:
    """Return the transform of signals of ``length`` samples, made once."""
    return FilterBank(length, wavelet, level, mode, short)


def wavelet_coefficients(
    signal: Tensor, *, wavelet: str = "db2", level: int, mode: str = "symmetric"
) -> list[Tensor]:
    """Compute the multilevel wavelet transform, equal to ``pywt.wavedec`` (eq. 4).

    Args:
        signal: shape (..., K).
        wavelet: any of ``pywt.wavelist(kind="discrete")``.
        level: how many times the approximation is split; 0 leaves the signal.
        mode: how the signal goes on beyond its ends, a key of ``MODES``.

    Returns:
        ``[cA_L, cD_L, ..., cD_1]``, each of shape (..., its length).

    Raises:
        RequestError: unknown wavelet or mode.

    Example:
        >>> [tuple(scale.shape) for scale in wavelet_coefficients(torch.rand(3, 96), level=2)]
        [(3, 26), (3, 26), (3, 49)]
    """
    bank = filter_bank(signal.shape[-1], wavelet, level, mode)
    return bank.scales(bank.analyse(signal))


def reconstruct_signal(coefficients: list[Tensor], *, wavelet: str = "db2") -> Tensor:
    """Invert ``wavelet_coefficients``, equal to ``pywt.waverec``.

    Args:
        coefficients: ``[cA_L, cD_L, ..., cD_1]``.
        wavelet: the wavelet they were made with.

    Returns:
        shape (..., K) or (..., K + 1) where K is odd, as pywt does.

    Example:
        >>> signal = torch.rand(96, dtype=torch.float64)
        >>> torch.allclose(reconstruct_signal(wavelet_coefficients(signal, level=3)), signal)
        True
    """
    low, high = ([float(tap) for tap in taps] for taps in _filters(wavelet)[2:])
    return _join(coefficients, low, high)


def reconstruction_squares(signal: Tensor, parts: list[Tensor], bank: FilterBank) -> Tensor:
    """Compute the squared norm of each row, and of what the transform there and back loses of it.

    Args:
        signal: shape (..., given).
        parts: its coefficients, from ``bank.analyse``.
        bank: the transform.

    Returns:
        shape (..., 2).
    """
    back = bank.synthesise(parts)[..., : bank.lengths[0]]
    if not bank.level:  # then it is the signal itself
        back = back.clone()
    back[..., : signal.shape[-1]].sub_(signal)
    return torch.stack([torch.linalg.vector_norm(each, dim=-1).square() for each in (signal, back)], -1)


def relative_loss(squares: Tensor) -> Tensor:
    """Divide the norm of what is lost by that of the signal; (..., 2), summed over rows, to (...).

    NaN where the signal's norm is at most 1e-10.
    """
    norm, lost = squares.sqrt().unbind(-1)
    return lost / torch.where(norm > 1e-10, norm, torch.nan)


def reconstruction_error(
    signal: Tensor,
    *,
    wavelet: str = "db2",
    level: int,
    mode: str = "symmetric",
    coefficients: list[Tensor] | None = None,
) -> Tensor:
    """Divide the Frobenius norm of what the transform there and back loses by that of the signal (eq. 11).

    Args:
        signal: all rows of a head and sequence, shape (..., Q, K).
        wavelet, level, mode: as in ``wavelet_coefficients``.
        coefficients: other coefficients than the signal's own to go back from.

    Returns:
        shape (...); NaN where the signal's norm is at most 1e-10.

    Example:
        >>> bool(reconstruction_error(torch.rand(4, 96), level=5) < 1e-6)
        True
    """
    bank = filter_bank(signal.shape[-1], wavelet, level, mode)
    parts = bank.analyse(signal) if coefficients is None else bank.parts(coefficients)
    return relative_loss(reconstruction_squares(signal, parts, bank).sum(-2))
