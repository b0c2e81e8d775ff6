"""Independent witnesses: every metric again with numpy, scipy and pywt in float64, on random attention.

The metrics get float32, as in a sweep; the witnesses share no code with them.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pywt
import torch
from scipy import stats
from scipy.signal.windows import hann
from scipy.spatial import distance

from tracker import metrics
from tracker.validate.finding import Finding, at_most

N, HEADS = 96, 8
SPREAD = 2.0
"""Standard deviation of the logits that the random attention comes from."""
PARITY = 1e-5
"""Of coefficients, relative to the largest."""
RECONSTRUCTED = 1e-6
FLOOR = 1e-2
"""Numbers smaller than this are compared by 1e-6 absolute, which is 1e-4 of it."""
MODES = ("symmetric", "reflect", "constant", "periodic", "zero")
WAVELETS = ("haar", "db2", "db4", "sym5", "coif2", "bior2.2")


def random_attention(heads: int = HEADS, n: int = N, seed: int = 0) -> np.ndarray:
    """Draw causal softmax over Gaussian logits, float64, shape (heads, n, n)."""
    logits = np.random.default_rng(seed).normal(size=(heads, n, n)) * SPREAD
    weights = np.exp(logits) * np.tri(n)
    return weights / weights.sum(-1, keepdims=True)


def apart(found: Any, expected: np.ndarray) -> float:
    """Return the largest relative difference; of numbers below ``FLOOR`` relative to that.

    Infinite where only one of both is defined.
    """
    ours = np.asarray(found, dtype=float)
    if (np.isfinite(ours) != np.isfinite(expected)).any():
        return math.inf
    there = np.isfinite(expected)
    return float((np.abs(ours - expected)[there] / np.maximum(np.abs(expected[there]), FLOOR)).max())


def spectra(functions: Any) -> Iterator[Finding]:
    """Compare spectrum, shares, selectivity and entropies of every row with scipy's."""
    rows = random_attention()[:, 1:]  # under a Hann window row 0 has no power
    taper = hann(N, sym=True)
    power = np.abs(np.fft.fft(rows * taper, 128)[..., :65]) ** 2
    ours = functions.power_spectrum(torch.from_numpy(rows).float())
    yield at_most("power spectrum against numpy and scipy: relative", apart(ours, power), 1e-4)
    place = np.arange(65) / 64
    edges = ((place < 0.25), (place >= 0.25) & (place < 0.75), (place >= 0.75))
    shares = np.stack([power[..., edge].sum(-1) for edge in edges], -1) / power.sum(-1, keepdims=True)
    yield at_most("band shares: relative", apart(functions.band_power(ours), shares), 1e-4)
    peak = power.max(-1)
    selectivity = peak / (power.sum(-1) - peak)
    yield at_most("selectivity: relative", apart(functions.frequency_selectivity(ours), selectivity), 1e-4)
    entropy = np.asarray(stats.entropy(power, axis=-1))
    yield at_most("spectral entropy against scipy.stats: relative",
                  apart(functions.spectral_entropy(ours), entropy), 1e-4)  # fmt: skip
    positional = np.asarray(stats.entropy(rows, axis=-1))
    found = functions.positional_entropy(torch.from_numpy(rows).float())
    yield at_most("positional entropy against scipy.stats: relative", apart(found, positional), 1e-4)
    pairs = zip(positional, entropy, strict=True)
    correlation = np.array([stats.pearsonr(x, y)[0] for x, y in pairs])
    samples = torch.from_numpy(positional), torch.from_numpy(entropy)
    together = functions.position_spectrum_correlation(*samples)
    yield at_most("correlation against scipy.stats.pearsonr: relative", apart(together, correlation), 1e-9)


def coefficients(functions: Any) -> Iterator[Finding]:
    """Compare wavelet coefficients with pywt, and the way back, for every signal extension offered."""
    rows = random_attention()
    signal = torch.from_numpy(rows).float()
    for mode in MODES:
        worst = lost = 0.0
        for wavelet in WAVELETS:
            level = pywt.dwt_max_level(N, wavelet)
            theirs = pywt.wavedec(rows, wavelet, mode=mode, level=level)
            ours = functions.wavelet_coefficients(signal, wavelet=wavelet, level=level, mode=mode)
            largest = max(float(np.abs(each).max()) for each in theirs)
            for a, b in zip(ours, theirs, strict=True):
                worst = max(worst, float(np.abs(a.double().numpy() - b).max()) / largest)
            error = functions.reconstruction_error(signal, wavelet=wavelet, level=level, mode=mode)
            lost = max(lost, float(error.max()))
        wavelets = f"{len(WAVELETS)} wavelets, {mode}"
        yield at_most(f"coefficients against pywt, {wavelets}: relative", worst, PARITY)
        yield at_most(f"reconstruction error, {wavelets}", lost, RECONSTRUCTED)
    theirs = pywt.wavedec(rows, "db2", mode="symmetric", level=5)
    energies = [each**2 for each in theirs]
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = np.stack([np.where(e > 0, -e * np.log(e), 0).sum(-1) for e in energies], -1)
    ours = functions.wavelet_coefficients(signal, level=5)
    yield at_most("wavelet entropy against pywt: relative", apart(functions.wavelet_entropy(ours), entropy),
                  1e-4)  # fmt: skip


def scaled(functions: Any) -> Iterator[Finding]:
    """Compare S(alpha) with ``interpolate`` with numpy.interp, pywt and scipy's cosine distance."""
    full = random_attention(1)[0]
    for alpha, level in ((0.5, 3), (0.25, 3)):
        short = random_attention(1, int(N * alpha), seed=1)[0]
        kept = np.arange(len(short)) * N // len(short)
        expected = []
        for ours, theirs in zip(full[kept][7:], short[7:], strict=True):
            longer = np.interp(np.linspace(0, len(short) - 1, N), np.arange(len(short)), theirs)
            pair = [np.concatenate(pywt.wavedec(x, "db2", mode="symmetric", level=level))
                    for x in (ours, longer)]  # fmt: skip
            expected.append(distance.cosine(*pair))
        found = functions.scale_sensitivity(
            torch.from_numpy(full[kept][7:]).float(), torch.from_numpy(short[7:]).float(),
            positions=torch.from_numpy(kept), level=level,
        )  # fmt: skip
        difference = apart(found, np.array(expected))
        yield at_most(f"S({alpha}) against numpy, pywt and scipy: relative", difference, 1e-4)


def theory(functions: Any) -> Iterator[Finding]:
    """Compare window entropy and the theory checks with their formulas written out."""
    rows = random_attention()
    for width in (16, 32, 64):
        count = N // width
        parts = rows[..., : count * width].reshape(HEADS, N, count, width)
        mass = parts.sum(-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            inside = stats.entropy(parts, axis=-1) / np.log(width)
        expected = np.nanmean(np.where(mass > 1e-10, inside, np.nan), axis=-1)
        found = functions.window_entropy(torch.from_numpy(rows).float(), width)
        yield at_most(f"window entropy, width {width}: relative", apart(found, expected), 1e-4)
    gram = np.einsum("hqk,hql->kl", rows, rows)
    bounds = np.linalg.eigvalsh(gram)[[0, -1]]
    found = torch.stack(functions.frame_bounds(torch.from_numpy(rows)))
    yield at_most("frame bounds against numpy's eigenvalues: relative", apart(found, bounds), 1e-6)
    lags = [np.mean([rows[0, q, q - lag] for q in range(N // 2, N)]) for lag in range(N // 2)]
    profile = functions.lag_profile(torch.from_numpy(rows[0]))
    yield at_most("profile by distance: relative", apart(profile, np.array(lags)), 1e-9)
    centred = np.array(lags) - np.mean(lags)
    power = np.abs(np.fft.rfft(centred, 2 * N))[1:] ** 2 / np.arange(1, N + 1)
    share = np.array(power[: N // 8].sum() / power.sum())
    yield at_most("admissibility: relative", apart(functions.admissibility(profile), share), 1e-9)
    padded = np.concatenate((np.zeros(3), lags))
    table = np.stack([padded[3 + 2 * np.arange(N // 4) - k] for k in range(4)], -1)
    target = np.array(lags[: N // 4])
    fitted = table @ np.linalg.lstsq(table, target, rcond=None)[0]
    left = np.array(np.linalg.norm(target - fitted) / np.linalg.norm(target))
    yield at_most("refinement residual against numpy's least squares: relative",
                  apart(functions.refinement_residual(profile), left), 1e-9)  # fmt: skip


def agreement(functions: Any = metrics) -> list[Finding]:
    """Compare every metric with its witness, in order.

    Args:
        functions: the metrics to try, by their names in ``tracker.metrics``.
    """
    return [each for compared in (spectra, coefficients, scaled, theory) for each in compared(functions)]
