"""The three ground-truth experiments: signals whose spectra, scales and invariance are known exactly."""

import math

import pytest
import torch

from tracker import metrics


@pytest.mark.parametrize("n", [64, 96, 128])
@pytest.mark.parametrize("frequency", [5, 16, 27])
def test_a_cosine_peaks_at_its_bin(n: int, frequency: int):
    n_fft = metrics.next_power_of_two(n)
    signal = 1 + torch.cos(2 * math.pi * frequency * torch.arange(n).double() / n_fft)
    spectrum = metrics.power_spectrum(signal - signal.mean())
    assert int(spectrum.argmax()) == frequency


@pytest.mark.parametrize("n_fft", [64, 128, 256])
@pytest.mark.parametrize("place", [1, 17, 40])
def test_an_impulse_is_flat(n_fft: int, place: int):
    spectrum = metrics.power_spectrum(torch.eye(n_fft, dtype=torch.float64)[place])
    bins = n_fft // 2 + 1
    shares = torch.tensor([n_fft // 8, n_fft // 4, n_fft // 8 + 1], dtype=torch.float64) / bins
    torch.testing.assert_close(metrics.band_power(spectrum), shares, rtol=1e-12, atol=0)
    assert float(metrics.spectral_entropy(spectrum)) == pytest.approx(math.log(bins), rel=1e-12)
    assert float(metrics.frequency_selectivity(spectrum)) == pytest.approx(1 / (bins - 1), rel=1e-9)


def test_white_noise_has_the_same_shares_in_the_mean_and_entropy_less_by_0_423():
    generator = torch.Generator().manual_seed(0)
    signal = torch.randn(20_000, 128, generator=generator, dtype=torch.float64)
    spectrum = metrics.power_spectrum(signal - signal.mean(-1, keepdim=True), window="rectangular")[:, 1:-1]
    bins = spectrum.shape[-1]
    assert float(metrics.spectral_entropy(spectrum).mean()) == pytest.approx(
        math.log(bins) - 0.423, abs=0.012
    )
    tapered = metrics.power_spectrum(torch.randn(20_000, 128, generator=generator, dtype=torch.float64))
    shares = metrics.band_power(tapered).mean(0)
    expected = torch.tensor([16, 32, 17], dtype=torch.float64) / 65
    torch.testing.assert_close(shares, expected, rtol=0.03, atol=0)


def test_one_bin_only_has_no_entropy_and_infinite_selectivity():
    spectrum = torch.eye(65)[7]
    assert float(metrics.spectral_entropy(spectrum)) == 0
    assert float(metrics.frequency_selectivity(spectrum)) == math.inf


@pytest.mark.parametrize("exponent", [1, 2, 3, 4])
def test_a_period_lies_on_the_detail_levels_that_cover_it(exponent: int):
    period = 2**exponent
    signal = torch.cos(2 * math.pi * torch.arange(512).double() / period)
    coefficients = metrics.wavelet_coefficients(signal, level=7, mode="periodic")
    energy = torch.stack([scale.square().sum() for scale in reversed(coefficients[1:])])
    near = energy[max(exponent - 2, 0) : exponent + 1].sum() / energy.sum()
    assert float(near) > 0.9  # db2 leaks: its filters have four taps
    assert int(energy.argmax()) + 1 in (exponent - 1, exponent)


def _rows(profile, n: int) -> torch.Tensor:
    q, k = torch.arange(n).double().unsqueeze(-1), torch.arange(n).double()
    weights = profile(q, k, n) * (k <= q)
    return weights / weights.sum(-1, keepdim=True)


def _sensitivity(profile, alpha: float, n: int = 96) -> float:
    positions = torch.from_numpy(metrics.kept_positions(n, alpha))
    level = metrics.scale_level(n, (0.5, 0.25))
    full = _rows(profile, n)[positions]
    scaled = _rows(profile, len(positions))
    kept = slice(2**level - 1, None)
    values = metrics.scale_sensitivity(full[kept], scaled[kept], positions=positions, level=level)
    return float(values.mean())


@pytest.mark.parametrize("alpha", [0.5, 0.25])
def test_a_row_of_relative_position_is_scale_invariant_and_a_fixed_window_is_not(alpha: float):
    def relative(q, k, n):
        return torch.exp(-4 * (k + 0.5) / n)

    def previous_token(q, k, n):
        return ((k == q - 1) | ((q == 0) & (k == 0))).double()

    assert _sensitivity(relative, alpha) < 0.02
    assert _sensitivity(previous_token, alpha) > 0.3
