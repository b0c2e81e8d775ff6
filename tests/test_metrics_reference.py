"""Every metric against an independent witness: scipy, pywt and numpy in float64."""

import numpy as np
import pytest
import pywt
import scipy.fft
import scipy.interpolate
import scipy.signal
import scipy.stats
import torch

from tracker import metrics
from tracker.errors import RequestError
from tracker.metrics.fused.signals import SignalPlan, signal_values
from tracker.metrics.spectral import WINDOWS
from tracker.metrics.wavelets import MODES
from tracker.records import Conventions


def attention(*shape: int, seed: int = 0, spread: float = 2.0) -> np.ndarray:
    """Causal softmax of Gaussian logits, float64, shape (*shape, n, n) for shape = (..., n)."""
    n = shape[-1]
    logits = np.random.default_rng(seed).normal(size=(*shape, n)) * spread
    logits[..., np.triu(np.ones((n, n), bool), 1)] = -np.inf
    exp = np.exp(logits - logits.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


def single(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).float()


def close(ours: torch.Tensor, reference: np.ndarray) -> None:
    """1e-4 relative or 1e-6 absolute, whichever is looser; NaN where the witness has NaN."""
    np.testing.assert_allclose(ours.double().numpy(), reference, rtol=1e-4, atol=1e-6, equal_nan=True)


def test_close_can_fail():
    with pytest.raises(AssertionError):
        close(torch.tensor([1.001]), np.array([1.0]))


SCIPY_WINDOWS = {"hann": "hann", "hamming": "hamming", "blackman": "blackman", "rectangular": "boxcar"}


def spectrum_reference(rows: np.ndarray, window: str = "hann", n_fft: int | None = None) -> np.ndarray:
    keys = rows.shape[-1]
    n_fft = n_fft or int(2 ** np.ceil(np.log2(keys)))
    taper = scipy.signal.get_window(SCIPY_WINDOWS[window], keys, fftbins=False)
    return np.abs(scipy.fft.rfft(rows * taper, n=n_fft)) ** 2


@pytest.mark.parametrize("keys", [2, 17, 64, 96])
@pytest.mark.parametrize("window", list(WINDOWS))
def test_power_spectrum_is_scipys(keys: int, window: str):
    rows = attention(3, keys)
    close(metrics.power_spectrum(single(rows), window=window), spectrum_reference(rows, window))
    longer = metrics.power_spectrum(single(rows), window=window, n_fft=4 * keys)
    close(longer, spectrum_reference(rows, window, 4 * keys))


def test_sixteen_bands_are_numpys():
    ours = metrics.power_spectrum(single(attention(4, 96)))[:, 1:]
    place = np.minimum(np.floor(np.linspace(0, 1, ours.shape[-1]) * 16), 15)
    power = ours.double().numpy()
    close(metrics.equal_bands(ours, 16), np.stack([power[..., place == k].sum(-1) for k in range(16)], -1))


def test_a_row_without_power_is_undefined_everywhere():
    ours = metrics.power_spectrum(torch.eye(96)[:1])
    assert ours.sum() < 1e-10
    for value in (
        metrics.frequency_selectivity(ours),
        metrics.spectral_entropy(ours),
        metrics.total_power(ours),
    ):
        assert value.isnan().all()
    assert metrics.band_power(ours).isnan().all()


def test_a_signal_shorter_than_a_window_has_no_window_entropy():
    assert metrics.window_entropy(single(attention(4, 96)[..., :10]), 16).isnan().all()


@pytest.mark.parametrize("given", [64, 96])
def test_a_sweep_records_what_the_public_functions_give(given: int):
    """Rows as a sweep reads them, up to the last key with attention, and whole ones."""
    conventions, rows = Conventions(), single(attention(4, 96))[:, :given]
    found = signal_values(rows[..., :given], SignalPlan.of(conventions, 96)).values
    spectrum = metrics.power_spectrum(rows)
    bands = metrics.band_power(spectrum).unbind(-1)
    scales = metrics.wavelet_entropy(metrics.wavelet_coefficients(rows, level=5)).unbind(-1)
    public = {
        "spectral_entropy": metrics.spectral_entropy(spectrum),
        "frequency_selectivity": metrics.frequency_selectivity(spectrum),
        "positional_entropy": metrics.positional_entropy(rows),
        **dict(zip(("band_power_low", "band_power_mid", "band_power_high"), bands, strict=True)),
        **{f"window_entropy_{width}": metrics.window_entropy(rows, width) for width in conventions.windows},
        **{f"wavelet_entropy_{scale}": value for scale, value in enumerate(scales)},
    }
    assert set(found) - set(public) == {"spectral_entropy_normalised"}
    for name, value in public.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6, equal_nan=True, msg=name)


@pytest.mark.parametrize("mode", list(MODES))
@pytest.mark.parametrize("wavelet", ["haar", "db2", "db4", "sym5", "coif1", "bior2.2"])
@pytest.mark.parametrize("keys", [7, 48, 65, 96, 128])
def test_wavelets_are_pywts(wavelet: str, mode: str, keys: int):
    rows = attention(2, keys)
    level = max(1, pywt.dwt_max_level(keys, wavelet))
    ours = metrics.wavelet_coefficients(torch.from_numpy(rows), wavelet=wavelet, level=level, mode=mode)
    reference = (
        pywt.wavedec(rows, wavelet, mode=mode, level=level, axis=-1)
        if level <= pywt.dwt_max_level(keys, wavelet)
        else None
    )
    if reference is None:
        reference = list(pywt.dwt(rows, wavelet, mode=mode, axis=-1))
    assert len(ours) == len(reference) == level + 1
    for scale, expected in zip(ours, reference, strict=True):
        np.testing.assert_allclose(scale.numpy(), expected, rtol=1e-10, atol=1e-12)
    back = metrics.reconstruct_signal(ours, wavelet=wavelet).numpy()
    np.testing.assert_allclose(back, pywt.waverec(reference, wavelet, mode=mode, axis=-1), atol=1e-12)


def test_levels_are_pywts_and_the_papers():
    for length in (3, 24, 48, 96, 128, 2048):
        assert metrics.max_level(length) == pywt.dwt_max_level(length, 4)
    assert metrics.max_level(96) == 5
    assert metrics.scale_level(96, (0.5, 0.25)) == 3


def test_normalised_wavelet_entropy_is_scipys():
    coefficients = [c[:, 50:] for c in pywt.wavedec(attention(4, 96), "db2", level=5, axis=-1)]
    expected = [scipy.stats.entropy(c**2, axis=-1) for c in coefficients]
    ours = metrics.wavelet_entropy([single(c) for c in coefficients], normalised=True)
    close(ours, np.stack(expected, -1))


def test_reconstruction_error_sees_a_loss():
    rows = attention(4, 96)
    coefficients = metrics.wavelet_coefficients(torch.from_numpy(rows), level=5)
    coefficients[-1] = torch.zeros_like(coefficients[-1])
    lossy = [c.numpy() for c in coefficients]
    expected = np.linalg.norm(pywt.waverec(lossy, "db2", axis=-1) - rows, axis=(1, 2))
    expected /= np.linalg.norm(rows, axis=(1, 2))
    ours = metrics.reconstruction_error(torch.from_numpy(rows), level=5, coefficients=coefficients)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-10)


def scale_reference(rows: np.ndarray, scaled: np.ndarray, positions: np.ndarray, align: str, level: int):
    def concatenated(coefficients: list[np.ndarray]) -> np.ndarray:
        return np.concatenate(coefficients, -1)

    keys, kept = rows.shape[-1], scaled.shape[-1]
    if align == "dilate":
        shift = int(np.log2(keys // kept))
        ours = pywt.wavedec(rows, "db2", level=level, axis=-1)[: level - shift + 1]
        theirs = pywt.wavedec(scaled, "db2", level=level - shift, axis=-1)
        size = [min(a.shape[-1], b.shape[-1]) for a, b in zip(ours, theirs, strict=True)]
        first = concatenated([c[..., :s] for c, s in zip(ours, size, strict=True)])
        second = concatenated([c[..., :s] for c, s in zip(theirs, size, strict=True)])
    else:
        if align == "interpolate":
            grid = np.linspace(0, kept - 1, keys)
            scaled = scipy.interpolate.interp1d(np.arange(kept), scaled, axis=-1)(grid)
        else:
            rows = rows[..., positions] / rows[..., positions].sum(-1, keepdims=True)
        first = concatenated(pywt.wavedec(rows, "db2", level=level, axis=-1))
        second = concatenated(pywt.wavedec(scaled, "db2", level=level, axis=-1))
    norms = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    return 1 - (first * second).sum(-1) / norms


@pytest.mark.parametrize("align", ["interpolate", "gather", "dilate"])
@pytest.mark.parametrize("alpha", [0.5, 0.25])
@pytest.mark.parametrize("n", [96, 128])
def test_scale_sensitivity_is_the_written_out_one(align: str, alpha: float, n: int):
    level = metrics.scale_level(n, (0.5, 0.25))
    positions = metrics.kept_positions(n, alpha)
    rows, scaled = attention(3, n)[:, positions], attention(3, len(positions), seed=1)
    rows, scaled = rows[:, 2**level - 1 :], scaled[:, 2**level - 1 :]
    ours = metrics.scale_sensitivity(
        torch.from_numpy(rows),
        torch.from_numpy(scaled),
        align=align,
        positions=torch.from_numpy(positions),
        level=level,
    )
    np.testing.assert_allclose(
        ours.numpy(), scale_reference(rows, scaled, positions, align, level), rtol=1e-9
    )


def test_kept_positions():
    np.testing.assert_array_equal(metrics.kept_positions(10, 0.5), [0, 2, 4, 6, 8])
    np.testing.assert_array_equal(metrics.kept_positions(11, 0.25), [0, 5])
    np.testing.assert_array_equal(metrics.kept_positions(10, 0.5, sample="prefix"), range(5))
    drawn = metrics.kept_positions(96, 0.25, sample="random", seed=3)
    assert (np.diff(drawn) > 0).all()
    assert len(drawn) == 24
    np.testing.assert_array_equal(drawn, metrics.kept_positions(96, 0.25, sample="random", seed=3))


def test_patterns_are_their_sums_written_out():
    n, block, span = 40, 20, 16
    maps = attention(2, 3, n)
    ours = single(maps)
    q = np.arange(n)
    close(metrics.previous_token_score(ours), maps[..., q[1:], q[1:] - 1].mean(-1))
    close(metrics.sink_share(ours), maps[..., 1:, 0].mean(-1))
    close(metrics.prefix_matching_score(ours, block), maps[..., q[block:], q[block:] - block + 1].mean(-1))
    local = [maps[..., i, i - span + 1 : i + 1].sum(-1) for i in range(span, n)]
    close(metrics.local_share(ours, span), np.mean(local, 0))
    assert metrics.local_share(ours[..., :10, :10], span).isnan().all()
    flat = maps.reshape(2, 3, -1)
    pairs = [
        (flat[:, i] * flat[:, j]).sum(-1)
        / np.linalg.norm(flat[:, i], axis=-1)
        / np.linalg.norm(flat[:, j], axis=-1)
        for i in range(3)
        for j in range(i)
    ]
    close(metrics.head_redundancy(ours), np.mean(pairs, 0))
    assert metrics.head_redundancy(ours[:, :1]).isnan().all()


def test_correlation_is_scipys_pooled_over_batches_and_needs_eight_samples():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 60)) + 1e4
    y = x + rng.normal(size=(3, 60))
    y[0, :5] = np.nan
    pooled = metrics.CoMoments((3,))
    for part in np.split(np.arange(60), 6):
        pooled.add(slice(None), torch.from_numpy(x[:, part]), torch.from_numpy(y[:, part]))
    reference = [
        scipy.stats.pearsonr(a[np.isfinite(b)], b[np.isfinite(b)])[0] for a, b in zip(x, y, strict=True)
    ]
    np.testing.assert_allclose(pooled.correlation().numpy(), reference, rtol=1e-7)
    few = metrics.position_spectrum_correlation(torch.from_numpy(x[:, :7]), torch.from_numpy(y[:, :7]))
    assert few.isnan().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda x: metrics.power_spectrum(x, window="kaiser"),
            "spectrum.window=kaiser: invalid value; expected one of hann",
        ),
        (
            lambda x: metrics.power_spectrum(x, n_fft=64),
            "spectrum.n_fft=64: invalid value; expected at least the 96",
        ),
        (
            lambda x: metrics.wavelet_coefficients(x, level=1, mode="smooth"),
            "spectrum.mode=smooth: invalid value; expected one of symmetric",
        ),
        (
            lambda x: metrics.wavelet_coefficients(x, level=1, wavelet="db99"),
            "spectrum.wavelet=db99: invalid value",
        ),
        (
            lambda x: metrics.kept_positions(96, 0.5, sample="first"),
            "spectrum.sample=first: invalid value; expected one of stride",
        ),
        (
            lambda x: metrics.scale_sensitivity(x, x, positions=x, level=1, align="warp"),
            "spectrum.align=warp: invalid value; expected one of interpolate",
        ),
        (
            lambda x: metrics.scale_sensitivity(x, x[..., ::4], positions=x[0, ::4], level=2, align="dilate"),
            "spectrum.align=dilate: invalid value; expected sequences long enough for 3 levels",
        ),
    ],
)
def test_what_is_not_offered_is_named_with_what_is(call, message: str):
    with pytest.raises(RequestError, match=message):
        call(torch.rand(4, 96))
