"""Thresholds on every axis, corrected, without each model, and which axis explains a metric best."""

import numpy as np
import polars as pl
import pytest

from tracker.analysis import analyse, judge_threshold
from tracker.analysis.axes import indistinct, size_on, support
from tracker.analysis.json_types import to_dict
from tracker.analysis.schema import LeaveOneOut
from tracker.analysis.shift import find_shift, leave_one_out, without_each
from tracker.analysis.splits import Trial, corrected_p_values, places_of
from tracker.analysis.synthetic import scale_values
from tracker.facts import table

PAPER = table("paper_table6_scaling").join(
    table("pythia_suite"), left_on="model", right_on="size", maintain_order="left"
)
SCALE = PAPER["params_total"].to_numpy().astype(float)
SENSITIVITY = PAPER["scale_sensitivity_0.5"].to_numpy()


def paper_store() -> pl.DataFrame:
    """Table 6 as bare means of a store: no sequences, no seeds."""
    rows = PAPER.select(
        "params_total", "params_non_embedding", "d_model", "d_head", "rotary_dims", n_layers="layers",
        n_heads="heads", model="model", averaged_spectral_entropy="spectral_entropy",
        averaged_frequency_selectivity="frequency_selectivity",
    ).with_columns(
        pl.Series("averaged_scale_sensitivity_0.5", SENSITIVITY),
        pl.Series("averaged_scale_sensitivity_0.25", PAPER["scale_sensitivity_0.25"]),
        suite=pl.lit("pythia"), seed=pl.lit(0), step=pl.lit(143000), status=pl.lit("ok"),
        probe=pl.lit("paper"), conventions=pl.lit("paper"), reason=pl.lit(None, pl.String),
    )  # fmt: skip
    return rows


def test_table6_breaks_on_sizes_and_the_report_says_that_it_cannot_pass_the_correction():
    entries = to_dict(analyse(paper_store()).thresholds)
    by_axis = {e["axis"]: e for e in entries if e["metric"] == "averaged_scale_sensitivity_0.5"}
    assert len(by_axis) == 8
    entry = by_axis["params_total"]
    assert (entry["low"], entry["high"]) == (162322944, 405334016)
    assert entry["interval"] == [162322944, 1414647808]
    assert entry["p_value"] == pytest.approx(2 / 56)
    assert entry["p_corrected"] > 0.05
    assert entry["shift"]["step_odds"] == pytest.approx(1.6, abs=0.1)
    assert "8 models have too few orders for less: measure more sizes" in entry["sentence"]
    assert "the data cannot separate this axis from" in entry["sentence"]
    assert entry["leave_one_out"]["of"] == 8
    selectivity = [e for e in entries if e["metric"] == "averaged_frequency_selectivity"]
    assert all(e["low"] is None for e in selectivity if e["axis"].startswith("params"))
    assert all(e["best_axes"] == [] for e in selectivity)


def test_the_other_initialisation_is_told_where_it_is_confounded():
    late = paper_store().with_columns(
        pl.Series("averaged_scale_sensitivity_0.5", [0.1, 0.101, 0.102, 0.1, 0.1, 0.101, 0.3, 0.301])
    )
    ten = pl.concat([late, late.head(2).with_columns(
        model=pl.Series(["31m", "1b"]), params_non_embedding=pl.Series([4739072, 805736448]))])  # fmt: skip
    entries = to_dict(analyse(ten).thresholds)
    entry = next(e for e in entries if e["main"] and e["low"] is not None)
    assert entry["confounded"] == (
        "the models above it were also initialised differently (0.02 against small_init)"
    )


def test_one_odd_model_moves_the_step_when_it_is_left_out():
    values = SENSITIVITY.copy()
    found = judge_threshold(SCALE, values).found
    assert found is not None
    names = PAPER["model"].to_list()
    rest = without_each(SCALE, values, names)
    assert leave_one_out(rest, (found.low, found.high)) == LeaveOneOut(6, 8, ("14m", "160m"))
    clean = np.where(np.arange(8) < 4, 1.0, 0.0) + 0.01 * np.random.default_rng(0).normal(size=8)
    kept = judge_threshold(SCALE, clean).found
    assert kept is not None
    rest = without_each(SCALE, clean, names)
    assert leave_one_out(rest, (kept.low, kept.high)) == LeaveOneOut(8, 8, ())


def test_corrected_p_values_are_those_of_the_smallest_under_permutation():
    rng = np.random.default_rng(1)
    order = np.arange(8)
    tests = [Trial(rng.normal(size=8), order, places_of(SCALE)) for _ in range(6)]
    single = corrected_p_values(tests[:1])[0]
    own = judge_threshold(SCALE, tests[0].values).p_value
    assert single == pytest.approx(own, abs=1e-6)
    assert corrected_p_values(tests[:1] * 5)[0] == pytest.approx(single)  # the same test five times is one
    many = corrected_p_values(tests)
    assert many[0] >= single
    assert corrected_p_values([]) == []


def test_family_wise_error_is_kept():
    rng = np.random.default_rng(2)
    order = np.arange(8)
    wrong = 0
    for _ in range(60):
        tests = [Trial(rng.normal(size=8), order, places_of(SCALE)) for _ in range(4)]
        wrong += min(corrected_p_values(tests)) <= 0.05
    assert wrong <= 8  # 5 % of 60 is 3


def test_the_axis_that_made_a_metric_explains_it_best():
    facts = PAPER.to_dicts()
    heads = np.array([float(row["heads"]) for row in facts])
    width = np.array([float(row["d_head"]) for row in facts])
    values = np.log(width) + 0.01 * np.random.default_rng(0).normal(size=8)
    supports = {}
    for name, scale in (("n_heads", heads), ("d_head", width)):
        order = np.argsort(scale, kind="stable")
        supports[name] = support(scale[order], values[order])
    assert supports["d_head"].shape == "line"
    assert indistinct(supports) == ["d_head"]
    flat = {axis: support(SCALE, np.random.default_rng(3).normal(size=8)) for axis in ("a", "b")}
    assert flat["a"].shape == "level"
    assert indistinct(flat) == []


def test_sizes_that_a_model_does_not_have_are_none():
    facts = {"n_layers": 6, "n_heads": 8, "rotary_dims": None, "d_model": 512}
    assert (size_on(facts, "all_heads"), size_on(facts, "d_model")) == (48, 512)
    assert size_on(facts, "rotary_dims") is None


def test_intervals_hold_the_step():
    rng = np.random.default_rng(4)
    held = []
    for _ in range(200):
        below = int(rng.integers(2, 7))
        found = find_shift(SCALE, scale_values(SCALE, "step", 4, rng, below=below))
        assert found is not None
        low, high = found.gap_interval
        held.append(low <= SCALE[below - 1] and SCALE[below] <= high)
    assert np.mean(held) >= 0.87
