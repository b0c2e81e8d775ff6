"""A whole measurement against a float64 reference written out with scipy, pywt and plain loops."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import pywt
import scipy.fft
import scipy.signal
import scipy.stats
import torch
from polars.testing import assert_frame_equal
from test_models_capture import eager, llama, neox
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from tracker.errors import CheckpointError, RequestError
from tracker.measurement.measure import measure
from tracker.measurement.probe import encode_probe, load_tokenizer, prefix_ids, probe_spec, probe_tokens
from tracker.measurement.tables import TARGETED
from tracker.metrics.registry import head_columns, layer_columns, sequence_columns
from tracker.models import load_model, loss_positions
from tracker.records import Checkpoint, Conventions, Measurement, ProbeSource, ProbeSpec, Unit
from tracker.store import SCHEMAS, conform

N = 48


def unit_for(n: int = N, number: int = 10, conventions: Conventions | None = None) -> Unit:
    probe = ProbeSpec("test", "0" * 64, n, number)
    checkpoint = Checkpoint("suite", "m", 0, 5, "folder", "/nowhere", "step5")
    return Unit(checkpoint, probe, conventions or Conventions())


def tokens_for(n: int = N, number: int = 10, vocabulary: int = 64):
    ids = np.random.default_rng(1).integers(0, vocabulary, (number, n))
    return probe_tokens(ids, prefix_ids(vocabulary, [], block=16, seed=0))


def spectra(signal: np.ndarray, prefix: str, out: dict, at: tuple) -> tuple[float, float]:
    """Columns of one signal, from scipy, pywt and the formulas."""
    keys = len(signal)
    n_fft = 2 ** math.ceil(math.log2(keys))
    taper = scipy.signal.get_window("hann", keys, fftbins=False)
    power = np.abs(scipy.fft.rfft(signal * taper, n=n_fft)) ** 2
    defined = power.sum() > 1e-10
    frequency = np.linspace(0, 1, len(power))
    with np.errstate(invalid="ignore", divide="ignore"):
        values = {
            "spectral_entropy": scipy.stats.entropy(power) if defined else np.nan,
            "frequency_selectivity": power.max() / (power.sum() - power.max()) if defined else np.nan,
            "band_power_low": power[frequency < 0.25].sum() / power.sum() if defined else np.nan,
            "band_power_high": power[frequency >= 0.75].sum() / power.sum() if defined else np.nan,
            "positional_entropy": scipy.stats.entropy(signal),
        }
        values["spectral_entropy_normalised"] = values["spectral_entropy"] / math.log(len(power))
        values["band_power_mid"] = 1 - values["band_power_low"] - values["band_power_high"]
        coefficients = pywt.wavedec(signal, "db2", level=pywt.dwt_max_level(keys, 4))
        for scale, c in enumerate(coefficients):
            values[f"wavelet_entropy_{scale}"] = -np.nansum(c**2 * np.log(c**2))
        for width in (16, 32, 64):
            windows = [signal[i : i + width] for i in range(0, keys - width + 1, width)]
            parts = [scipy.stats.entropy(w) / math.log(width) for w in windows if w.sum() > 1e-10]
            values[f"window_entropy_{width}"] = np.mean(parts) if parts else np.nan
    for name, value in values.items():
        out.setdefault(prefix + name, {}).setdefault(at, []).append(value)
    return values["positional_entropy"], values["spectral_entropy"]


def scale(signal: np.ndarray, short: np.ndarray, level: int) -> float:
    longer = np.interp(np.linspace(0, len(short) - 1, len(signal)), np.arange(len(short)), short)
    a, b = (np.concatenate(pywt.wavedec(x, "db2", level=level)) for x in (signal, longer))
    return float(1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def reference(maps: list[np.ndarray], shorts: dict[float, list[np.ndarray]]) -> tuple[dict, dict]:
    """Per column {(sequence, layer, head): value}; per prefix the entropies of every sample of a head."""
    out: dict = {}
    samples: dict = {}
    n = maps[0].shape[-1]
    level = pywt.dwt_max_level(n // 4, 4)
    for layer, attention in enumerate(maps):
        for s, h in np.ndindex(attention.shape[:2]):
            at, a = (s, layer, h), attention[s, h]
            for row in a:
                samples.setdefault(("", layer, h), []).append(spectra(row, "", out, at))
            mean = a.mean(0)
            samples.setdefault(("averaged_", layer, h), []).append(spectra(mean, "averaged_", out, at))
            for alpha, short in shorts.items():
                b = short[layer][s, h]
                kept = np.arange(len(b)) * n // len(b)
                rows = [scale(a[kept[i]], b[i], level) for i in range(2**level - 1, len(b))]
                out.setdefault(f"scale_sensitivity_{alpha}", {})[at] = rows
                out.setdefault(f"averaged_scale_sensitivity_{alpha}", {})[at] = [
                    scale(mean, b.mean(0), level)
                ]
            q = np.arange(n)
            out.setdefault("previous_token_score", {})[at] = [a[q[1:], q[:-1]].mean()]
            out.setdefault("sink_share", {})[at] = [a[1:, 0].mean()]
            out.setdefault("local_share", {})[at] = [
                np.mean([a[i, i - 15 : i + 1].sum() for i in range(16, n)])
            ]
    with np.errstate(all="ignore"):
        means = {
            name: {at: np.nanmean(v) if np.isfinite(v).any() else np.nan for at, v in column.items()}
            for name, column in out.items()
        }
    return means, samples


@pytest.fixture(scope="module", params=["neox", "llama"])
def measured(request) -> tuple[Measurement, dict, dict, list[np.ndarray]]:
    model = {"neox": neox, "llama": llama}[request.param]()
    tokens = tokens_for(number=9)
    measurement = measure(unit_for(number=9), model, tokens)
    ids = torch.from_numpy(tokens.ids)

    def attention(kept: torch.Tensor) -> list[np.ndarray]:
        return [a.double().numpy() for a in eager(model, kept)[0]]

    maps = attention(ids)
    shorts = {alpha: attention(ids[:, np.arange(m) * N // m]) for alpha, m in ((0.5, 24), (0.25, 12))}
    return measurement, *reference(maps, shorts), maps


def close(ours: object, expected: object) -> None:
    np.testing.assert_allclose(np.asarray(ours, float), np.asarray(expected, float), rtol=1e-4, atol=1e-6)


def test_every_head_column_is_the_reference(measured):
    measurement, means, samples, _ = measured
    heads = conform("heads", measurement.heads).sort("layer", "head")
    for name, column in means.items():
        values = np.array([[[column[s, layer, h] for h in range(4)] for layer in range(3)] for s in range(9)])
        with np.errstate(all="ignore"):
            if np.isnan(values).all():
                assert heads[name].null_count() == heads.height, name
                continue
            close(heads[name], np.nanmean(values, 0).ravel())
            close(heads[f"{name}_std"], np.nanstd(values, 0, ddof=1).ravel())
    for prefix in ("", "averaged_"):
        expected = []
        for layer, h in np.ndindex(3, 4):
            pairs = np.array(samples[prefix, layer, h])
            pairs = pairs[np.isfinite(pairs).all(1)]
            expected.append(scipy.stats.pearsonr(*pairs.T)[0])
        close(heads[f"{prefix}position_spectrum_correlation"], expected)
    checked = set(means) | {
        "reconstruction_error",
        "averaged_reconstruction_error",
        "prefix_matching_score",
        "position_spectrum_correlation",
        "averaged_position_spectrum_correlation",
    }
    filled = {name for name in head_columns(own=False) if heads[name].null_count() < heads.height}
    assert filled <= checked
    assert heads["reconstruction_error"].max() < 1e-6  # type: ignore[operator]


def test_spectrum_column_is_the_mean_power_in_sixteen_bands(measured):
    measurement, _, _, maps = measured
    rows = maps[1][:, 2].reshape(-1, N)
    power = (np.abs(scipy.fft.rfft(rows * scipy.signal.get_window("hann", N, fftbins=False), n=64)) ** 2).sum(
        0
    )
    bands = [power[(np.arange(33) * 16 // 32).clip(max=15) == band].sum() for band in range(16)]
    row = measurement.heads.filter((pl.col("layer") == 1) & (pl.col("head") == 2))
    close(row["spectrum"][0], np.array(bands) / np.sum(bands))


def test_wavelet_energy_is_the_mean_energy_of_each_scale(measured):
    measurement, _, _, maps = measured
    rows = maps[1][:, 2].reshape(-1, N)
    coefficients = pywt.wavedec(rows.astype(np.float64), "db2", mode="symmetric", axis=-1)
    energy = [(scale**2).sum() for scale in coefficients]
    row = measurement.heads.filter((pl.col("layer") == 1) & (pl.col("head") == 2))
    close(row["wavelet_energy"][0], np.array(energy) / np.sum(energy))


def test_sequences_layers_and_checkpoint_are_summaries_of_the_same_values(measured):
    measurement, means, samples, maps = measured
    sequences = conform("sequences", measurement.sequences)
    row = conform("checkpoint", measurement.checkpoint).row(0, named=True)
    for name in ("spectral_entropy", "averaged_scale_sensitivity_0.5", "sink_share"):
        values = np.array([[[means[name][s, la, h] for h in range(4)] for la in range(3)] for s in range(9)])
        close(sequences[name], np.nanmean(values, (1, 2)))
        heads = np.nanmean(values, 0).ravel()
        close(row[name], heads.mean())
        close(row[f"{name}_std"], heads.std(ddof=1))
        close([row[f"{name}_q25"], row[f"{name}_q75"]], np.quantile(heads, [0.25, 0.75]))
    layers = measurement.layers.sort("layer")
    flat = maps[0].reshape(9, 4, -1)
    flat = flat / np.linalg.norm(flat, axis=-1, keepdims=True)
    cosine = np.einsum("shk,sgk->shg", flat, flat)
    close(layers["head_redundancy"][0], np.mean([c[np.triu_indices(4, 1)].mean() for c in cosine]))
    singular = np.linalg.svd(maps[0][0].reshape(-1, N), compute_uv=False) ** 2
    close([layers["frame_upper"][0], layers["frame_ratio"][0]], [singular[0], singular[-1] / singular[0]])
    # The first row of every map is an impulse under Hann's zero; rows that only look there join it.
    undefined = sum(np.isnan(s) for (prefix, _, _), pairs in samples.items() if not prefix for _, s in pairs)
    assert row["undefined_rows"] == undefined >= 9 * 3 * 4


def test_loss_and_prefix_matching_are_the_models_own(measured):
    measurement = measured[0]
    family = llama() if measurement.checkpoint["rotary_dims"][0] == 8 else neox()
    tokens = tokens_for(number=9)
    ids = torch.from_numpy(tokens.ids)
    maps, _ = eager(family, torch.from_numpy(tokens.prefix_ids))
    with torch.inference_mode():
        logits = family(ids).logits.double()
    losses = torch.nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none"
    ).numpy()
    close(measurement.sequences["loss"], losses.mean(1))
    tenth = (
        slice(round(0.1 * N - 2.5), round(0.1 * N - 2.5) + 5),
        slice(round(0.9 * N - 2.5), round(0.9 * N - 2.5) + 5),
    )
    close(
        measurement.sequences["in_context_score"], losses[:, tenth[1]].mean(1) - losses[:, tenth[0]].mean(1)
    )
    q = np.arange(16, 32)
    for row in measurement.heads.iter_rows(named=True):
        attention = maps[row["layer"]][:, row["head"]].numpy()
        close(row["prefix_matching_score"], attention[:, q, q - 15].mean())


def test_every_column_of_the_schema_is_measured_where_it_exists(measured):
    measurement = measured[0]
    for table, columns in (
        ("heads", head_columns(own=False)),
        ("layers", layer_columns()),
        ("sequences", sequence_columns(own=False)),
    ):
        frame = conform(table, getattr(measurement, table))
        empty = {name for name in columns if frame[name].null_count() == frame.height}
        # 48 tokens have five wavelet scales and no window of 64 keys; no sink was learned
        absent = ("wavelet_entropy", "window_entropy_64", "learned_sink_share")
        assert {name for name in empty if not any(each in name for each in absent)} == set(), table
    row = conform("checkpoint", measurement.checkpoint).row(0, named=True)
    described = [name for name in SCHEMAS["checkpoint"] if not name.endswith(("_std", "_q25", "_q75"))][:34]
    missing = {"tokens_seen", "reason", "commit", "attention_layers"}
    assert {name for name in described if row[name] is None} == missing


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch):
    whole = measure(unit_for(), neox(), tokens_for())
    monkeypatch.setattr("tracker.measurement.measure.BATCH_BYTES", 4 * 4 * N * N * 3)
    parts = measure(unit_for(), neox(), tokens_for())
    left_out = ["seconds", "peak_bytes"]
    for table in ("heads", "layers", "sequences", "checkpoint"):
        a, b = (getattr(each, table).drop(left_out, strict=False) for each in (whole, parts))
        for name in a.columns:
            if a[name].dtype == pl.Float64:
                np.testing.assert_allclose(
                    b[name].to_numpy(), a[name].to_numpy(), rtol=1e-5, atol=1e-7, err_msg=name
                )


def test_a_wavelet_too_long_for_any_level_leaves_the_other_metrics_as_they_are():
    """The transform then hands back the very signal that it was given."""
    long, short = (
        measure(unit_for(conventions=Conventions(wavelet=each)), neox(), tokens_for()).heads
        for each in ("dmey", "db2")
    )
    for name in ("sink_share", "previous_token_score", "averaged_spectral_entropy"):
        assert long[name].equals(short[name]), name
    assert (long["reconstruction_error"] == 0).all()


def test_sequences_are_measured_until_the_means_are_known_well_enough(monkeypatch: pytest.MonkeyPatch):
    tokens, unit = tokens_for(number=100), unit_for(number=100)
    every = measure(unit, neox(), tokens)

    def errors(found: Measurement) -> list[float]:
        drawn = [found.sequences[name].to_numpy() for name in TARGETED]
        return [float(each.std(ddof=1) / len(each) ** 0.5 / abs(each.mean())) for each in drawn]

    for_all = max(errors(every))
    target = for_all * 2**0.5  # reached after about half of them, hence at the look of 64
    aimed = replace(unit, probe=replace(unit.probe, target_error=target))
    found = measure(aimed, neox(), tokens)
    count = found.checkpoint["n_sequences"].item()
    assert count in (16, 32, 64)
    assert max(errors(found)) <= target
    assert found.sequences["sequence"].to_list() == list(range(count))
    for name in TARGETED:
        assert found.sequences[name].to_list() == every.sequences[name][:count].to_list()
    first = measure(unit, neox(), probe_tokens(tokens.ids[:count], tokens.prefix_ids))
    for table in ("heads", "layers", "sequences"):
        assert_frame_equal(getattr(found, table).drop("probe"), getattr(first, table).drop("probe"))

    monkeypatch.setattr("tracker.measurement.measure.BATCH_BYTES", 1)
    assert measure(aimed, neox(), tokens).checkpoint["n_sequences"].item() == count
    out_of_reach = replace(unit, probe=replace(unit.probe, target_error=for_all / 100))
    assert measure(out_of_reach, neox(), tokens).checkpoint["n_sequences"].item() == 100
    assert aimed.key != unit.key
    assert aimed.probe.label != unit.probe.label


def test_a_subset_of_rows_estimates_all_of_them_and_averaged_signals_still_use_every_query():
    every = measure(unit_for(), neox(), tokens_for()).checkpoint.row(0, named=True)
    some = measure(unit_for(conventions=Conventions(queries=12)), neox(), tokens_for()).checkpoint.row(
        0, named=True
    )
    assert some["spectral_entropy"] != every["spectral_entropy"]
    assert some["spectral_entropy"] == pytest.approx(every["spectral_entropy"], rel=0.15)
    assert some["averaged_spectral_entropy"] == pytest.approx(every["averaged_spectral_entropy"], rel=1e-6)


@pytest.mark.parametrize("averaging", ["last", "lag"])
def test_other_averaged_signals(averaging: str):
    model, tokens = neox(), tokens_for(number=2)
    row = measure(unit_for(number=2, conventions=Conventions(averaging=averaging)), model, tokens).heads.row(
        0, named=True
    )
    first = eager(model, torch.from_numpy(tokens.ids))[0][0][:, 0].double().numpy()
    signals = [
        a[-1]
        if averaging == "last"
        else np.array([np.mean([a[q, q - lag] for q in range(lag, N)]) for lag in range(N)])
        for a in first
    ]
    close(row["averaged_positional_entropy"], np.mean([-np.nansum(s * np.log(s)) for s in signals]))


def test_a_convention_that_is_not_offered_is_named():
    with pytest.raises(
        RequestError, match=r"spectrum.averaging=middle: invalid value; expected one of received, last, lag"
    ):
        measure(unit_for(conventions=Conventions(averaging="middle")), neox(), tokens_for())


def test_a_loss_that_is_not_a_number_is_an_error():
    model = neox()
    with torch.no_grad():
        model.get_parameter("lm_head.weight").fill_(float("inf"))
    with pytest.raises(CheckpointError, match="the loss is NaN or infinite"):
        measure(unit_for(), model, tokens_for())


def test_where_the_vocabulary_is_dear_64_positions_are_scored():
    every, early, late = loss_positions(2048, all_positions=False)
    assert (len(every), len(early), len(late)) == (32, 16, 16)
    assert abs(early.mean() / 2048 - 0.1) < 0.01
    assert abs(late.mean() / 2048 - 0.9) < 0.01
    every, early, late = loss_positions(96, all_positions=True)
    assert (len(every), len(early), len(late)) == (95, 10, 10)
    assert late.max() <= 94


def small_init(layers: int, width: int, heads: int) -> GPTNeoXForCausalLM:
    """A fresh model as Pythia initialises: small_init, and wang_init for what writes to the residual."""
    torch.manual_seed(0)
    model = GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=1024,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            max_position_embeddings=128,
        )
    )
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            writes = name.endswith(("attention.dense.weight", "dense_4h_to_h.weight"))
            torch.nn.init.normal_(
                parameter, std=2 / layers / width**0.5 if writes else (2 / 5 / width) ** 0.5
            )
    return model.eval()


def test_a_fresh_pythia_looks_like_the_papers_step_0():
    row = measure(unit_for(96, 4), small_init(6, 512, 8), tokens_for(96, 4, 1024)).checkpoint.row(
        0, named=True
    )
    assert 2.0 <= row["spectral_entropy"] <= 2.5
    assert 0.55 <= row["frequency_selectivity"] <= 0.85
    assert 0.75 <= row["band_power_low"] <= 0.92


def measure_stories(real: Path, n: int) -> Measurement:
    source = ProbeSource(text=str(real / "wikitext2_valid.txt"))
    spec = probe_spec(source, name="wikitext", n=n, number=16)
    folder = real / "stories260k"
    tokens = encode_probe(spec, source, load_tokenizer(folder), vocabulary=512, max_positions=512)
    return measure(replace(unit_for(), probe=spec), load_model(folder), tokens)


def test_the_real_model_has_its_two_previous_token_heads_and_no_induction_head(real: Path):
    heads = measure_stories(real, 96).heads
    found = heads.filter(pl.col("previous_token_score") > 0.65).select("layer", "head").rows()
    assert found == [(1, 3), (3, 6)]
    assert heads["prefix_matching_score"].max() < 0.1  # type: ignore[operator]


def test_the_real_model_meets_the_papers_window_entropies(real: Path):
    row = measure_stories(real, 128).checkpoint.row(0, named=True)
    found = [row[f"averaged_window_entropy_{width}"] for width in (16, 32, 64)]
    np.testing.assert_allclose(found, [0.870, 0.883, 0.891], atol=0.01)


def test_results_are_json_safe_numbers(measured):
    row = conform("checkpoint", measured[0].checkpoint).row(0, named=True)
    json.dumps(row, allow_nan=False)


@pytest.mark.parametrize("family", ["gemma2", "cohere", "granite"])
def test_the_loss_is_that_of_the_models_own_logits_in_families_that_scale_them(family: str):
    import transformers

    shape = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "intermediate_size": 64, "max_position_embeddings": 64,
             "initializer_range": 0.3, "pad_token_id": 0}  # fmt: skip
    torch.manual_seed(0)
    config, model = {
        "gemma2": (transformers.Gemma2Config(head_dim=8, final_logit_softcapping=2.0, **shape),
                   transformers.Gemma2ForCausalLM),
        "cohere": (transformers.CohereConfig(logit_scale=0.3, **shape), transformers.CohereForCausalLM),
        "granite": (transformers.GraniteConfig(logits_scaling=4.0, **shape), transformers.GraniteForCausalLM),
    }[family]  # fmt: skip
    made = model(config).eval()
    tokens = tokens_for(number=2)
    found = measure(unit_for(number=2), made, tokens).sequences["loss"]
    ids = torch.from_numpy(tokens.ids)
    made.set_attn_implementation("eager")
    with torch.inference_mode():
        logits = made(ids).logits.transpose(1, 2)[..., :-1]
    every, _, _ = loss_positions(N, all_positions=64 * 32 < 10_000)
    losses = torch.nn.functional.cross_entropy(logits, ids[:, 1:], reduction="none")[:, every]
    close(found, losses.mean(1))
