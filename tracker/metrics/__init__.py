"""Every metric as a function on tensors: probabilities, weights or states in, numbers out, on any device.

A sweep runs these same functions on tiles of attention rows (``tracker.metrics.fused``). Equations are
those of arXiv 2410.18067.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracker.metrics.entropy import (
        CoMoments,
        position_spectrum_correlation,
        positional_entropy,
        spectral_entropy,
        wavelet_entropy,
        window_entropy,
    )
    from tracker.metrics.frames import admissibility, frame_bounds, lag_profile, refinement_residual
    from tracker.metrics.patterns import (
        head_redundancy,
        local_share,
        prefix_matching_score,
        previous_token_score,
        sink_share,
    )
    from tracker.metrics.scale import kept_positions, scale_level, scale_sensitivity
    from tracker.metrics.spectral import (
        band_power,
        equal_bands,
        frequency_selectivity,
        next_power_of_two,
        power_spectrum,
        total_power,
    )
    from tracker.metrics.states import first_norm, largest_over_median
    from tracker.metrics.wavelets import (
        max_level,
        reconstruct_signal,
        reconstruction_error,
        wavelet_coefficients,
    )
    from tracker.metrics.weights import (
        effective_rank,
        mean_frequency_index,
        outlier_ratio,
        product_singular_values,
        rotary_bands,
        rotary_shares,
        singular_values,
        spectral_norm,
        stable_rank,
    )

__all__ = [
    "CoMoments", "admissibility", "band_power", "effective_rank", "equal_bands",
    "first_norm", "frame_bounds", "frequency_selectivity", "head_redundancy", "kept_positions",
    "lag_profile", "largest_over_median", "local_share", "max_level", "mean_frequency_index",
    "next_power_of_two", "outlier_ratio", "position_spectrum_correlation", "positional_entropy",
    "power_spectrum", "prefix_matching_score", "previous_token_score", "product_singular_values",
    "reconstruct_signal", "reconstruction_error", "refinement_residual", "rotary_bands", "rotary_shares",
    "scale_level", "scale_sensitivity", "singular_values", "sink_share", "spectral_entropy", "spectral_norm",
    "stable_rank", "total_power", "wavelet_coefficients", "wavelet_entropy", "window_entropy",
]  # fmt: skip

_MODULES = ("spectral", "entropy", "wavelets", "scale", "patterns", "frames", "weights", "states")


def __getattr__(name: str) -> Any:
    """Load a metric when it is first used: the registry, which every package reads, needs no torch."""
    if name in __all__:
        modules = (import_module(f"tracker.metrics.{each}") for each in _MODULES)
        return next(getattr(module, name) for module in modules if hasattr(module, name))
    raise AttributeError(f"module 'tracker.metrics' has no attribute {name!r}")
