"""Inner products of wavelet coefficients, worked out from the signals: an orthogonal transform keeps them,
up to what the signals' extension beyond their ends adds."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from tracker.metrics.wavelets import FilterBank, filter_bank

Products = tuple[Tensor, Tensor, Tensor]
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
        """Compute x U, shape (..., r), of a signal given up to its last sample that is not zero."""
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

    def __call__(self, x: Tensor, y: Tensor) -> Products:
        """Compute <x, x>, <y, y> and <x, y>, each of shape (...), of signals (..., given), the shorter
        going on with zeros."""
        size = min(x.shape[-1], y.shape[-1])
        xx, yy = (torch.linalg.vector_norm(each, dim=-1).square() for each in (x, y))
        xy = (x[..., :size] * y[..., :size]).sum(-1)
        for end in self.ends:
            ours, theirs = end.project(x), end.project(y)
            if ours is not None:
                xx = xx + ours.square() @ end.weights
            if theirs is not None:
                yy = yy + theirs.square() @ end.weights
            if ours is not None and theirs is not None:
                xy = xy + (ours * theirs) @ end.weights
        return xx, yy, xy


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def coefficient_product(
    length: int, wavelet: str, level: int, mode: str, dtype: torch.dtype, device: torch.device
) -> CoefficientProduct | None:
    """Make the product for ``filter_bank(length, wavelet, level, mode)``.

    Returns:
        None where W is not orthogonal but for its ends, so that transforming is the better way.
    """
    bank = filter_bank(length, wavelet, level, mode)
    reach = min(length // 2, (len(bank.filters[0]) - 1) << level)
    exact = CoefficientProduct((_correction(bank, 0, reach), _correction(bank, length - reach, length)))
    if not _holds(exact, bank):
        return None
    return CoefficientProduct(
        tuple(
            EndCorrection(end.start, end.directions.to(device, dtype), end.weights.to(device, dtype))
            for end in exact.ends
            if len(end.weights)
        )
    )


def _correction(bank: FilterBank, start: int, stop: int) -> EndCorrection:
    """What the extension adds to products of the samples from ``start`` to ``stop``."""
    samples = torch.zeros(stop - start, bank.lengths[0], dtype=torch.float64)
    samples.diagonal(start).fill_(1)
    coefficients = torch.cat(bank.analyse(samples), -1)
    excess = coefficients @ coefficients.mT
    excess.diagonal().sub_(1)
    weights, directions = torch.linalg.eigh(excess)
    large = weights.abs() > NEGLIGIBLE
    return EndCorrection(start, directions[:, large], weights[large])


def _holds(product: CoefficientProduct, bank: FilterBank) -> bool:
    """Whether it is the product of the coefficients, tried on noise."""
    noise = torch.randn(
        2, 4, bank.lengths[0], dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    x, y = (torch.cat(bank.analyse(each), -1) for each in noise)
    return torch.allclose(product(*noise)[2], (x * y).sum(-1), rtol=0, atol=bank.lengths[0] * NEGLIGIBLE)
