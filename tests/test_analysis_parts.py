"""What transitions are made of, each part against a witness."""

import itertools

import numpy as np
import pytest
from scipy import optimize

from tracker.analysis.transition_types import CurveTransitions, Move, Passing
from tracker.analysis.transitions.axis import axis_of
from tracker.analysis.transitions.isotonic import rising_costs, rising_many, turning_places
from tracker.analysis.transitions.noise import noise_model, trimmed_mean
from tracker.analysis.transitions.windows import windows_of

STEPS = np.array([0, *(2**power for power in range(10)), 1000, 10_000, 50_000, 100_000, 143_000])


def test_many_rising_fits_are_scipys():
    rng = np.random.default_rng(0)
    curves, weights = rng.normal(size=(20, 16)), rng.uniform(0.5, 2, size=16)
    witness = [optimize.isotonic_regression(curve, weights=weights).x for curve in curves]
    assert np.allclose(rising_many(curves, weights), witness)


def test_the_cost_of_every_stretch_is_that_of_scipys_fit():
    rng = np.random.default_rng(1)
    values, weights = rng.normal(size=9), rng.uniform(0.5, 2, size=9)
    costs = rising_costs(values, weights)
    for low, high in itertools.combinations(range(10), 2):
        part = slice(low, high)
        fit = optimize.isotonic_regression(values[part], weights=weights[part]).x
        assert costs[low, high - 1] == pytest.approx((weights[part] * (values[part] - fit) ** 2).sum())


def test_turning_places_are_the_best_of_all():
    rng = np.random.default_rng(2)
    values, weights = rng.normal(size=10), np.ones(10)
    places, profiles = turning_places(values, weights, [1, -1, 1])
    up, down = rising_costs(values, weights), rising_costs(-values, weights)
    each = {
        (i, j): up[0, i] + down[i + 1, j] + up[j + 1, 9]
        for i, j in itertools.combinations(range(9), 2)
    }  # fmt: skip
    best = min(each.values())
    assert each[places[0], places[1]] == pytest.approx(best)
    assert [float(profile.min()) for profile in profiles] == pytest.approx([best, best])


def test_the_trimmed_variance_is_that_of_noise_in_spite_of_a_jump():
    rng = np.random.default_rng(3)
    squares = rng.normal(size=(4000, 14)) ** 2
    assert trimmed_mean(squares).mean() == pytest.approx(1, abs=0.2)
    squares[:, 5:8] = 1000
    assert trimmed_mean(squares).mean() < 3


@pytest.mark.parametrize("size", [0.0, 40.0])
def test_noise_is_told_from_neighbours_whether_or_not_the_curve_jumps(size):
    axis = axis_of(STEPS)
    curves = np.random.default_rng(4).normal(size=(2000, 16)) + size * (np.arange(16) > 8)
    variance = noise_model(axis).variance(curves, np.zeros(2000, dtype=int))
    assert np.median(variance.mean(axis=1)) == pytest.approx(1.2, abs=1)


def test_checkpoints_close_together_are_averaged():
    steps = np.array([0, 1, *range(1000, 1060), 4000])
    axis = axis_of(steps)
    assert axis.bins == 4
    assert np.allclose(axis.pool[2], [0, 0, *[1 / 60] * 60, 0])
    assert axis.bracket(2, 3) == (1000, 4000)
    assert axis_of(steps[:20]).bins == 20


def test_scores_of_known_noise_have_unit_spread():
    model = noise_model(axis_of(STEPS))
    windows = windows_of(model)
    curves = np.random.default_rng(5).normal(size=(4000, 16))
    scores = windows.scores(curves, np.ones_like(curves), np.zeros(4000, dtype=int))
    assert np.allclose(scores.std(axis=0), 1, atol=0.06)


def test_the_move_shown_beside_another_curves_is_the_one_that_happens_during_it():
    def passing(low: int, high: int) -> Passing:
        return Passing(low, high, (low, high))

    def move(start: float, finish: float, low: int, high: int) -> Move:
        at = passing(low, high)
        direction = "up" if finish > start else "down"
        return Move(direction, start, finish, (0.0, 0.0), at, at, at, 0.0, (0.0, 0.0), "unclear")

    there, back = move(0.86, 0.53, 100, 200), move(0.53, 0.87, 200, 500)
    curve = CurveTransitions((there, back))
    assert curve.during(move(1.8, 2.6, 100, 200)) is there
    assert curve.during(move(2.6, 1.8, 200, 500)) is back
    assert curve.main is there, "a way back that is as long does not stand for the way there"
    assert CurveTransitions((there, move(0.53, 1.2, 200, 500))).main is not there
    assert curve.during(move(0, 1, 1000, 2000)) is there
    assert CurveTransitions().during(there) is None
