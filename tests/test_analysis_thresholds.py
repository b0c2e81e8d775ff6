"""Thresholds over size: the paper's is found, drift and one odd model are none, few sizes say so."""

import numpy as np
import pytest

from tracker.analysis import find_threshold, judge_threshold
from tracker.analysis.smooth import hinge_residual, sigmoid_residual
from tracker.analysis.synthetic import scale_values
from tracker.analysis.thresholds import FACTOR
from tracker.errors import RequestError
from tracker.facts import table

SIZES = table("paper_table6_scaling").join(
    table("pythia_suite"), left_on="model", right_on="size", maintain_order="left"
)
SCALE = SIZES["params_total"].to_numpy().astype(float)
RUNS = 200


def test_table6_breaks_between_160m_and_410m():
    found = find_threshold(SCALE, SIZES["scale_sensitivity_0.5"].to_numpy())
    assert found is not None
    assert (found.low, found.high) == (162322944, 405334016)
    assert found.effect == pytest.approx(0.0718 - 0.152)
    assert found.p_value == pytest.approx(2 / 56)
    assert found.factor > FACTOR
    assert found.confidence is None


def test_table6_selectivity_is_one_odd_model():
    assert find_threshold(SCALE, SIZES["frequency_selectivity"].to_numpy()) is None
    verdict = judge_threshold(SCALE, SIZES["frequency_selectivity"].to_numpy())
    assert verdict.reason.startswith("no threshold: odds ")
    assert verdict.factor == pytest.approx(0.64, abs=0.01)


def test_order_of_the_models_does_not_matter():
    values = SIZES["scale_sensitivity_0.5"].to_numpy()
    order = np.random.default_rng(0).permutation(8)
    assert find_threshold(SCALE[order], values[order]) == find_threshold(SCALE, values)


def test_steps_are_found_where_they_are():
    rng = np.random.default_rng(1)
    places = []
    for _ in range(RUNS):
        found = find_threshold(SCALE, scale_values(SCALE, "step", 10, rng, below=3))
        if found is not None:
            places.append((found.low, found.high))
    assert len(places) >= 0.8 * RUNS
    assert places.count((SCALE[2], SCALE[3])) >= 0.95 * len(places)


@pytest.mark.parametrize(("kind", "height"), [("noise", 0), ("line", 10), ("sigmoid", 8)])
def test_noise_and_drift_are_no_threshold(kind, height):
    rng = np.random.default_rng(2)
    curves = [scale_values(SCALE, kind, height, rng, width=rng.uniform(0.5, 1)) for _ in range(RUNS)]
    assert sum(find_threshold(SCALE, each) is not None for each in curves) / RUNS <= 0.05


def test_p_value_counts_the_permutations():
    values = np.array([5.0, 4.8, 1.0, 1.2, 0.9, 2.0, 1.1, 1.3])

    def gain(row):
        return max((np.mean(row[:at]) - np.mean(row[at:])) ** 2 * at * (8 - at) / 8 for at in range(2, 7))

    best = gain(values)
    rng = np.random.default_rng(3)
    orders = [rng.permutation(values) for _ in range(2000)]
    share = np.mean([gain(row) >= best - 1e-9 for row in orders])
    p_value = float(judge_threshold(SCALE, values).reason.split("permutation p = ")[1].split()[0])
    assert p_value == pytest.approx(share, abs=0.02)


def test_more_than_eight_sizes_draw_permutations():
    scale = np.geomspace(1e6, 1e10, 10)
    values = np.where(np.arange(10) < 5, 1.0, 0.2) + 0.02 * np.random.default_rng(4).normal(size=10)
    found = find_threshold(scale, values)
    assert found is not None
    assert found.low == scale[4]
    assert found.p_value == pytest.approx(2 / 252, abs=0.003)


def test_confidence_comes_from_the_sequences():
    rng = np.random.default_rng(5)
    values = SIZES["scale_sensitivity_0.5"].to_numpy()
    clear = find_threshold(SCALE, values, values[:, None] + 0.002 * rng.normal(size=(8, 32)))
    vague = find_threshold(SCALE, values, values[:, None] + 0.5 * rng.normal(size=(8, 32)))
    assert clear is not None
    assert vague is not None
    assert clear.confidence == 1.0
    assert vague.confidence is not None
    assert vague.confidence < 0.9


def test_models_of_one_size_are_not_parted():
    scale = np.array([1, 2, 2, 2, 2, 2, 2, 3.0])
    values = np.array([1, 1, 1, 1, 0, 0, 0, 0.0])
    verdict = judge_threshold(scale, values)
    assert verdict.found is None
    assert verdict.reason == "no threshold: the models do not differ in this size on both sides"


@pytest.mark.parametrize(
    ("count", "reason"),
    [
        (1, "(1 measured)"),
        (4, "(4 measured)"),
        (7, "(7 measured)"),
    ],
)
def test_few_sizes_say_what_to_measure(count, reason):
    values = SIZES["scale_sensitivity_0.5"].to_numpy()[:count]
    verdict = judge_threshold(SCALE[:count], values)
    assert (verdict.found, verdict.sizes) == (None, count)
    assert verdict.reason == f"a threshold needs at least 8 sizes {reason}"
    assert find_threshold(SCALE[:count], values) is None


def test_undefined_models_are_left_out():
    values = SIZES["scale_sensitivity_0.5"].to_numpy().copy()
    values[5] = np.nan
    assert judge_threshold(SCALE, values).sizes == 7
    assert judge_threshold(SCALE, np.full(8, np.nan)).sizes == 0


def test_equal_values_are_no_threshold():
    assert judge_threshold(SCALE, np.ones(8)).reason == "no threshold: the values are all the same"


def test_a_step_is_told_as_often_as_the_documentation_says_and_smooth_trends_are_not():
    rng = np.random.default_rng(6)
    stepped, told = [], []
    for _ in range(2 * RUNS):
        verdict = judge_threshold(SCALE, scale_values(SCALE, "step", 6, rng, below=int(rng.integers(2, 7))))
        stepped.append(verdict.found is not None)
        told.append(verdict.shift is not None and verdict.shift.told)
    assert np.mean(told) >= 0.88
    assert np.mean(stepped) >= 0.7
    noise = [judge_threshold(SCALE, rng.normal(size=8)).shift for _ in range(4 * RUNS)]
    assert np.mean([shift is not None and shift.told for shift in noise]) <= 0.035


def test_seeds_enter_as_replicates():
    values = np.where(np.arange(8) < 4, 0.0, 1.0)
    rng = np.random.default_rng(7)
    sure = judge_threshold(SCALE, values[:, None] + 0.05 * rng.normal(size=(8, 3)))
    assert sure.found is not None
    # The means step as clearly, but the seeds of one model differ by far more than the models do.
    loud = values[:, None] + 4 * np.array([-1.0, 0.0, 1.0])
    assert np.ptp(loud.mean(axis=1)) == pytest.approx(1)
    unsure = judge_threshold(SCALE, loud)
    assert unsure.shift is not None
    assert not unsure.shift.told
    holes = values[:, None] + 0.05 * rng.normal(size=(8, 3))
    holes[2, 1:] = np.nan
    found = judge_threshold(SCALE, holes).found
    assert found is not None
    assert found.low == SCALE[3]


@pytest.mark.parametrize(
    ("scale", "values", "samples", "message"),
    [
        ([1, 2], [1, 2, 3], None, r"^scale has shape \(2,\), values \(3,\); they need \(models,\) and "),
        ([0, 1], [1, 2], None, r"^scale=\[0.0, 1.0\]: sizes are numbers above 0$"),
        ([1, float("inf")], [1, 2], None, r"^scale=\[1.0, inf\]: sizes are numbers above 0$"),
        (["small", "big"], [1, 2], None, r"^scale: not an array of numbers: could not convert"),
        ([1, 2], [1, 2], [[1, 2]], r"^samples: shape \(1, 2\); one row per model, \(2, sequences\)$"),
    ],
)
def test_wrong_input_is_named(scale, values, samples, message):
    with pytest.raises(RequestError, match=message):
        find_threshold(scale, values, samples)


def test_an_unknown_kind_is_named():
    with pytest.raises(RequestError, match=r"^kind=cliff: invalid value; expected one of noise, line"):
        scale_values(SCALE, "cliff", 1, np.random.default_rng(0))  # type: ignore[arg-type]


def test_smooth_residuals_vanish_on_their_own_curves():
    places = np.log(SCALE)
    hinge = np.maximum(places - places[3], 0) * 2 + 0.3 * places
    assert hinge_residual(places, hinge) == pytest.approx(0, abs=1e-9)
    jump = np.where(np.arange(8) < 3, 1.0, 0.0)
    assert hinge_residual(places, jump) > 0.2
    unit = (places - places[0]) / (places[-1] - places[0])
    wide = 1 / (1 + np.exp(-(unit - 0.55) * 2 * np.log(9) / 0.5))
    assert sigmoid_residual(places, wide) == pytest.approx(0, abs=1e-9)
    assert sigmoid_residual(places, hinge) > 0.01
