"""Scale sensitivity: how much attention changes its shape when tokens are left out (eq. 10)."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tracker.errors import unknown_value
from tracker.metrics.coefficients import Products, coefficient_product
from tracker.metrics.wavelets import max_level, wavelet_coefficients
from tracker.records import CONVENTION_CHOICES

SAMPLES = CONVENTION_CHOICES["sample"]
ALIGNMENTS = CONVENTION_CHOICES["align"]


def kept_positions(n: int, alpha: float, *, sample: str = "stride", seed: int = 0) -> np.ndarray:
    """Choose which tokens of ``n`` a shortened sequence keeps, in order.

    Args:
        n: tokens of the full sequence.
        alpha: share that is kept; m = floor(alpha n).
        sample: ``stride`` keeps floor(i n / m), ``prefix`` the first m, ``random`` m of them drawn once.
        seed: of the draw.

    Returns:
        int64, shape (m,), increasing.

    Raises:
        RequestError: unknown way of sampling.

    Example:
        >>> kept_positions(10, 0.5)
        array([0, 2, 4, 6, 8])
    """
    if sample not in SAMPLES:
        raise unknown_value("spectrum.sample", sample, SAMPLES)
    kept = math.floor(alpha * n)
    if sample == "prefix":
        return np.arange(kept)
    if sample == "random":
        return np.sort(np.random.default_rng(seed).choice(n, kept, replace=False))
    return np.arange(kept) * n // kept


def scale_level(n: int, alphas: tuple[float, ...], wavelet: str = "db2") -> int:
    """Return the wavelet level that the shortest variant of ``n`` tokens allows.

    Example:
        >>> scale_level(96, (0.5, 0.25))
        3
    """
    return max_level(math.floor(min(alphas) * n), wavelet)


@dataclass(frozen=True)
class Comparison:
    """How signals over ``keys`` samples are compared with those of a shortened sequence (eq. 10)."""

    keys: int
    positions: Tensor
    """Where the kept tokens stood, int64, shape (m,)."""
    level: int
    align: str = "interpolate"
    wavelet: str = "db2"
    mode: str = "symmetric"

    def sensitivity(self, signal: Tensor, scaled_signal: Tensor) -> Tensor:
        """Compute ``scale_sensitivity``, shape (...), of signals given up to their last non-zero sample.

        Raises:
            RequestError: unknown alignment, or sequences too short for ``dilate``.
        """
        if self.align not in ALIGNMENTS:
            raise unknown_value("spectrum.align", self.align, ALIGNMENTS)
        kept = len(self.positions)
        if self.align == "interpolate":
            transform = self.keys, self.wavelet, self.level, self.mode
            product = coefficient_product(*transform, signal.dtype, signal.device)
            if product is not None:
                return 1 - _cosine(*product(signal, _resampled(scaled_signal, kept, self.keys)))
        full, short = _padded(signal, self.keys), _padded(scaled_signal, kept)
        if self.align == "dilate":
            return 1 - _cosine(*_products(*self._dilated(full, short)))
        if self.align == "interpolate":
            short = _resampled(short, kept, self.keys)
        else:
            full = full.index_select(-1, self.positions)
            full = full / full.sum(-1, keepdim=True)
        pair = (self._coefficients(each, self.level) for each in (full, short))
        return 1 - _cosine(*_products(*pair))

    def _coefficients(self, signal: Tensor, level: int) -> list[Tensor]:
        return wavelet_coefficients(signal, wavelet=self.wavelet, level=level, mode=self.mode)

    def _dilated(self, signal: Tensor, scaled: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Coefficients of equal meaning: level j of the signal against level j - log2(1 / alpha)."""
        shift = round(math.log2(signal.shape[-1] / scaled.shape[-1]))
        if shift >= self.level:
            raise unknown_value("spectrum.align", "dilate", f"sequences long enough for {shift + 1} levels")
        ours = self._coefficients(signal, self.level)[: self.level - shift + 1]
        theirs = self._coefficients(scaled, self.level - shift)
        sizes = [min(a.shape[-1], b.shape[-1]) for a, b in zip(ours, theirs, strict=True)]
        return (
            [c[..., :size] for c, size in zip(ours, sizes, strict=True)],
            [c[..., :size] for c, size in zip(theirs, sizes, strict=True)],
        )


def scale_sensitivity(
    signal: Tensor,
    scaled_signal: Tensor,
    *,
    positions: Tensor,
    level: int,
    align: str = "interpolate",
    wavelet: str = "db2",
    mode: str = "symmetric",
) -> Tensor:
    """Compute one minus the cosine of all wavelet coefficients of a signal and its shortened twin (eq. 10).

    Args:
        signal: attention of the full sequence, shape (..., K); for rows, those of the kept tokens.
        scaled_signal: attention of the shortened sequence at the same tokens, shape (..., m).
        positions: where the kept tokens stood, int64, shape (m,).
        level: wavelet level, the one that the shortest variant of the run allows (``scale_level``).
        align: ``interpolate`` resamples the shorter signal linearly onto K, both ends aligned;
            ``gather`` restricts the longer one to ``positions`` and renormalises it; ``dilate`` compares
            level j of the one with level j - log2(1 / alpha) of the other and leaves out the finest.
        wavelet, mode: as in ``wavelet_coefficients``.

    Returns:
        between 0 and 2, shape (...); NaN where either signal is zero.

    Raises:
        RequestError: unknown alignment, or sequences too short for ``dilate``.

    Example:
        >>> uniform, positions = torch.full((96,), 1 / 96), torch.from_numpy(kept_positions(96, 0.5))
        >>> found = scale_sensitivity(uniform, 2 * uniform[:48], positions=positions, level=3)
        >>> bool(found.abs() < 1e-6)
        True
    """
    how = Comparison(signal.shape[-1], positions, level, align, wavelet, mode)
    return how.sensitivity(signal, scaled_signal)


def _padded(signal: Tensor, length: int) -> Tensor:
    return F.pad(signal, (0, length - signal.shape[-1]))


def _resampled(signal: Tensor, length: int, n: int) -> Tensor:
    """Signals of ``length`` samples resampled linearly onto n, ends aligned, up to their last non-zero
    sample."""
    given = signal.shape[-1]
    reach = n if given == length or length < 2 else min(n, -(-given * (n - 1) // (length - 1)))
    if signal.device.type != "cpu":  # torch's interpolation walks through all signals in a few threads there
        return signal @ _interpolation(length, n, signal.dtype, signal.device)[:given, :reach]
    flat = _padded(signal, length).reshape(-1, 1, length)
    longer = F.interpolate(flat, size=n, mode="linear", align_corners=True)
    return longer.view(*signal.shape[:-1], n)[..., :reach]


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _interpolation(length: int, n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """What resamples ``length`` samples linearly onto n, ends aligned, shape (length, n)."""
    impulses = torch.eye(length, dtype=torch.float64).unsqueeze(1)
    made = F.interpolate(impulses, size=n, mode="linear", align_corners=True).squeeze(1)
    return made.to(device, dtype)


def _products(ours: list[Tensor], theirs: list[Tensor]) -> Products:
    """Inner products of two lists of coefficients, each taken as one vector, without concatenating them."""
    pairs = ((ours, ours), (theirs, theirs), (ours, theirs))
    xx, yy, xy = (torch.stack([(a * b).sum(-1) for a, b in zip(*pair, strict=True)]).sum(0) for pair in pairs)
    return xx, yy, xy


def _cosine(xx: Tensor, yy: Tensor, xy: Tensor) -> Tensor:
    norm = (xx * yy).sqrt()
    return xy / torch.where(norm > 1e-10, norm, torch.nan)
