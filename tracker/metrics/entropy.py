"""Entropies of attention, in nats: spectral, positional, per scale and per window (eqs. 5-9)."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tracker.metrics.spectral import total_power

MINIMUM_SAMPLES = 8
"""Fewer samples than this give no correlation."""
EMPTY_WINDOW = 1e-10
"""A window of keys with this attention or less has no entropy."""


def x_log_x(x: Tensor) -> Tensor:
    """Compute ``x log x`` element by element, 0 at 0; the same shape.

    On a processor by numpy, whose logarithm takes a third of the time that torch's takes.
    """
    if x.device.type != "cpu" or x.requires_grad or x.dtype not in (torch.float32, torch.float64):
        return torch.special.xlogy(x, x)
    logarithm = x + torch.finfo(x.dtype).tiny
    np.log(logarithm.numpy(), out=logarithm.numpy())
    return logarithm.mul_(x)


def spectral_entropy(spectrum: Tensor, *, total: Tensor | None = None) -> Tensor:
    """Compute the entropy of the normalised power spectrum, ``-sum p log p`` with ``p = P / sum P`` (eq. 7).

    Worked out as ``log T - sum P log P / T`` with ``T = sum P``.

    Args:
        spectrum: shape (..., bins), from ``power_spectrum``.
        total: ``total_power(spectrum)``, where it is at hand.

    Returns:
        nats, shape (...); NaN where the spectrum is undefined.

    Example:
        >>> round(float(spectral_entropy(torch.ones(65)).exp()), 3)
        65.0
    """
    total = total_power(spectrum) if total is None else total
    return total.log() - x_log_x(spectrum).sum(-1) / total


def position_entropies(signal: Tensor, widths: Sequence[int] = ()) -> tuple[Tensor, list[Tensor]]:
    """Compute positional and window entropies from one pass over the keys.

    Args:
        signal: probabilities, shape (..., K).
        widths: of windows; sums over wide windows are made of sums over narrow ones.

    Returns:
        (``positional_entropy``, ``window_entropy`` for each width), each of shape (...).
    """
    information = x_log_x(signal)
    positional = -information.sum(-1)
    if not widths:
        return positional, []
    narrow = math.gcd(*widths)
    mass, inner = (_window_sums(each, narrow) for each in (signal, information))
    return positional, [_window_entropy(mass, inner, narrow, width) for width in widths]


def positional_entropy(signal: Tensor) -> Tensor:
    """Compute the entropy of attention over key positions, ``-sum a log a`` (eq. 6).

    Args:
        signal: probabilities, shape (..., K).

    Returns:
        nats, shape (...).

    Example:
        >>> round(float(positional_entropy(torch.full((8,), 1 / 8)).exp()), 3)
        8.0
    """
    return position_entropies(signal)[0]


def window_entropy(signal: Tensor, width: int) -> Tensor:
    """Compute the mean entropy inside windows of keys, as a share of its largest value (table 2).

    The keys are cut into windows of ``width``, a last short one is left out; attention is renormalised
    inside each, its entropy divided by ``log(width)``, and averaged over the windows that hold any.

    Args:
        signal: probabilities, shape (..., K).
        width: keys per window, at least 2.

    Returns:
        share, shape (...); NaN where no window is full or none holds attention.

    Example:
        >>> round(float(window_entropy(torch.full((32,), 1 / 32), 16)), 3)
        1.0
    """
    return position_entropies(signal, (width,))[1][0]


def _window_sums(values: Tensor, width: int) -> Tensor:
    """Sums over full windows, shape (..., windows)."""
    windows = values.shape[-1] // width
    return values[..., : windows * width].unflatten(-1, (windows, width)).sum(-1)


def _window_entropy(mass: Tensor, information: Tensor, narrow: int, width: int) -> Tensor:
    if width > narrow:
        mass, information = (_window_sums(each, width // narrow) for each in (mass, information))
    full = mass > EMPTY_WINDOW
    entropy = torch.where(full, mass.log() - information / mass, 0.0).sum(-1) / math.log(width)
    return entropy / full.sum(-1)  # 0 / 0 where no window is full or none holds attention


def scale_entropies(
    energies: list[Tensor], split: Callable[[list[Tensor]], list[Tensor]] | None = None
) -> list[Tensor]:
    """Compute ``-sum E log E`` of each scale's energies.

    Args:
        energies: squared wavelet coefficients, each of shape (..., length).
        split: takes scales apart that lie side by side in one tensor (``FilterBank.scales``).
    """
    information = [x_log_x(each) for each in energies]
    return [-scale.sum(-1) for scale in (split(information) if split else information)]


def wavelet_entropy(coefficients: list[Tensor], *, normalised: bool = False) -> Tensor:
    """Compute the entropy of squared wavelet coefficients per scale, ``-sum W^2 log W^2`` (eq. 5).

    Args:
        coefficients: from ``wavelet_coefficients``, coarsest first, each of shape (..., length).
        normalised: divide each scale's energies by their sum first; eq. 5 does not.

    Returns:
        nats, shape (..., scales); unnormalised values may be negative. Normalised, a scale without
        energy is NaN.

    Example:
        >>> found = wavelet_entropy([torch.ones(4), torch.ones(8)], normalised=True)
        >>> [round(float(entropy.exp()), 3) for entropy in found]
        [4.0, 8.0]
    """
    energies = [scale.square() for scale in coefficients]
    if normalised:
        energies = [energy / energy.sum(-1, keepdim=True) for energy in energies]
    return torch.stack(scale_entropies(energies), -1)


def co_moments(x: Tensor, y: Tensor) -> Tensor:
    """Compute what a correlation needs of some samples, in float64 where they are.

    Args:
        x, y: shape (..., samples); pairs in which either is NaN are left out.

    Returns:
        shape (6, ...): number of pairs, means of x and y, sums of squared deviations of x, of y and of
        their products.
    """
    both = x.isfinite() & y.isfinite()
    count = both.sum(-1).double()
    pair = torch.stack((x, y)).double().where(both, 0.0)
    mean = pair.sum(-1) / count.clamp(min=1)
    dx, dy = ((pair - mean.unsqueeze(-1)) * both).unbind(0)
    sums = (dx * dx).sum(-1), (dy * dy).sum(-1), (dx * dy).sum(-1)
    return torch.stack((count, *mean, *sums))


class CoMoments:
    """Running Pearson correlation over pooled samples, one per head, in float64.

    Batches are merged by their means and co-moments (Chan, Golub, LeVeque 1983), so many samples cost
    no memory and lose no digits.

    Args:
        shape: of the heads.
    """

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self.count = torch.zeros(shape, dtype=torch.float64)
        self.mean = torch.zeros(2, *shape, dtype=torch.float64)
        self.moments = torch.zeros(3, *shape, dtype=torch.float64)

    def add(self, index: Any, x: Tensor, y: Tensor) -> None:
        """Pool samples for the heads at ``index``.

        Args:
            index: one index, slice or ellipsis into the first axis of the shape given at the start; what
                it selects has the shape of ``x`` without its last axis.
            x, y: shape (..., samples); pairs in which either is NaN are left out.
        """
        self.merge(index, co_moments(x, y).cpu())

    def merge(self, index: Any, found: Tensor) -> None:
        """Pool what ``co_moments`` found, on the host, for the heads at ``index``, as in ``add``."""
        count, mean, moments = found[0], found[1:3], found[3:]
        at = (slice(None), index)
        old, shift = self.count[index], mean - self.mean[at]
        total = (old + count).clamp(min=1)
        weight = old * count / total
        product = torch.stack((shift[0] ** 2, shift[1] ** 2, shift[0] * shift[1]))
        self.moments[at] += moments + product * weight
        self.mean[at] += shift * (count / total)
        self.count[index] += count

    def correlation(self) -> Tensor:
        """Return Pearson's r; NaN under ``MINIMUM_SAMPLES`` samples or where either side does not vary."""
        xx, yy, xy = self.moments
        defined = (self.count >= MINIMUM_SAMPLES) & (xx > 0) & (yy > 0)
        return torch.where(defined, xy / (xx * yy).sqrt(), torch.nan).clamp(-1, 1)


def position_spectrum_correlation(positional: Tensor, spectral: Tensor) -> Tensor:
    """Compute the Pearson correlation of positional and spectral entropy over samples (eqs. 8, 9).

    Args:
        positional: shape (..., samples), NaN where undefined.
        spectral: shape (..., samples), NaN where undefined.

    Returns:
        float64, shape (...); NaN under 8 samples in which both are defined.

    Example:
        >>> position_spectrum_correlation(torch.arange(9.0), 3 - torch.arange(9.0))
        tensor(-1., dtype=torch.float64)
    """
    pooled = CoMoments(tuple(positional.shape[:-1]))
    pooled.add(..., positional, spectral)
    return pooled.correlation()
