"""Measures of weight matrices by their singular values; products of two factors are never formed.

In float64 by way of Gram matrices: a singular value is right to about 1e-8 of the largest, whatever its size.

Legend: H heads, V dimensions of a head, D width of the residual stream, F rotary frequencies; (...) a batch.
"""

import torch
from torch import Tensor

BLOCKS = 8
"""Parts in which a Gram matrix is made: what lies above its diagonal, nearly half the work, is left out."""
BAND = 0.25
"""Share of the rotary frequencies that make up the highest and the lowest band."""


def singular_values(matrix: Tensor) -> Tensor:
    """Compute the singular values of a matrix.

    Args:
        matrix: shape (rows, columns), of any floating dtype.

    Returns:
        float64, shape (min(rows, columns),), rising.

    Example:
        >>> singular_values(torch.tensor([[3.0, 0.0, 0.0], [0.0, 4.0, 0.0]]))
        tensor([3., 4.], dtype=torch.float64)
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    rows = wide.double()
    gram = rows.new_zeros(len(rows), len(rows))
    start = 0
    for part in rows.tensor_split(BLOCKS):
        stop = start + len(part)
        gram[start:stop, :stop] = part @ rows[:stop].T
        start = stop
    return torch.linalg.eigvalsh(gram, UPLO="L").clamp(min=0).sqrt()


def product_singular_values(left_VD: Tensor, right_VD: Tensor) -> Tensor:
    """Compute the singular values of ``left^T right``, shape (D, D), from its factors.

    With ``left left^T = R^T R`` they are the roots of the eigenvalues of ``R right right^T R^T``.

    Args:
        left_VD: shape (..., V, D).
        right_VD: shape (..., V, D'), of the same device.

    Returns:
        float64, shape (..., V), rising; the others, of which there are D - V, are zero.

    Example:
        >>> product_singular_values(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0]]))
        tensor([10.], dtype=torch.float64)
    """
    left, right = left_VD.double(), right_VD.double()
    sizes, directions = torch.linalg.eigh(left @ left.mT)
    root = sizes.clamp(min=0).sqrt().unsqueeze(-1) * directions.mT
    return torch.linalg.eigvalsh(root @ (right @ right.mT) @ root.mT).clamp(min=0).sqrt()


def stable_rank(singular: Tensor) -> Tensor:
    """Compute ``sum s^2 / max s^2``: how many directions as strong as the strongest would have the same norm.

    Args:
        singular: singular values, shape (..., n).

    Returns:
        shape (...); NaN where all are zero.

    Source: Rudelson and Vershynin, "Sampling from large matrices", J. ACM 54 (2007).

    Example:
        >>> float(stable_rank(torch.tensor([1.0, 1.0, 0.0])))
        2.0
    """
    squared = singular.square()
    return squared.sum(-1) / squared.amax(-1)


def effective_rank(singular: Tensor) -> Tensor:
    """Compute ``exp(-sum p log p)`` with ``p = s / sum s``.

    Args:
        singular: singular values, shape (..., n).

    Returns:
        shape (...), from 1 to n; NaN where all are zero.

    Source: Roy and Vetterli, "The effective rank" (EUSIPCO 2007).

    Example:
        >>> round(float(effective_rank(torch.tensor([1.0, 1.0, 0.0]))), 6)
        2.0
    """
    shares = singular / singular.sum(-1, keepdim=True)
    return torch.special.entr(shares).sum(-1).exp()


def spectral_norm(singular: Tensor) -> Tensor:
    """Return the largest singular value, shape (...), of singular values (..., n)."""
    return singular.amax(-1)


def outlier_ratio(matrix: Tensor) -> Tensor:
    """Compute the largest magnitude of an entry over the standard deviation of all entries.

    Args:
        matrix: any shape.

    Returns:
        a number; NaN for a matrix of one value. Of n Gaussian entries about ``sqrt(2 log n)``.

    Example:
        >>> float(outlier_ratio(torch.tensor([[1.0, -1.0], [1.0, -1.0]])))
        1.0
    """
    spread = matrix.double().std(correction=0)
    return (matrix.abs().amax().double() / spread).where(spread > 0, torch.nan)


def rotary_shares(weights_HVD: Tensor, rotary_dims: int, *, interleaved: bool) -> Tensor:
    """Compute how a head's norm of query or key weights divides among the frequencies of its rotation.

    Args:
        weights_HVD: shape (H, V, D).
        rotary_dims: how many of the V rotate, from the first on.
        interleaved: whether dimensions 2 f and 2 f + 1 rotate together (GPT-J); else f and
            f + rotary_dims / 2 (GPT-NeoX, Llama).

    Returns:
        float64, shape (H, F): shares, highest frequency first; NaN where all are zero.

    Source: Barbero et al., "Round and round we go!", arXiv 2410.06205, section 4.
    """
    squared = weights_HVD[:, :rotary_dims].double().square().sum(-1)
    pairs = squared.unflatten(1, (-1, 2)) if interleaved else squared.unflatten(1, (2, -1)).mT
    norms = pairs.sum(-1).sqrt()
    return norms / norms.sum(-1, keepdim=True)


def mean_frequency_index(shares_HF: Tensor) -> Tensor:
    """Compute the mean place among the rotary frequencies, 0 the highest and 1 the lowest, shape (H,).

    Args:
        shares_HF: from ``rotary_shares``; equal ones give 0.5.
    """
    count = shares_HF.shape[-1]
    if count < 2:
        return torch.full_like(shares_HF[..., 0], torch.nan)
    return shares_HF @ torch.linspace(0, 1, count, dtype=shares_HF.dtype, device=shares_HF.device)


def rotary_bands(shares_HF: Tensor) -> tuple[Tensor, Tensor]:
    """Return the shares of the highest and of the lowest quarter of the rotary frequencies, each (H,).

    A quarter is rounded to whole frequencies, at least one; null where there are fewer than two.
    """
    count = shares_HF.shape[-1]
    if count < 2:
        nothing = torch.full_like(shares_HF[..., 0], torch.nan)
        return nothing, nothing
    width = max(1, round(BAND * count))
    return shares_HF[..., :width].sum(-1), shares_HF[..., -width:].sum(-1)
