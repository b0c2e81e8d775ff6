"""Covariates: what attention does in the terms of the circuits literature.

Legend: H heads, Q queries, K keys; attention_QK[q, k] is the attention that token q pays to token k.
"""

import torch
from torch import Tensor


def previous_token_score(attention_QK: Tensor) -> Tensor:
    """Mean attention to the token before, ``a_q(q - 1)`` over q >= 1.

    Args:
        attention_QK: shape (..., n, n).

    Returns:
        share, shape (...).
    """
    return attention_QK.diagonal(-1, -2, -1).mean(-1)


def sink_share(attention_QK: Tensor) -> Tensor:
    """Mean attention to the first token, ``a_q(0)`` over q >= 1; (..., n, n) to (...)."""
    return attention_QK[..., 1:, 0].mean(-1)


def local_share(attention_QK: Tensor, span: int = 16) -> Tensor:
    """Attention on the last ``span`` keys up to and including the query, mean over q >= span (fig. 1).

    Args:
        attention_QK: shape (..., n, n).
        span: keys that count as local.

    Returns:
        share, shape (...); NaN where no query has ``span`` keys before it.
    """
    n = attention_QK.shape[-1]
    if n <= span:
        return torch.full(
            attention_QK.shape[:-2], torch.nan, dtype=attention_QK.dtype, device=attention_QK.device
        )
    diagonals = [attention_QK.diagonal(-lag, -2, -1)[..., span - lag :].sum(-1) for lag in range(span)]
    return torch.stack(diagonals).sum(0) / (n - span)


def prefix_matching_score(attention_QK: Tensor, block: int) -> Tensor:
    """Induction: attention to the token after the earlier copy, in a block written twice.

    Mean of ``a_q(q - block + 1)`` over the queries of the second copy (Olsson et al., arXiv 2209.11895).

    Args:
        attention_QK: over sequences that are a block of ids twice, shape (..., 2 block, 2 block).
        block: ids in the block.

    Returns:
        share, shape (...).
    """
    return attention_QK.diagonal(-(block - 1), -2, -1)[..., 1:].mean(-1)


def head_redundancy(attention_HQK: Tensor) -> Tensor:
    """Mean cosine between the flattened attention maps of each pair of heads.

    Args:
        attention_HQK: a layer's heads, shape (..., H, Q, K).

    Returns:
        cosine, shape (...); NaN for a single head.
    """
    maps = attention_HQK.flatten(-2)
    maps = maps / torch.linalg.vector_norm(maps, dim=-1, keepdim=True)
    heads = maps.shape[-2]
    if heads < 2:
        return torch.full(maps.shape[:-2], torch.nan, dtype=maps.dtype, device=maps.device)
    return (maps.sum(-2).square().sum(-1) - heads) / (heads * (heads - 1))
