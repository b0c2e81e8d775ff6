"""Scale sensitivity: how much attention changes its shape when tokens are left out (eq. 10)."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tracker.errors import unknown_value
from tracker.metrics.wavelets import max_level, wavelet_coefficients
from tracker.records import CONVENTION_CHOICES

SAMPLES = CONVENTION_CHOICES["sample"]
ALIGNMENTS = CONVENTION_CHOICES["align"]


def kept_positions(n: int, alpha: float, *, sample: str = "stride", seed: int = 0) -> np.ndarray:
    """Which tokens of ``n`` a shortened sequence keeps, in order.

    Args:
        n: tokens of the full sequence.
        alpha: share that is kept; m = floor(alpha n).
        sample: ``stride`` keeps floor(i n / m), ``prefix`` the first m, ``random`` m of them drawn once.
        seed: of the draw.

    Returns:
        int64, shape (m,), increasing.

    Raises:
        RequestError: unknown way of sampling.
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
    """The wavelet level that the shortest variant of ``n`` tokens allows."""
    return max_level(math.floor(min(alphas) * n), wavelet)


def _interpolate(signal: Tensor, scaled: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    flat = scaled.reshape(-1, 1, scaled.shape[-1])
    longer = F.interpolate(flat, size=signal.shape[-1], mode="linear", align_corners=True)
    return signal, longer.reshape(*scaled.shape[:-1], signal.shape[-1])


def _gather(signal: Tensor, scaled: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    shorter = signal.index_select(-1, positions)
    return shorter / shorter.sum(-1, keepdim=True), scaled


def _dilated(
    signal: Tensor,
    scaled: Tensor,
    level: int,
    transform: Callable[..., list[Tensor]],
) -> tuple[list[Tensor], list[Tensor]]:
    """Coefficients of equal meaning: level j of the signal against level j - log2(1 / alpha)."""
    shift = round(math.log2(signal.shape[-1] / scaled.shape[-1]))
    if shift >= level:
        raise unknown_value("spectrum.align", "dilate", f"sequences long enough for {shift + 1} levels")
    ours = transform(signal, level=level)[: level - shift + 1]
    theirs = transform(scaled, level=level - shift)
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
    """One minus the cosine of all wavelet coefficients of a signal and of its shortened twin (eq. 10).

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
    """

    def transform(x: Tensor, *, level: int) -> list[Tensor]:
        return wavelet_coefficients(x, wavelet=wavelet, level=level, mode=mode)

    if align not in ALIGNMENTS:
        raise unknown_value("spectrum.align", align, ALIGNMENTS)
    if align == "dilate":
        pairs = _dilated(signal, scaled_signal, level, transform)
    else:
        resample = _interpolate if align == "interpolate" else _gather
        first, second = resample(signal, scaled_signal, positions)
        pairs = transform(first, level=level), transform(second, level=level)
    return 1 - _cosine(*pairs)


def _cosine(ours: list[Tensor], theirs: list[Tensor]) -> Tensor:
    """Cosine of two lists of coefficients taken as one vector each, without concatenating them."""

    def product(left: list[Tensor], right: list[Tensor]) -> Tensor:
        parts = [(a * b).sum(-1) for a, b in zip(left, right, strict=True)]
        return torch.stack(parts).sum(0)

    norm = (product(ours, ours) * product(theirs, theirs)).sqrt()
    return product(ours, theirs) / torch.where(norm > 1e-10, norm, torch.nan)
