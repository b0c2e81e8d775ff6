"""Covariates: what attention does in the terms of the circuits literature.

Legend: H heads, Q queries, K keys; attention_QK[q, k] is the attention that token q pays to token k. The
``..._sum`` functions take some rows of a map, from query ``first`` on, so that a map can be read in tiles.
"""

import torch
from torch import Tensor


def previous_token_sum(rows_QK: Tensor, first: int = 0) -> Tensor:
    """Sum ``a_q(q - 1)`` over the queries q >= 1 among these rows; (..., Q, K) to (...)."""
    if not first:
        rows_QK, first = rows_QK[..., 1:, :], 1
    return rows_QK.diagonal(first - 1, -2, -1).sum(-1)


def previous_token_score(attention_QK: Tensor) -> Tensor:
    """Compute the mean attention to the token before, ``a_q(q - 1)`` over q >= 1.

    Args:
        attention_QK: shape (..., n, n).

    Returns:
        share, shape (...).

    Example:
        >>> previous_token_score(torch.ones(4, 4).tril(-1).triu(-1))
        tensor(1.)
    """
    return previous_token_sum(attention_QK) / (attention_QK.shape[-1] - 1)


def sink_sum(rows_QK: Tensor, first: int = 0) -> Tensor:
    """Sum ``a_q(0)`` over the queries q >= 1 among these rows; (..., Q, K) to (...)."""
    return rows_QK[..., max(1 - first, 0) :, 0].sum(-1)


def sink_share(attention_QK: Tensor) -> Tensor:
    """Compute the mean attention to the first token, ``a_q(0)`` over q >= 1.

    Args:
        attention_QK: shape (..., n, n).

    Returns:
        share, shape (...).

    Example:
        >>> sink_share(torch.eye(4)[[0, 0, 0, 3]])
        tensor(0.6667)
    """
    return sink_sum(attention_QK) / (attention_QK.shape[-1] - 1)


def local_sum(rows_QK: Tensor, span: int, first: int = 0) -> Tensor:
    """Sum attention on the last ``span`` keys over the queries q >= span; (..., Q, K) to (...)."""
    skip = max(0, span - first)
    queries = rows_QK.shape[-2] - skip
    if queries <= 0:
        return rows_QK.new_zeros(rows_QK.shape[:-2])
    *leading, row, key = rows_QK.stride()
    start = rows_QK.storage_offset() + skip * row + (first + skip - span + 1) * key
    size = (*rows_QK.shape[:-2], queries, span)
    return rows_QK.as_strided(size, (*leading, row + key, key), start).sum((-2, -1))


def local_share(attention_QK: Tensor, span: int = 16) -> Tensor:
    """Compute the attention on the last ``span`` keys up to the query itself, mean over q >= span (fig. 1).

    Args:
        attention_QK: shape (..., n, n).
        span: keys that count as local.

    Returns:
        share, shape (...); NaN where no query has ``span`` keys before it.

    Example:
        >>> local_share(torch.full((64, 64), 1 / 64), span=16)
        tensor(0.2500)
    """
    n = attention_QK.shape[-1]
    total = local_sum(attention_QK, span)
    return total / (n - span) if n > span else torch.full_like(total, torch.nan)


def prefix_matching_score(attention_QK: Tensor, block: int) -> Tensor:
    """Compute the induction score: attention to the token after the earlier copy, in a block written twice.

    Mean of ``a_q(q - block + 1)`` over the queries of the second copy (Olsson et al., arXiv 2209.11895).

    Args:
        attention_QK: over sequences that are a block of ids twice, shape (..., 2 block, 2 block).
        block: ids in the block.

    Returns:
        share, shape (...).

    Example:
        >>> prefix_matching_score(torch.ones(8, 8).tril(-3).triu(-3), 4)
        tensor(1.)
    """
    return attention_QK.diagonal(-(block - 1), -2, -1)[..., 1:].mean(-1)


def map_products(maps_HQK: Tensor) -> Tensor:
    """Compute the inner products of each pair of maps; (..., H, Q, K) to (..., H, H)."""
    flat = maps_HQK.flatten(-2)
    return flat @ flat.mT


def mean_cosine(products_HH: Tensor) -> Tensor:
    """Compute the mean cosine over pairs of heads from their inner products; NaN for a single head."""
    norms = products_HH.diagonal(0, -2, -1).sqrt()
    heads = norms.shape[-1]
    if heads < 2:
        return torch.full_like(norms[..., 0], torch.nan)
    cosines = products_HH / (norms.unsqueeze(-1) * norms.unsqueeze(-2))
    return (cosines.sum((-2, -1)) - heads) / (heads * (heads - 1))


def head_redundancy(attention_HQK: Tensor) -> Tensor:
    """Compute the mean cosine between the flattened attention maps of each pair of heads.

    Args:
        attention_HQK: a layer's heads, shape (..., H, Q, K).

    Returns:
        cosine, shape (...); NaN for a single head.

    Example:
        >>> head_redundancy(torch.eye(4).expand(3, 4, 4))
        tensor(1.)
    """
    return mean_cosine(map_products(attention_HQK))
