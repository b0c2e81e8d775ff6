import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from synthetic_store import SMALL, SMALL_STEPS, synthetic_analysis, unit_of, write_store
from views_browser import restored, shared_store, unpacked

from tracker.metrics.registry import checkpoint_columns
from tracker.store import Results, Store, open_store
from tracker.views import dashboard_data, head_maps
from tracker.views.data import landmarks_of
from tracker.views.encode import json_for_html, pack, quantise, rounded, rounded_list
from tracker.views.head_maps import MAP_METRICS
from tracker.views.palette import line_colours
from tracker.views.runs import Run, common_steps, runs_of


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return open_store(shared_store(tmp_path_factory, seeds=2))


@pytest.fixture(scope="module")
def runs(results: Results) -> list[Run]:
    return runs_of(results)


@pytest.fixture(scope="module")
def data(results: Results) -> dict[str, Any]:
    return dashboard_data(results, synthetic_analysis(seeds=2))


def run_of(data: dict[str, Any], key: str) -> dict[str, Any]:
    return next(run for run in data["runs"] if run["key"] == key)


def test_every_series_equals_the_store_to_four_digits(results: Results, data: dict[str, Any]):
    checkpoints = results.checkpoints().filter(pl.col("status") == "ok")
    seen = 0
    for (model, seed), frame in checkpoints.partition_by("model", "seed", as_dict=True).items():
        run = run_of(data, f"nano/{model}/{seed}")
        frame = frame.sort("step")
        assert run["steps"] == frame["step"].to_list()
        assert run["tokens"] == frame["tokens_seen"].to_list()
        for name, series in run["series"].items():
            for part, column in (("mean", name), ("q25", f"{name}_q25"), ("q75", f"{name}_q75")):
                np.testing.assert_allclose(series[part], frame[column].to_numpy(), rtol=6e-4)
                seen += 1
    assert seen > 6 * 50


def test_columns_that_hold_nothing_are_left_out_and_all_others_are_there(
    results: Results, data: dict[str, Any]
):
    checkpoints = results.checkpoints()
    filled = {
        name for name in checkpoint_columns(own=False) if checkpoints[name].null_count() < checkpoints.height
    }
    assert "wavelet_entropy_7" not in filled
    assert {metric["name"] for metric in data["metrics"]} == filled
    assert all(set(run["series"]) == filled for run in data["runs"])
    groups = {metric["name"]: metric["group"] for metric in data["metrics"]}
    assert groups["loss"] == "Language model"
    assert groups["averaged_band_power_low"] == "Spectrum, averaged signal"
    assert "Other" not in groups.values()


def test_half_width_is_the_interval_over_sequences(results: Results, data: dict[str, Any]):
    run = run_of(data, "nano/0.8m/1")
    rows = results.sequences().filter((pl.col("model") == "0.8m") & (pl.col("seed") == 1))
    for i, step in enumerate(run["steps"]):
        losses = rows.filter(pl.col("step") == step)["loss"].to_numpy()
        expected = 1.96 * np.std(losses, ddof=1) / np.sqrt(len(losses))
        assert run["series"]["loss"]["half"][i] == pytest.approx(expected, rel=0.06)
    assert run["series"]["prefix_matching_score"]["half"] == [None] * len(run["steps"])


def test_head_maps_restore_every_head_within_half_a_level(results: Results, data: dict[str, Any]):
    maps = data["maps"]
    assert set(maps["scales"]) == set(MAP_METRICS)
    heads = results.heads()
    for key, packed in maps["runs"].items():
        _, model, seed = key.split("/")
        run = run_of(data, key)
        shape = (len(run["steps"]), packed["layers"], packed["heads"])
        rows = heads.filter((pl.col("model") == model) & (pl.col("seed") == int(seed)))
        rows = rows.sort("step", "layer", "head")
        for name, scale in maps["scales"].items():
            true = rows[name].to_numpy().reshape(shape)
            read = restored(unpacked(packed["metrics"][name], shape), scale["low"], scale["high"])
            width = (scale["high"] - scale["low"]) / maps["levels"]
            inside = (true >= scale["low"]) & (true <= scale["high"])
            assert inside.mean() > 0.99
            assert np.abs(read - true)[inside].max() <= width / 2 * (1 + 1e-9)
            np.testing.assert_array_equal(read[true > scale["high"]], scale["high"])


def test_spectra_are_the_mean_over_the_heads_of_a_layer(results: Results, data: dict[str, Any]):
    run, packed = run_of(data, "nano/0.2m/0"), data["maps"]["runs"]["nano/0.2m/0"]
    bands = data["maps"]["bands"]
    codes = unpacked(packed["spectrum"], (len(run["steps"]), packed["layers"], 16))
    read = 10 ** restored(codes, bands["low"], bands["high"])
    rows = results.heads().filter(
        (pl.col("model") == "0.2m") & (pl.col("seed") == 0) & (pl.col("layer") == 2)
    )
    for i, step in enumerate(run["steps"]):
        true = np.mean(rows.filter(pl.col("step") == step)["spectrum"].to_list(), axis=0)
        np.testing.assert_allclose(read[i, 2], true, rtol=0.02)


def test_holes_are_listed_with_their_reasons_and_counted(data: dict[str, Any]):
    holes = [(hole["model"], hole["step"], hole["status"]) for hole in data["holes"]]
    assert holes == [("0.05m", 4, "missing"), ("0.8m", 16, "failed")]
    assert data["holes"][1]["reason"].startswith("shard 2 of 3 is truncated")
    measured = 6 * len(SMALL_STEPS) - 2
    holes = {"failed": 1, "missing": 1, "damaged": 0}
    assert data["counts"] == {"models": 3, "runs": 6, "checkpoints": measured, **holes}
    assert 4 not in run_of(data, "nano/0.05m/0")["steps"]


def test_runs_are_ordered_by_size_and_named_by_what_distinguishes_them(tmp_path: Path, runs: list[Run]):
    assert [run.label for run in runs][:3] == ["0.05m seed 0", "0.05m seed 1", "0.2m seed 0"]
    write_store(tmp_path, SMALL[:1], SMALL_STEPS[:2], suite="a", holes=False)
    write_store(tmp_path, SMALL[1:2], SMALL_STEPS[:3], suite="b", holes=False)
    others = runs_of(open_store(tmp_path))
    assert [(run.label, run.rank) for run in others] == [("a 0.05m", 0), ("b 0.2m", 1)]
    assert common_steps(others) == [0, 1]
    assert common_steps([]) == []


def test_the_data_is_json_without_nan_and_the_same_every_time(results: Results, data: dict[str, Any]):
    text = json.dumps(data, allow_nan=False)
    assert json.loads(text) == data
    assert dashboard_data(results, synthetic_analysis(seeds=2)) == data


def test_nan_in_the_analysis_becomes_null(results: Results):
    analysis = synthetic_analysis()
    analysis["phases"][0]["change_points"][0]["confidence"] = float("nan")
    found = dashboard_data(results, analysis)["phases"][0]["change_points"][0]
    assert found["confidence"] is None


def test_without_an_analysis_the_data_says_so(results: Results):
    data = dashboard_data(results, None)
    assert (data["analysed"], data["summary"], data["phases"]) == (False, [], [])


def test_a_store_of_holes_alone_still_has_a_page(tmp_path: Path):
    Store(tmp_path).write_hole(unit_of("nano", SMALL[0], 0, 1), "failed", "no weights")
    data = dashboard_data(open_store(tmp_path), None)
    assert data["runs"] == []
    assert data["holes"][0]["reason"] == "no weights"


def test_maps_that_do_not_fit_are_left_out_by_name(
    results: Results, data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    sizes = {
        name: sum(len(run["metrics"][name]) for run in data["maps"]["runs"].values()) for name in MAP_METRICS
    }
    monkeypatch.setattr(head_maps, "BYTE_BUDGET", sum(sizes[name] for name in MAP_METRICS[:3]))
    maps = dashboard_data(results, None)["maps"]
    assert list(maps["scales"]) == list(MAP_METRICS[:3])
    assert maps["left_out"] == list(MAP_METRICS[3:])
    monkeypatch.setattr(head_maps, "BYTE_BUDGET", 0)
    assert list(dashboard_data(results, None)["maps"]["scales"]) == list(MAP_METRICS[:1])


def test_data_of_a_served_page_has_the_shapes_of_the_heads_and_no_map(results: Results):
    maps = dashboard_data(results, None, served=True)["maps"]
    nothing = {"metrics": {}, "spectrum": None, "energy": None, "scales": 0}
    assert maps["runs"]["nano/0.8m/0"] == {"layers": 4, "heads": 8} | nothing
    assert maps["scales"] == {}


def test_transitions_carry_their_dates_what_they_are_and_what_moves(results: Results, runs: list[Run]):
    data = dashboard_data(results, synthetic_analysis(seeds=2), served=True, runs=runs)
    found = next(each for each in data["transitions"] if each["key"] == "nano/0.8m/0")
    out, back = found["moves"]
    assert (out["role"], back["role"]) == ("exploratory", "specialisation")
    assert out["dates"][0]["between"] == [32, 64]
    assert out["levels"][1] == {"title": "Frequency selectivity", "start": 0.7, "finish": 0.1}
    assert found["turns"][0]["recovered"] == 0.4
    assert [row["model"] for row in data["model_rows"]] == ["0.05m", "0.2m", "0.8m"]
    assert data["model_rows"][2]["transition"] == "exploratory, 2/2 seeds"
    assert {each["heading"] for each in data["findings"]} >= {"Phases", "Size"}


def test_an_analysis_of_before_transitions_says_where_its_first_change_lies(
    results: Results, runs: list[Run]
):
    data = dashboard_data(results, synthetic_analysis() | {"transitions": []}, served=True, runs=runs)
    assert data["transitions"] == []
    assert data["model_rows"][2]["onset"] == "(32, 64]"


def strip(analysis: Any, key: str) -> Any:
    """The analysis as if no entry had the key."""
    if isinstance(analysis, dict):
        return {name: strip(each, key) for name, each in analysis.items() if name != key}
    return [strip(each, key) for each in analysis] if isinstance(analysis, list) else analysis


@pytest.mark.parametrize(
    ("absent", "unread"),
    [
        ("confidence", []), ("evidence", []), ("carriers", []), ("interval", []), ("sentence", []),
        ("change_points", []), ("peak_step", []), ("first_step", []), ("verdict", []),
        ("axis", ["thresholds"]), ("model", ["phases", "lead_lag"]),
    ],
)  # fmt: skip
def test_an_analysis_without_some_keys_is_shown_as_far_as_it_goes(
    results: Results, runs: list[Run], absent: str, unread: list[str]
):
    analysis = strip(synthetic_analysis(seeds=2), absent)
    data = dashboard_data(results, analysis, served=True, runs=runs)
    assert data["unread"] == unread
    assert [section for section in ("phases", "lead_lag", "thresholds") if not data[section]] == unread


def test_landmarks_hold_for_pythia_alone_and_for_the_models_that_they_name(runs: list[Run]):
    assert landmarks_of(runs) == []
    pythia = [replace(runs[0], suite="pythia", model=size) for size in ("70m", "6.9b", "pythia-1b-deduped")]
    found: dict[str, set[str]] = {}
    for mark in landmarks_of(pythia):
        found.setdefault(mark["name"], set()).update(key.split("/")[1] for key in mark["runs"])
    assert found["learning-rate warm-up ends"] == {"70m", "6.9b", "pythia-1b-deduped"}
    assert found["scale-sensitivity leap"] == {"6.9b"}
    assert found["seed-divergence phases"] == {"70m"}
    assert found["attention sinks appear"] == {"pythia-1b-deduped"}


def test_numbers_are_rounded_and_never_nan():
    assert rounded(1.23456789) == 1.235
    assert rounded(0.000123456, 2) == 0.00012
    assert rounded_list([None, float("nan"), float("inf"), 0.0]) == [None, None, None, 0.0]


@pytest.mark.parametrize("shape", [(1, 2, 3), (7, 4, 5), (3, 0, 2)])
def test_packing_is_undone_exactly(shape: tuple[int, ...]):
    codes = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_array_equal(unpacked(pack(codes), shape), codes)


def test_codes_keep_missing_values_and_clip_to_the_scale():
    values = np.array([np.nan, -1.0, 0.0, 0.5, 1.0, 9.0])
    codes = quantise(values, 0.0, 1.0)
    assert codes.tolist() == [255, 0, 0, 127, 254, 254]
    np.testing.assert_array_equal(np.isnan(restored(codes, 0.0, 1.0)), np.isnan(values))
    assert quantise(np.array([2.0, np.nan]), 2.0, 2.0).tolist() == [0, 255]


def test_json_in_a_page_cannot_close_its_element():
    nasty = "</script><script>alert(1)</script>&\u2028\u2029<!--"
    text = json_for_html({"name": nasty})
    assert not set(text) & set("<>&\u2028\u2029")
    assert json.loads(text)["name"] == nasty
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        json_for_html({"x": float("nan")})


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("count", [1, 2, 10])
def test_colours_are_ordered_by_lightness_and_stand_out_from_the_paper(count: int):
    light = [luminance(colour) for colour in line_colours(count, "light")]
    dark = [luminance(colour) for colour in line_colours(count, "dark")]
    assert light == sorted(light, reverse=True)
    assert dark == sorted(dark)
    paper, night = luminance("#fcfbf8"), luminance("#10141b")
    assert min((paper + 0.05) / (shade + 0.05) for shade in light) > 2.2
    assert min((shade + 0.05) / (night + 0.05) for shade in dark) > 3.0
