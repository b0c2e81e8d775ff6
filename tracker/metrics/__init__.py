"""Every metric as a function on tensors: probabilities in, numbers out, on whatever device they lie."""

from tracker.metrics.entropy import (
    CoMoments,
    position_spectrum_correlation,
    positional_entropy,
    spectral_entropy,
    wavelet_entropy,
    window_entropy,
)
from tracker.metrics.frame import admissibility, frame_bounds, lag_profile, refinement_residual
from tracker.metrics.patterns import (
    head_redundancy,
    local_share,
    prefix_matching_score,
    previous_token_score,
    sink_share,
)
from tracker.metrics.scale import kept_positions, scale_level, scale_sensitivity
from tracker.metrics.spectrum import (
    band_power,
    equal_bands,
    frequency_selectivity,
    next_power_of_two,
    power_spectrum,
    total_power,
)
from tracker.metrics.wavelet import (
    max_level,
    reconstruct_signal,
    reconstruction_error,
    wavelet_coefficients,
)

__all__ = [
    "CoMoments",
    "admissibility",
    "band_power",
    "equal_bands",
    "frame_bounds",
    "frequency_selectivity",
    "head_redundancy",
    "kept_positions",
    "lag_profile",
    "local_share",
    "max_level",
    "next_power_of_two",
    "position_spectrum_correlation",
    "positional_entropy",
    "power_spectrum",
    "prefix_matching_score",
    "previous_token_score",
    "reconstruct_signal",
    "reconstruction_error",
    "refinement_residual",
    "scale_level",
    "scale_sensitivity",
    "sink_share",
    "spectral_entropy",
    "total_power",
    "wavelet_coefficients",
    "wavelet_entropy",
    "window_entropy",
]
