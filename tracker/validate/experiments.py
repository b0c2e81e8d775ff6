"""The ground-truth experiments: signals, weights and states whose measures are known in closed form.

Every experiment takes the functions of ``tracker.metrics``, or others in their place, and yields findings.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from tracker import metrics
from tracker.validate.finding import Finding, at_least, at_most, is_undefined, near

LENGTHS = (64, 96, 128)
FREQUENCIES = (5, 16, 27)
NOISE_SIGNALS = 20_000
LOG_CHI_SQUARE = 0.423
"""Mean of -p log p lost by a chi-square spectrum of two degrees of freedom: 1 - Euler's constant."""


def cosine(functions: Any) -> Iterator[Finding]:
    """Compare the peak of a cosine at bin k with k."""
    off = 0
    for n in LENGTHS:
        n_fft = 1 << (n - 1).bit_length()
        for frequency in FREQUENCIES:
            signal = torch.cos(2 * math.pi * frequency * torch.arange(n).double() / n_fft)
            peak = int(functions.power_spectrum(signal - signal.mean()).argmax())
            off = max(off, abs(peak - frequency))
    yield near("a cosine at bin k: bins between its peak and k", 0, off, 0)


def impulse(functions: Any) -> Iterator[Finding]:
    """Try a unit impulse, whose spectrum is flat."""
    for n_fft in (64, 128, 256):
        spectrum = functions.power_spectrum(torch.eye(n_fft, dtype=torch.float64)[17])
        bins = n_fft // 2 + 1
        shares = (n_fft // 8 / bins, n_fft // 4 / bins, (n_fft // 8 + 1) / bins)
        found = functions.band_power(spectrum)
        for name, expected, share in zip(("low", "middle", "high"), shares, found, strict=True):
            yield near(f"impulse, n_fft {n_fft}: share of the {name} band", expected, float(share), 1e-12)
        entropy = float(functions.spectral_entropy(spectrum))
        yield near(f"impulse, n_fft {n_fft}: entropy log({bins})", math.log(bins), entropy, 1e-12)
        selectivity = float(functions.frequency_selectivity(spectrum))
        yield near(f"impulse, n_fft {n_fft}: selectivity 1/{bins - 1}", 1 / (bins - 1), selectivity, 1e-12)


def white_noise(functions: Any) -> Iterator[Finding]:
    """Try white noise: the same shares in the mean, and an entropy that is less by 0.423 nats."""
    generator = torch.Generator().manual_seed(0)
    signals = torch.randn(NOISE_SIGNALS, 128, generator=generator, dtype=torch.float64)
    shares = functions.band_power(functions.power_spectrum(signals)).mean(0)
    expected = (16 / 65, 32 / 65, 17 / 65)
    for name, share, found in zip(("low", "middle", "high"), expected, shares, strict=True):
        yield near(f"white noise: mean share of the {name} band", share, float(found), 0.03 * share)
    centred = signals - signals.mean(-1, keepdim=True)
    # Bin 0 is empty after centring, and the last bin has one degree of freedom only.
    inner = functions.power_spectrum(centred, window="rectangular")[:, 1:-1]
    entropy = float(functions.spectral_entropy(inner).mean())
    yield near("white noise: entropy log(bins) - 0.423", math.log(63) - LOG_CHI_SQUARE, entropy, 0.012)


def one_bin(functions: Any) -> Iterator[Finding]:
    """Try a spectrum with all power in one bin: no entropy, and no selectivity to speak of."""
    spectrum = torch.eye(65, dtype=torch.float64)[7]
    yield near("one bin only: entropy", 0, float(functions.spectral_entropy(spectrum)), 0)
    selectivity = float(functions.frequency_selectivity(spectrum))
    yield is_undefined("one bin only: selectivity", selectivity)


def positions(functions: Any) -> Iterator[Finding]:
    """Try entropies over key positions on uniform attention and on a single key."""
    uniform, single = torch.full((96,), 1 / 96, dtype=torch.float64), torch.eye(96, dtype=torch.float64)[40]
    yield near("uniform attention over 96 keys: positional entropy log(96)", math.log(96),
               float(functions.positional_entropy(uniform)), 1e-12)  # fmt: skip
    yield near("attention on one key: positional entropy", 0, float(functions.positional_entropy(single)), 0)
    for width in (16, 32, 64):
        found = float(functions.window_entropy(uniform, width))
        yield near(f"uniform attention: window entropy, width {width}", 1, found, 1e-12)


def periods(functions: Any) -> Iterator[Finding]:
    """Look for the energy of a period of 2^j on the detail levels that cover it; db2 leaks some."""
    for exponent in (1, 2, 3, 4):
        signal = torch.cos(2 * math.pi * torch.arange(512).double() / 2**exponent)
        coefficients = functions.wavelet_coefficients(signal, level=7, mode="periodic")
        energy = torch.stack([scale.square().sum() for scale in reversed(coefficients[1:])])
        share = float(energy[max(exponent - 2, 0) : exponent + 1].sum() / energy.sum())
        yield at_least(f"period {2**exponent}: energy on the levels that cover it", share, 0.9)
        level = int(energy.argmax()) + 1
        expected = f"level {exponent - 1} or {exponent}" if exponent > 1 else "level 1"
        yield Finding(f"period {2**exponent}: strongest detail level", expected, f"level {level}", "exact",
                      level in (max(exponent - 1, 1), exponent))  # fmt: skip


def causal_rows(profile: Callable[[Tensor, Tensor, int], Tensor], n: int) -> Tensor:
    """Make rows q of weights over keys k <= q, each summing to 1, float64, shape (n, n)."""
    q, k = torch.arange(n).double().unsqueeze(-1), torch.arange(n).double()
    weights = profile(q, k, n) * (k <= q)
    return weights / weights.sum(-1, keepdim=True)


def relative_place(q: Tensor, k: Tensor, n: int) -> Tensor:
    """Give weights by t / n alone: the same shape at every length."""
    return torch.exp(-4 * (k + 0.5) / n)


def previous_token(q: Tensor, k: Tensor, n: int) -> Tensor:
    """Put all attention on the token before: a window of fixed width."""
    return ((k == q - 1) | ((q == 0) & (k == 0))).double()


def scale(functions: Any) -> Iterator[Finding]:
    """Compute S(alpha) with ``interpolate``: near 0 for a row of t / n, not for a fixed window."""
    n = 96
    level = functions.scale_level(n, (0.5, 0.25))
    for alpha in (0.5, 0.25):
        kept = torch.from_numpy(functions.kept_positions(n, alpha))
        found = []
        for profile in (relative_place, previous_token):
            full, short = causal_rows(profile, n)[kept], causal_rows(profile, len(kept))
            rows = slice(2**level - 1, None)
            values = functions.scale_sensitivity(full[rows], short[rows], positions=kept, level=level)
            found.append(float(values.mean()))
        yield at_most(f"row of t / n alone: S({alpha})", found[0], 0.02, "about 0")
        yield at_least(f"fixed window at the previous token: S({alpha})", found[1], 0.3, "not near 0")


def patterns(functions: Any) -> Iterator[Finding]:
    """Score maps of one pattern: each has the score of that pattern."""
    previous = causal_rows(previous_token, 96)
    sink = causal_rows(lambda q, k, n: (k == 0).double() + 0 * q, 96)
    induction = causal_rows(lambda q, k, n: ((k == q - 49) | ((q < 49) & (k == q))).double(), 100)
    both = torch.stack((previous, sink))
    yield near("previous-token map: previous-token score", 1, float(functions.previous_token_score(previous)),
               1e-12)  # fmt: skip
    yield near("map on the first key: sink share", 1, float(functions.sink_share(sink)), 1e-12)
    yield near("previous-token map: local share of 16 keys", 1, float(functions.local_share(previous, 16)),
               1e-12)  # fmt: skip
    yield near("induction on a block of 50 twice: prefix matching", 1,
               float(functions.prefix_matching_score(induction, 50)), 1e-12)  # fmt: skip
    twice = functions.head_redundancy(torch.stack((sink, sink)))
    yield near("two equal heads: redundancy", 1, float(twice), 1e-12)
    # The maps share the two rows that can look at nothing else, of 96 each.
    yield near("two heads alike in 2 of 96 rows: redundancy", 2 / 96, float(functions.head_redundancy(both)),
               1e-12)  # fmt: skip
    lower, upper = functions.frame_bounds(torch.eye(32, dtype=torch.float64).expand(3, 32, 32))
    yield near("three heads that copy: lower frame bound", 3, float(lower), 1e-9)
    yield near("three heads that copy: upper frame bound", 3, float(upper), 1e-9)


def weights(functions: Any) -> Iterator[Finding]:
    """Try matrices whose singular values are known, and heads that use one rotary frequency."""
    gaussian = torch.randn(512, 512, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    stable = float(functions.stable_rank(functions.singular_values(gaussian)))
    yield near("Gaussian matrix, 512 x 512: stable rank n m / (sqrt n + sqrt m)^2", 128, stable, 0.03 * 128)
    projection = functions.singular_values(torch.eye(96, dtype=torch.float64)[:7])
    for name in ("stable_rank", "effective_rank"):
        found = float(getattr(functions, name)(projection))
        yield near(f"projection on 7 directions: {name.replace('_', ' ')}", 7, found, 1e-9)
    grown = torch.eye(96, dtype=torch.float64)[:7] * torch.arange(1.0, 8.0).unsqueeze(1)
    product = functions.product_singular_values(grown, grown)
    yield near(
        "product of factors of norm 7: spectral norm", 49, float(functions.spectral_norm(product)), 1e-9
    )
    signs = torch.ones(1000, dtype=torch.float64)
    signs[::2] = -1
    yield near("entries of one magnitude: outlier ratio", 1, float(functions.outlier_ratio(signs)), 1e-12)
    for name, interleaved, pair in (("half", False, [2, 10]), ("neighbours", True, [4, 5])):
        head = torch.zeros(1, 24, 8, dtype=torch.float64)
        head[0, pair] = 1.0
        shares = functions.rotary_shares(head, 16, interleaved=interleaved)
        place = float(functions.mean_frequency_index(shares))
        yield near(f"a head of the third of 8 rotary frequencies ({name}): place", 2 / 7, place, 1e-12)
    high, low = functions.rotary_bands(torch.full((1, 8), 1 / 8, dtype=torch.float64))
    yield near("a head that uses 8 frequencies alike: highest quarter", 0.25, float(high), 1e-12)
    yield near("a head that uses 8 frequencies alike: lowest quarter", 0.25, float(low), 1e-12)


def states(functions: Any) -> Iterator[Finding]:
    """Try hidden states with one large activation, in the first token."""
    hidden = torch.ones(12, 64, dtype=torch.float64)
    hidden[0, 3] = 100.0
    yield near("one activation of 100 among ones: over the median", 100,
               float(functions.largest_over_median(hidden)), 1e-12)  # fmt: skip
    norm = math.sqrt(100**2 + 63) / 8
    yield near("in the first token: its norm", norm, float(functions.first_norm(hidden)), 1e-12)


EXPERIMENTS = (cosine, impulse, white_noise, one_bin, positions, periods, scale, patterns, weights, states)


def ground_truth(functions: Any = metrics) -> list[Finding]:
    """Run every experiment, in order.

    Args:
        functions: the metrics to try, by their names in ``tracker.metrics``.
    """
    return [finding for experiment in EXPERIMENTS for finding in experiment(functions)]
