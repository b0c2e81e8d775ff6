"""Whole layers at once with scipy, numpy and pywt, on patterns that TransformerLens has cached.

Only what vectorises plainly: spectra, entropies, windows, wavelets there and back, covariates. Scale
sensitivity, the averaged signals, correlation, redundancy, prefix matching and loss are left out.

Legend: B sequences, H heads, n tokens.
"""

from typing import Any

import numpy as np
import pywt
import scipy.fft
from scipy.special import entr

LEFT_OUT = "without scale, averaged signals, correlation, redundancy, prefix matching and loss"
SPAN = 16


def layer_columns(attention_BHnn: np.ndarray) -> dict[str, np.ndarray]:
    """Columns of every head of a layer, means over rows and sequences, shape (H,)."""
    n = attention_BHnn.shape[-1]
    rows = _spectral(attention_BHnn) | {"positional_entropy": entr(attention_BHnn).sum(-1)}
    coefficients = pywt.wavedec(attention_BHnn, "db2", mode="symmetric", level=pywt.dwt_max_level(n, 4))
    for scale, values in enumerate(coefficients):
        rows[f"wavelet_entropy_{scale}"] = entr(values**2).sum(-1)
    for width in (16, 32, 64):
        rows[f"window_entropy_{width}"] = _window_entropy(attention_BHnn, width)
    back = pywt.waverec(coefficients, "db2", mode="symmetric")[..., :n]
    lost = np.linalg.norm(back - attention_BHnn, axis=(-2, -1))
    query, key = np.indices((n, n))
    local = (key <= query) & (key > query - SPAN) & (query >= SPAN)
    maps = {
        "reconstruction_error": lost / np.linalg.norm(attention_BHnn, axis=(-2, -1)),
        "previous_token_score": np.diagonal(attention_BHnn, -1, -2, -1).mean(-1),
        "sink_share": attention_BHnn[..., 1:, 0].mean(-1),
        "local_share": attention_BHnn[..., local].sum(-1) / (n - SPAN),
    }
    maps |= {name: np.nanmean(value, -1) for name, value in rows.items()}
    return {name: value.mean(0) for name, value in maps.items()}


def _spectral(attention_BHnn: np.ndarray) -> dict[str, np.ndarray]:
    n = attention_BHnn.shape[-1]
    length = int(2 ** np.ceil(np.log2(n)))
    tapered = attention_BHnn * np.hanning(n).astype(attention_BHnn.dtype)
    power = np.abs(scipy.fft.rfft(tapered, n=length)) ** 2
    total = power.sum(-1)
    total = np.where(total > 1e-10, total, np.nan)
    frequency = np.arange(power.shape[-1]) / (power.shape[-1] - 1)
    entropy = entr(power / total[..., None]).sum(-1)
    low, high = frequency < 0.25, frequency >= 0.75
    bands = {"low": low, "mid": ~low & ~high, "high": high}
    found = {f"band_power_{name}": power[..., where].sum(-1) / total for name, where in bands.items()}
    return found | {
        "spectral_entropy": entropy,
        "spectral_entropy_normalised": entropy / np.log(len(frequency)),
        "frequency_selectivity": power.max(-1) / (total - power.max(-1)),
    }


def _window_entropy(attention_BHnn: np.ndarray, width: int) -> np.ndarray:
    n = attention_BHnn.shape[-1]
    parts = attention_BHnn[..., : n // width * width].reshape(*attention_BHnn.shape[:-1], -1, width)
    mass = parts.sum(-1)
    mass = np.where(mass > 1e-10, mass, np.nan)
    return np.nanmean((entr(parts).sum(-1) / mass + np.log(mass)) / np.log(width), -1)


def lens_bridge(model: Any, folder: str) -> Any:
    """TransformerLens around a loaded model; it reads the configuration from ``folder``, nothing online."""
    from transformer_lens import TransformerBridge  # pyright: ignore[reportMissingImports]

    model.config.save_pretrained(folder)
    return TransformerBridge.boot_transformers(folder, hf_model=model, device=model.device, dtype=model.dtype)


def lens_columns(bridge: Any, ids: Any, layers: int) -> list[dict[str, np.ndarray]]:
    """Patterns of all layers by ``run_with_cache``, then the columns layer by layer."""
    _, cache = bridge.run_with_cache(
        ids,
        return_type=None,
        names_filter=lambda name: name.endswith("hook_pattern"),
        logits_to_keep=1,  # spares it the vocabulary head, which the others do not run over all tokens either
    )
    return [layer_columns(cache["pattern", layer].float().cpu().numpy()) for layer in range(layers)]
