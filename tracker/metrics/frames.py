"""Theory checks per layer: frame bounds, admissibility and the refinement equation (eq. 16), in float64."""

import torch
from torch import Tensor

TAPS = 4
"""Coefficients of the two-scale relation that ``refinement_residual`` fits."""


def frame_bounds(attention_HQK: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the tightest A and B with ``A |f|^2 <= sum over heads of |A_h f|^2 <= B |f|^2``.

    They are the smallest and largest squared singular value of the stacked attention maps.

    Args:
        attention_HQK: a layer's heads on one sequence, shape (..., H, Q, K).

    Returns:
        (lower, upper), float64, each of shape (...).

    Example:
        >>> [round(float(bound), 6) for bound in frame_bounds(torch.eye(4).expand(3, 4, 4))]
        [3.0, 3.0]
    """
    stacked = attention_HQK.double().flatten(-3, -2)
    squared = torch.linalg.svdvals(stacked).square()
    if stacked.shape[-2] < stacked.shape[-1]:
        return torch.zeros_like(squared[..., 0]), squared[..., 0]
    return squared[..., -1], squared[..., 0]


def lag_profile(attention_QK: Tensor) -> Tensor:
    """Average attention by distance, ``a_q(q - lag)`` over the queries q >= n / 2.

    Args:
        attention_QK: shape (..., n, n).

    Returns:
        float64, shape (..., n // 2): lags 0 to n // 2 - 1.

    Example:
        >>> lag_profile(torch.eye(6))
        tensor([1., 0., 0.], dtype=torch.float64)
    """
    n = attention_QK.shape[-1]
    start = (n + 1) // 2
    lags = [
        attention_QK.diagonal(-lag, -2, -1)[..., start - lag :].double().mean(-1) for lag in range(n // 2)
    ]
    return torch.stack(lags, -1)


def admissibility(profile: Tensor) -> Tensor:
    """Compute the share of ``sum |Psi(w)|^2 / |w|`` in the lowest eighth of the non-zero frequencies.

    Args:
        profile: from ``lag_profile``, shape (..., n // 2); its mean is removed, n_fft = 2 n.

    Returns:
        share, shape (...); NaN for a constant profile.

    Example:
        >>> bool(admissibility(torch.linspace(1, 0, 16)) > admissibility(torch.tensor([1.0, -1.0] * 8)))
        True
    """
    centred = profile - profile.mean(-1, keepdim=True)
    power = torch.fft.rfft(centred, n=4 * profile.shape[-1]).abs().square()[..., 1:]
    weighted = power / torch.arange(1, power.shape[-1] + 1, dtype=power.dtype, device=power.device)
    total = weighted.sum(-1)
    low = weighted[..., : weighted.shape[-1] // 8].sum(-1)
    return low / torch.where(total > 1e-20, total, torch.nan)


def refinement_residual(profile: Tensor) -> Tensor:
    """Compute what the two-scale relation leaves unexplained by least squares (eq. 16).

    The relation is ``phi(t) = sum over k of c_k phi(2 t - k)``, k = 0..3.

    Args:
        profile: phi, from ``lag_profile``, shape (..., n // 2); phi is 0 outside; t = 0..n // 4 - 1.

    Returns:
        norm of the residual over the norm of phi on those t, shape (...); NaN for a zero profile.

    Example:
        >>> bool(refinement_residual(torch.ones(32, dtype=torch.float64)) < 1e-6)
        True
    """
    count = profile.shape[-1] // 2
    t = torch.arange(count, device=profile.device)
    index = 2 * t.unsqueeze(-1) - torch.arange(TAPS, device=profile.device)
    shifted = profile[..., index.clamp(min=0)] * (index >= 0)
    target = profile[..., :count].unsqueeze(-1)
    projector = shifted @ torch.linalg.pinv(shifted)
    residual = torch.linalg.vector_norm(target - projector @ target, dim=(-2, -1))
    norm = torch.linalg.vector_norm(target, dim=(-2, -1))
    return residual / torch.where(norm > 1e-10, norm, torch.nan)
