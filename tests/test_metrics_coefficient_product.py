"""Inner products of wavelet coefficients, against pywt's coefficients multiplied out in float64."""

import numpy as np
import pytest
import pywt
import torch

from tracker.metrics.coefficients import coefficient_product
from tracker.metrics.wavelets import max_level

CPU = torch.device("cpu")


def coefficients(signal: torch.Tensor, wavelet: str, level: int, mode: str) -> np.ndarray:
    return np.concatenate(pywt.wavedec(signal.numpy(), wavelet, mode=mode, level=level), -1)


@pytest.mark.parametrize("n", [48, 97, 128, 512])
@pytest.mark.parametrize(
    ("wavelet", "mode"), [("db2", "symmetric"), ("db2", "zero"), ("haar", "symmetric"), ("sym4", "reflect")]
)
def test_products_are_those_of_the_coefficients(n: int, wavelet: str, mode: str):
    level = max(1, max_level(n, wavelet) - 2)
    product = coefficient_product(n, wavelet, level, mode, torch.float64, CPU)
    assert product is not None
    x, y = torch.rand(2, 3, n, dtype=torch.float64)
    expected = (coefficients(x, wavelet, level, mode) * coefficients(y, wavelet, level, mode)).sum(-1)
    np.testing.assert_allclose(product(x, y)[2], expected, rtol=1e-8)
    plain = (x * y).sum(-1).numpy()
    if mode == "symmetric" and wavelet == "db2":
        assert abs(plain / expected - 1).max() > 1e-3, "the ends must matter, or this proves nothing"


@pytest.mark.parametrize("given", [3, 50, 96, 127])
def test_signals_may_end_before_their_zeros(given: int):
    product = coefficient_product(128, "db2", 3, "symmetric", torch.float32, CPU)
    assert product is not None
    x, y = torch.rand(2, 4, 128)
    x[..., given:] = 0
    for cut, whole in zip(product(x[..., :given], y), product(x, y), strict=True):
        np.testing.assert_allclose(cut, whole, rtol=1e-6)
    for cut, whole in zip(product(y, x[..., :given]), product(y, x), strict=True):
        np.testing.assert_allclose(cut, whole, rtol=1e-6)


@pytest.mark.parametrize(
    ("wavelet", "mode"), [("bior2.2", "symmetric"), ("db2", "periodic"), ("dmey", "zero")]
)
def test_where_the_transform_is_not_orthogonal_there_is_no_product(wavelet: str, mode: str):
    assert coefficient_product(64, wavelet, 2, mode, torch.float32, CPU) is None


def test_long_signals_take_little_memory():
    n, level = 4096, max_level(4096, "db2") - 2
    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True)
    coefficient_product.cache_clear()
    with profiler as seen:
        product = coefficient_product(n, "db2", level, "symmetric", torch.float64, CPU)
    assert product is not None
    x, y = torch.rand(2, 2, n, dtype=torch.float64)
    expected = (coefficients(x, "db2", level, "symmetric") * coefficients(y, "db2", level, "symmetric")).sum(
        -1
    )
    np.testing.assert_allclose(product(x, y)[2], expected, rtol=1e-8)
    largest = max(each.self_cpu_memory_usage for each in seen.events() or [])
    assert largest < n * n * 8 / 4, "the whole Gram matrix would be 134 MB"
