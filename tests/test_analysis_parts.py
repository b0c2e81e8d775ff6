"""What finding phases is made of: noise, penalties, segments, drifts, labels, each against a witness."""

import numpy as np
import pytest
from scipy import stats

from tracker.analysis.changes import judge_changes, noise_penalty, segment
from tracker.analysis.labels import joint_score, label_spans, with_peak
from tracker.analysis.noise import bend_variance, difference_variance, noise_covariance, sample_variance
from tracker.analysis.segments import Segments
from tracker.analysis.smooth import best_drift, drift_residual, drift_shapes
from tracker.analysis.synthetic import drift, log_steps, noisy_samples

PLACES = np.log2(log_steps(19) + 1.0)


def test_differences_tell_the_noise_in_spite_of_shifts():
    rng = np.random.default_rng(14)
    noise = rng.normal(scale=2.0, size=(19, 4000))
    assert np.mean(difference_variance(noise)) == pytest.approx(4.0, rel=0.2)  # slightly large
    shifted = noise + 30 * (np.arange(19) >= 7)[:, None]
    assert np.mean(difference_variance(shifted)) == pytest.approx(4.0, rel=0.5)


def test_a_straight_drift_is_movement_but_no_bend():
    line = 3.0 * np.arange(19)[:, None] + 0.1 * np.random.default_rng(20).normal(size=(19, 50))
    assert np.mean(difference_variance(line)) > 1.0
    assert np.mean(bend_variance(line)) == pytest.approx(0.01, rel=0.2)
    assert noise_covariance(line, straight=True)[0, 0] < noise_covariance(line)[0, 0]


def test_sample_variance_is_that_of_the_mean_and_ignores_hard_sequences():
    rng = np.random.default_rng(15)
    curves = {"a": np.zeros(400)}
    assert sample_variance(noisy_samples(curves, 16, rng, error=0.5)["a"]) == pytest.approx(0.25, rel=0.05)


def test_noise_covariance_knows_metrics_that_move_together():
    rng = np.random.default_rng(16)
    alike = rng.normal(size=(400, 1))
    values = np.hstack([alike, -alike, rng.normal(size=(400, 1))])
    covariance = noise_covariance(values)
    assert covariance[0, 1] == pytest.approx(-covariance[0, 0], rel=0.01)
    assert abs(covariance[0, 2]) < 0.2 * covariance[0, 0]
    assert np.diag(noise_covariance(values, np.full(3, 9.0))) == pytest.approx(9.0)


def test_penalty_is_the_chi_square_tail_for_metrics_of_equal_noise():
    expected = stats.chi2.isf(0.05 / 19, 3)
    assert noise_penalty(np.eye(3), 19) == pytest.approx(expected)
    assert noise_penalty(4 * np.eye(3), 19) == pytest.approx(4 * expected)
    assert noise_penalty(np.ones((3, 3)), 19) == pytest.approx(3 * stats.chi2.isf(0.05 / 19, 1))


def test_segments_are_the_cheapest_of_all():
    rng = np.random.default_rng(17)
    for penalty in (0.5, 2.0, 8.0):
        values = rng.normal(size=(9, 2)) + (np.arange(9) >= 4)[:, None]

        def cost(breaks, values=values, penalty=penalty):
            parts = np.split(values, breaks)
            return sum(((part - part.mean(axis=0)) ** 2).sum() for part in parts) + penalty * len(breaks)

        options = [()]
        for _ in range(3):
            options += [(*old, new) for old in options for new in range((old[-1] if old else 0) + 2, 8)]
        breaks, left = segment(values, penalty)
        assert cost(breaks) == pytest.approx(min(map(cost, options)))
        assert left + penalty * len(breaks) == pytest.approx(cost(breaks))


def test_stretch_costs_equal_least_squares():
    rng = np.random.default_rng(18)
    places, values = np.sort(rng.uniform(0, 17, 12)), rng.normal(size=(12, 3))
    segments = Segments(places, values, 0.7, 2)
    for low, high in [(0, 12), (3, 8), (4, 6)]:
        part = values[low:high]
        level = ((part - part.mean(axis=0)) ** 2).sum()
        lines = [np.polyfit(places[low:high], column, 1, full=True)[1].sum() for column in part.T]
        expected = min(level, sum(lines) + 0.7) if high - low > 2 else level
        assert segments.cost(low, high) == pytest.approx(expected)
    level = values[4:6] - values[4:6].mean(axis=0)
    whole = Segments(places, values, 0.0, 2)
    assert whole.residual((4, 6)) == pytest.approx(whole.cost(0, 4) + (level**2).sum() + whole.cost(6, 12))


def test_a_staircase_on_a_line_is_merged_and_a_shift_is_not():
    line = np.linspace(-1.7, 1.7, 18)[:, None]
    step = np.where(np.arange(18) < 9, -1.0, 1.0)[:, None]
    places = np.arange(18.0)
    assert Segments(places, line, 0.1, 2).merged((3, 6, 9, 12, 15)) == ()
    assert Segments(places, step, 0.1, 2).merged((3, 9, 12)) == (9,)
    assert Segments(places, step, 0.1, 2).moved((7,)) == (9,)


def test_drift_shapes_fit_what_they_are():
    shapes = drift_shapes(PLACES)
    for curve in (3 * PLACES, -2 / (1 + np.exp(-(PLACES / PLACES[-1] - 0.45) * 2 * np.log(9) / 0.7))):
        centred = (curve - curve.mean())[:, None]
        assert drift_residual(centred, shapes) == pytest.approx(0, abs=1e-9 * (centred**2).sum())
    between = drift(PLACES, "sigmoid", width=0.577, centre=0.433)
    centred = 1e4 * (between - between.mean())[:, None]
    assert np.abs(best_drift(centred, PLACES) - centred).max() < 1  # a ten-thousandth of the height
    line = 1e4 * (PLACES - PLACES.mean())[:, None]
    assert best_drift(line, PLACES) == pytest.approx(line)
    jump = np.where(np.arange(19) < 9, 0.0, 1.0)
    assert drift_residual((jump - jump.mean())[:, None], shapes) > 0.3


def test_judgement_of_a_clean_jump_and_of_noise():
    rng = np.random.default_rng(19)
    jump = np.where(np.arange(19) < 9, -1.0, 1.0)[:, None] + 0.05 * rng.normal(size=(19, 2))
    assert judge_changes(PLACES, jump).shown
    assert not judge_changes(PLACES, rng.normal(size=(19, 2))).shown


def test_a_turning_point_ends_the_rise():
    rise_and_fall = np.array([0, 0, 0, 1, 2, 3, 2.5, 2, 1.5])
    assert with_peak((3, 5), rise_and_fall) == (3, 6)
    assert with_peak((3, 7), rise_and_fall) == (3, 7)
    jump_and_fall = np.array([0, 0.1, 0, 0.2, 3, 2.5, 2, 1.5])
    assert with_peak((4,), jump_and_fall) == (4,)


def test_labels_need_both_to_move_and_to_recover():
    flat, high, back = np.full(4, 2.0), np.full(4, 4.0), np.full(4, 3.0)
    spans = [(0, 3), (4, 7), (8, 11)]
    entropy = np.concatenate([flat, high, back])
    entropy[5] += 0.1
    assert label_spans(entropy, -entropy, spans) == (["initial", "exploratory", "specialisation"], 5)
    assert label_spans(entropy, entropy[::-1], spans)[0] != ["initial", "exploratory", "specialisation"]
    falling = -np.concatenate([flat, high, back])
    assert label_spans(falling, -falling, spans) == (["initial", None, None], None)
    staying = np.concatenate([flat, high, high])
    staying[5] += 0.1
    assert label_spans(staying, -staying, spans) == (["initial", "exploratory", None], 5)
    rising = np.concatenate([flat, back, high])
    rising[11] += 0.1
    assert label_spans(rising, -rising, spans) == (["initial", "exploratory", "exploratory"], None)
    assert label_spans(flat, -flat, [(0, 3)]) == ([None], None)


def test_joint_score_is_high_where_entropy_is_and_selectivity_is_not():
    assert joint_score(np.array([1.0, 2, 3]), np.array([3.0, 2, 1])).argmax() == 2
    assert np.all(joint_score(np.ones(3), np.ones(3)) == 0)
