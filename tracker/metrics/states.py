"""Measures of hidden states: what the residual stream holds behind a layer.

Legend: B sequences, n tokens, D width of the model.
"""

from torch import Tensor


def largest_over_median(states_BnD: Tensor) -> Tensor:
    """Compute the largest magnitude of a sequence's states over the median magnitude.

    Args:
        states_BnD: shape (..., n, D).

    Returns:
        float64, shape (...); infinite or NaN where the median is zero.

    Source: Sun et al., "Massive activations in large language models", arXiv 2402.17762.

    Example:
        >>> import torch
        >>> float(largest_over_median(torch.tensor([[1.0, -1.0, 2.0], [1.0, 1.0, -8.0]])))
        8.0
    """
    sizes = states_BnD.abs().flatten(-2).double()
    count = sizes.shape[-1]
    middle = [sizes.kthvalue(at + 1, -1).values for at in ((count - 1) // 2, count // 2)]
    return sizes.amax(-1) / ((middle[0] + middle[1]) / 2)


def first_norm(states_BnD: Tensor) -> Tensor:
    """Compute the norm of the first token's state over the mean norm of the others.

    Args:
        states_BnD: shape (..., n, D), n from 2.

    Returns:
        float64, shape (...).

    Example:
        >>> import torch
        >>> float(first_norm(torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 1.0]])))
        5.0
    """
    norms = states_BnD.double().norm(dim=-1)
    return norms[..., 0] / norms[..., 1:].mean(-1)
