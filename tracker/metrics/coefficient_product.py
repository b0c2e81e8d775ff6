"""Inner products of wavelet coefficients, worked out from the signals: an orthogonal transform keeps them,
up to what the signals' extension beyond their ends adds."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from tracker.metrics.wavelet import filter_bank

NEGLIGIBLE = 1e-9
"""Entries and eigenvalues of the Gram matrix below this are rounding."""


@dataclass(frozen=True)
class EndCorrection:
    """What one end of the signal adds: ``sum_i weights_i (x U)_i (y U)_i`` over the samples from ``start``.

    directions: U, shape (samples, r); weights: shape (r,).
    """

    start: int
    directions: Tensor
    weights: Tensor

    def project(self, signal: Tensor) -> Tensor | None:
        """x U, shape (..., r), of a signal given up to its last sample that is not zero."""
        inside = min(signal.shape[-1] - self.start, len(self.directions))
        if inside <= 0:
            return None
        return signal[..., self.start : self.start + inside] @ self.directions[:inside]


@dataclass(frozen=True)
class CoefficientProduct:
    """<W x, W y> for a multilevel transform W of signals of one length, without transforming either.

    With W^T W = I + E the product is <x, y> + x^T E y. For an orthogonal wavelet E comes from the extension
    alone: it touches some samples at either end and has a rank of a few per level.
    """

    ends: tuple[EndCorrection, ...]

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """The product of signals (..., given), the shorter of the two going on with zeros; shape (...)."""
        size = min(x.shape[-1], y.shape[-1])
        total = (x[..., :size] * y[..., :size]).sum(-1)
        for end in self.ends:
            ours, theirs = end.project(x), end.project(y)
            if ours is not None and theirs is not None:
                total = total + (ours * theirs) @ end.weights
        return total


@lru_cache(maxsize=32)
def coefficient_product(
    length: int, wavelet: str, level: int, mode: str, dtype: torch.dtype, device: torch.device
) -> CoefficientProduct | None:
    """The product for ``filter_bank(length, wavelet, level, mode)``; None where W is not orthogonal but for
    its ends, so that transforming is the better way."""
    bank = filter_bank(length, wavelet, level, mode)
    transform = torch.cat(bank.analyse(torch.eye(length, dtype=torch.float64)), -1)
    excess = transform @ transform.mT - torch.eye(length, dtype=torch.float64)
    touched = (excess.abs() > NEGLIGIBLE).any(-1)
    middle = length // 2
    left = int(touched[:middle].nonzero().max()) + 1 if touched[:middle].any() else 0
    right = middle + int(touched[middle:].nonzero().min()) if touched[middle:].any() else length
    if right - left < middle or (excess[:middle, middle:].abs() > NEGLIGIBLE).any():
        return None
    ends = (_correction(excess, 0, left), _correction(excess, right, length))
    return CoefficientProduct(
        tuple(
            EndCorrection(end.start, end.directions.to(device, dtype), end.weights.to(device, dtype))
            for end in ends
            if len(end.weights)
        )
    )


def _correction(excess: Tensor, start: int, stop: int) -> EndCorrection:
    weights, directions = torch.linalg.eigh(excess[start:stop, start:stop])
    large = weights.abs() > NEGLIGIBLE
    return EndCorrection(start, directions[:, large], weights[large])
