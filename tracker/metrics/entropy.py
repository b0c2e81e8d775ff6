"""Entropies of attention, in nats: spectral, positional, per scale and per window (eqs. 5-9)."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.special import entr

from tracker.metrics.spectral import total_power

MINIMUM_SAMPLES = 8
"""Fewer samples than this give no correlation."""
EMPTY_WINDOW = 1e-10
"""A window of keys with this attention or less has no entropy."""


def spectral_entropy(spectrum: Tensor) -> Tensor:
    """Entropy of the normalised power spectrum, ``-sum p log p`` with ``p = P / sum P`` (eq. 7).

    Args:
        spectrum: shape (..., bins).

    Returns:
        nats, shape (...); NaN where the spectrum is undefined.
    """
    return entr(spectrum / total_power(spectrum).unsqueeze(-1)).sum(-1)


def positional_entropy(signal: Tensor) -> Tensor:
    """Entropy of attention over key positions, ``-sum a log a`` (eq. 6).

    Args:
        signal: probabilities, shape (..., K).

    Returns:
        nats, shape (...).
    """
    return entr(signal).sum(-1)


def wavelet_entropy(coefficients: list[Tensor], *, normalised: bool = False) -> Tensor:
    """Entropy of squared wavelet coefficients per scale, ``-sum W^2 log W^2`` (eq. 5).

    Args:
        coefficients: from ``wavelet_coefficients``, coarsest first, each of shape (..., length).
        normalised: divide each scale's energies by their sum first; eq. 5 does not.

    Returns:
        nats, shape (..., scales); unnormalised values may be negative. Normalised, a scale without
        energy is NaN.
    """
    energies = [scale.square() for scale in coefficients]
    if normalised:
        energies = [energy / energy.sum(-1, keepdim=True) for energy in energies]
    return torch.stack([entr(energy).sum(-1) for energy in energies], -1)


def window_entropy(signal: Tensor, width: int) -> Tensor:
    """Mean entropy inside windows of keys, as a share of its largest value (table 2).

    The keys are cut into windows of ``width``, a last short one is left out; attention is renormalised
    inside each, its entropy divided by ``log(width)``, and averaged over the windows that hold any.

    Args:
        signal: probabilities, shape (..., K).
        width: keys per window, at least 2.

    Returns:
        share, shape (...); NaN where no window is full or none holds attention.
    """
    windows = signal.shape[-1] // width
    if windows == 0:
        return torch.full(signal.shape[:-1], torch.nan, dtype=signal.dtype, device=signal.device)
    parts = signal[..., : windows * width].unflatten(-1, (windows, width))
    mass = parts.sum(-1)
    entropy = (entr(parts).sum(-1) / mass + mass.log()) / math.log(width)
    return torch.where(mass > EMPTY_WINDOW, entropy, torch.nan).nanmean(-1)


class CoMoments:
    """Running Pearson correlation over pooled samples, one per head, in float64.

    Batches are merged by their means and co-moments (Chan, Golub, LeVeque 1983), so many samples cost
    no memory and lose no digits.
    """

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self.count = torch.zeros(shape, dtype=torch.float64)
        self.mean = torch.zeros(2, *shape, dtype=torch.float64)
        self.moments = torch.zeros(3, *shape, dtype=torch.float64)

    def add(self, index: Any, x: Tensor, y: Tensor) -> None:
        """Pools samples for the heads at ``index``.

        Args:
            index: one index, slice or ellipsis into the first axis of the shape given at the start; what
                it selects has the shape of ``x`` without its last axis.
            x, y: shape (..., samples); pairs in which either is NaN are left out.
        """
        x, y = x.to("cpu", torch.float64), y.to("cpu", torch.float64)
        both = x.isfinite() & y.isfinite()
        count = both.sum(-1).double()
        pair = torch.stack((x, y)).where(both, 0.0)
        mean = pair.sum(-1) / count.clamp(min=1)
        dx, dy = ((pair - mean.unsqueeze(-1)) * both).unbind(0)
        moments = torch.stack(((dx * dx).sum(-1), (dy * dy).sum(-1), (dx * dy).sum(-1)))
        at = (slice(None), index)
        old, shift = self.count[index], mean - self.mean[at]
        total = (old + count).clamp(min=1)
        weight = old * count / total
        product = torch.stack((shift[0] ** 2, shift[1] ** 2, shift[0] * shift[1]))
        self.moments[at] += moments + product * weight
        self.mean[at] += shift * (count / total)
        self.count[index] += count

    def correlation(self) -> Tensor:
        """Pearson's r; NaN under ``MINIMUM_SAMPLES`` samples or where either side does not vary."""
        xx, yy, xy = self.moments
        defined = (self.count >= MINIMUM_SAMPLES) & (xx > 0) & (yy > 0)
        return torch.where(defined, xy / (xx * yy).sqrt(), torch.nan).clamp(-1, 1)


def position_spectrum_correlation(positional: Tensor, spectral: Tensor) -> Tensor:
    """Pearson correlation of positional and spectral entropy over samples (eqs. 8, 9).

    Args:
        positional: shape (..., samples), NaN where undefined.
        spectral: shape (..., samples), NaN where undefined.

    Returns:
        float64, shape (...); NaN under 8 samples in which both are defined.
    """
    pooled = CoMoments(tuple(positional.shape[:-1]))
    pooled.add(..., positional, spectral)
    return pooled.correlation()
