"""Transitions and phases: found where they are, dated within their intervals, and nowhere on noise."""

import itertools

import numpy as np
import pytest

from tracker.analysis import find_phases, find_transitions
from tracker.analysis.shift import find_shift
from tracker.analysis.synthetic import drift, log_steps, noisy_samples, training_curves
from tracker.analysis.synthetic_moves import CurveNoise, moving_curve
from tracker.errors import RequestError
from tracker.facts import table

STEPS = log_steps(19)


def brackets(found):
    return tuple((point.step_low, point.step_high) for point in found.change_points)


def signs(curve):
    return tuple(1 if move.direction == "up" else -1 for move in curve.moves)


# the paper


def table5():
    facts = table("paper_table5_training")
    return facts["step"].to_list(), {name: facts[name].to_numpy() for name in facts.columns[1:]}


def test_table5_has_the_papers_phases():
    steps, metrics = table5()
    found = find_phases(steps, metrics)
    assert brackets(found) == ((128, 512), (1000, 5000))
    assert [phase.label for phase in found.phases] == ["initial", "exploratory", "specialisation"]
    exploratory = found.phases[1]
    assert (exploratory.first_step, exploratory.last_step, exploratory.peak_step) == (512, 1000, 1000)


@pytest.mark.parametrize("column", ["spectral_entropy", "frequency_selectivity", "low_band_power_pct"])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_column_of_table5_reads_the_same_alone(column, seed):
    steps, metrics = table5()
    curve = find_transitions(steps, {column: metrics[column]}, seed=seed).curves[column]
    (fall, back), (turn,) = curve.moves, curve.turns
    assert (fall.half.step_low, fall.half.step_high) == (128, 512)
    assert (turn.step, turn.interval[0]) == (1000, 512)
    assert 0.41 <= turn.recovered <= 0.50
    assert turn.recovered_interval[0] <= turn.recovered <= turn.recovered_interval[1]
    assert fall.direction != back.direction


def test_table6_shifts_in_scale_sensitivity_and_not_in_selectivity():
    facts = table("paper_table6_scaling")
    sizes = [14e6, 70e6, 160e6, 410e6, 1.4e9, 2.8e9, 6.9e9, 12e9]
    found = find_shift(sizes, facts["scale_sensitivity_0.5"].to_list())
    assert found is not None
    assert found.told
    assert (found.gap, found.gap_interval) == ((160e6, 410e6), (160e6, 1.4e9))
    assert found.effect == pytest.approx(-0.080, abs=0.001)
    assert found.effect_interval[0] < -0.08 < found.effect_interval[1] < -0.04
    assert found.step_odds == pytest.approx(1.6, abs=0.1)
    assert found.odds == pytest.approx(21, abs=1)
    quiet = find_shift(sizes, facts["frequency_selectivity"].to_list())
    assert quiet is not None
    assert not quiet.told


# truth


@pytest.mark.parametrize("points", [16, 154])
@pytest.mark.parametrize(("kind", "width"), [("step", 0), ("sigmoid", 1), ("sigmoid", 8), ("drift", 0)])
def test_moves_of_any_width_are_claimed_and_held_by_their_intervals(kind, width, points):
    noise, claimed, held, gaps = CurveNoise(), 0, 0, []
    for number in range(20):
        rng = np.random.default_rng([number, points])
        truth = moving_curve(kind, points, rng, width)
        values = noise.around(10 * noise.total * truth.curve, rng)
        curve = find_transitions(truth.steps, {"m": values}).curves["m"]
        claimed += bool(curve.moves)
        if curve.main:
            low, high = np.log2(np.array(curve.main.half.interval) + 1)
            held += low - 1e-9 <= truth.moves[0].half <= high + 1e-9
            gaps.append(np.diff(np.searchsorted(truth.steps, curve.main.half.interval))[0])
    assert claimed >= 19
    assert held >= 16
    # A posterior that is told of a sigmoid, but not how wide it is, needs three gaps for one of 8 octaves.
    assert np.median(gaps) <= {("sigmoid", 8): 3, ("drift", 0): 6}.get((kind, width), 2)


@pytest.mark.parametrize(
    ("kind", "points", "least"),
    [("recovery", 16, 14), ("stages", 16, 12), ("recovery", 154, 19), ("stages", 154, 19)],
)
def test_all_moves_are_found_and_no_others(kind, points, least):
    noise, right = CurveNoise(), 0
    for number in range(20):
        rng = np.random.default_rng([number, points])
        truth = moving_curve(kind, points, rng)
        values = noise.around(40 * noise.total * truth.curve, rng)
        found = find_transitions(truth.steps, {"m": values}).curves["m"]
        right += signs(found) == tuple(move.sign for move in truth.moves)
    assert right >= least


@pytest.mark.parametrize("points", [7, 16, pytest.param(154, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("noise", "most"),
    [
        (CurveNoise(), 4),
        (CurveNoise(sequences=0), 5),
        (CurveNoise(sequences=0, growth=4), 5),
        (CurveNoise(jitter=3), 5),
        (CurveNoise(kept=0.5), 6),
        (CurveNoise(kept=0.8, seeds=3), 5),
    ],
    ids=["white", "means alone", "growing", "jitter", "persistent", "persistent, seeds"],
)
def test_noise_alone_is_hardly_ever_a_move(noise, most, points):
    claimed = 0
    for number in range(60):
        rng = np.random.default_rng([number, points])
        truth = moving_curve("flat", points, rng)
        claimed += bool(
            find_transitions(truth.steps, {"m": noise.around(truth.curve, rng)}).curves["m"].moves
        )
    assert claimed <= most


def test_a_small_dip_before_a_large_rise_is_a_move_of_its_own():
    curve = np.array([2.19, 2.19, 2.19, 2.14, 2.09, 2.28, 2.86, 3.27, 3.45, 3.57, 3.61] + [3.62] * 5)
    steps = [0, *(2**power for power in range(10)), 600, 700, 800, 900, 1000]
    values = noisy_samples({"m": curve}, 16, np.random.default_rng(0), error=0.002)["m"]
    found = find_transitions(steps, {"m": values}).curves["m"]
    assert signs(found) == (-1, 1)
    assert found.turns[0].step == 8


def test_two_densities_of_one_run_tell_one_story():
    rng = np.random.default_rng(7)
    steps = np.unique(np.concatenate([np.arange(0, 65), np.arange(64, 1001, 8)]))
    place = np.log2(steps + 1.0)
    curve = 2.2 + 1.4 / (1 + np.exp(-(place - 6) * 1.5))
    values = noisy_samples({"m": curve}, 16, rng, error=0.01, wobble=2.0)["m"]
    sparse = np.isin(steps, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 696, 800, 904, 1000])
    dense = find_transitions(steps, {"m": values}).curves["m"]
    few = find_transitions(steps[sparse], {"m": values[sparse]}).curves["m"]
    assert signs(dense) == signs(few) == (1,)
    low, high = few.moves[0].half.interval
    assert low < dense.moves[0].half.step_high
    assert dense.moves[0].half.step_low < high


def test_training_like_curves_get_the_three_labels():
    samples = noisy_samples(training_curves(STEPS), 16, np.random.default_rng(1), error=0.01)
    found = find_phases(STEPS, samples)
    assert [phase.label for phase in found.phases] == ["initial", "exploratory", "specialisation"]
    assert found.phases[1].peak_step == 1000
    averaged = find_phases(STEPS, {f"averaged_{name}": each for name, each in samples.items()})
    assert [phase.label for phase in averaged.phases] == ["initial", "exploratory", "specialisation"]


def test_phases_without_entropy_and_selectivity_have_no_label():
    samples = noisy_samples(
        {"loss": np.where(STEPS < 64, 7.0, 3.0)}, 16, np.random.default_rng(1), error=0.01
    )
    found = find_phases(STEPS, samples)
    assert brackets(found) == ((32, 64),)
    assert [phase.label for phase in found.phases] == [None, None]


def test_phases_cover_the_run_without_gap():
    samples = noisy_samples(training_curves(STEPS), 16, np.random.default_rng(2), error=0.02)
    phases = find_phases(STEPS, samples).phases
    assert (phases[0].first_step, phases[-1].last_step) == (STEPS[0], STEPS[-1])
    for one, other in itertools.pairwise(phases):
        assert np.searchsorted(STEPS, other.first_step) == np.searchsorted(STEPS, one.last_step) + 1


def test_same_input_same_answer():
    samples = noisy_samples(training_curves(STEPS), 16, np.random.default_rng(3), error=0.02)
    assert find_phases(STEPS, samples) == find_phases(STEPS, samples)


# input


def test_two_checkpoints_say_what_to_measure():
    found = find_phases([0, 512], {"a": [1.0, 2.0]})
    assert found.change_points == ()
    assert "needs at least 3 checkpoints" in str(found.note)


def test_a_constant_metric_and_an_undefined_one_say_so():
    found = find_transitions(STEPS, {"a": np.ones(19), "b": np.full(19, np.nan)})
    assert found.curves["a"].note == "constant"
    assert "0 measured" in str(found.curves["b"].note)
    assert found.structure.moves == ()


def test_a_hole_is_left_out_and_named():
    curve = np.where(np.arange(19) < 9, 0.0, 9.0)
    samples = noisy_samples({"a": curve}, 16, np.random.default_rng(4))["a"]
    samples[3] = np.nan
    found = find_transitions(STEPS, {"a": samples}).curves["a"]
    assert found.note == f"undefined at step {STEPS[3]}: left out"
    assert (found.moves[0].half.step_low, found.moves[0].half.step_high) == (STEPS[8], STEPS[9])


def test_seeds_and_single_sequences_are_taken():
    curve = np.where(np.arange(19) < 9, 0.0, 9.0)
    seeds = noisy_samples({"a": curve}, 3, np.random.default_rng(5))["a"][:, None]
    found = find_transitions(STEPS, {"a": seeds, "b": seeds[:, :, 0]}).curves
    assert found["a"].seed_spread is not None
    assert signs(found["a"]) == signs(found["b"]) == (1,)


@pytest.mark.parametrize(
    ("steps", "metrics", "message"),
    [
        ([0, 2, 1], {"a": [1, 2, 3]}, "each step must be larger"),
        ([0, 1, 1], {"a": [1, 2, 3]}, "each step must be larger"),
        ([0, 1.5, 2], {"a": [1, 2, 3]}, "whole numbers"),
        ([0, 1, 2], {}, "none given"),
        ([0, 1, 2], {"a": [1, 2]}, "metric a: shape"),
        ([0, 1, 2], {"a": ["x", "y", "z"]}, "metric a: not an array of numbers"),
    ],
)
def test_wrong_input_is_named(steps, metrics, message):
    with pytest.raises(RequestError, match=message):
        find_phases(steps, metrics)


def test_an_unknown_kind_is_named():
    with pytest.raises(RequestError, match="kind=curve"):
        drift(np.arange(4.0), "curve")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="kind=curve"):
        moving_curve("curve", 16, np.random.default_rng(0))


def test_a_direction_that_the_best_fit_gives_no_room_is_no_move():
    rng, noise = np.random.default_rng([3, 7, 0]), CurveNoise(jitter=3)
    flat = [(truth, noise.around(0 * truth.curve, rng)) for truth in
            (moving_curve("flat", 7, rng, 0.0) for _ in range(29))]  # fmt: skip
    truth, values = flat[-1]  # claims a rise and a fall, and fits best as a fall alone
    curve = find_transitions(truth.steps, {"m": values}).curves["m"]
    assert signs(curve) == (-1,)


def test_the_exploratory_phase_begins_at_the_onset_of_the_rise_not_where_a_dip_before_it_turns():
    steps = [0, *(2**power for power in range(12))]
    entropy = np.array([2.4, 2.4, 2.3, 2.1, 2.0, 2.0, 2.0, 2.01, 2.6, 3.3, 3.6, 3.6, 3.6])
    rng = np.random.default_rng(0)
    found = find_phases(
        steps,
        {
            "spectral_entropy": entropy + rng.normal(0, 0.004, entropy.size),
            "frequency_selectivity": 1 - 0.2 * entropy + rng.normal(0, 0.001, entropy.size),
        },
    )
    dip, rise = found.transitions.structure.moves
    assert (dip.direction, rise.direction) == ("down", "up")
    explored = next(phase for phase in found.phases if phase.label == "exploratory")
    assert explored.first_step == rise.onset.step_high == 128


def test_a_seed_that_lacks_most_checkpoints_does_not_cost_those_of_the_others():
    steps = [0, *(2**power for power in range(11))]
    rng = np.random.default_rng(0)
    curve = np.where(np.array(steps) >= 64, 1.0, 0.0)
    seeds = curve[:, None, None] + rng.normal(0, 0.02, (len(steps), 4, 3))
    seeds[4:, :, 2] = np.nan  # one seed was stopped early
    seeds[3, :, 0] = np.nan  # another lacks one checkpoint
    found = find_transitions(steps, {"m": seeds}).curves["m"]
    (move,) = found.moves
    assert (move.half.step_low, move.half.step_high) == (32, 64)
    assert found.note == (
        "seed 3 of 3: left out, since it lacks checkpoints of the others; undefined at step 4: left out"
    )
    seeds[:, :, 1] = np.nan
    (move,) = find_transitions(steps, {"m": seeds}).curves["m"].moves
    assert (move.half.step_low, move.half.step_high) == (32, 64)
