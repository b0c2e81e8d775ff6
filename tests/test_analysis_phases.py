"""Phases: found where they are, at the right place, and nowhere on noise or smooth drift."""

from itertools import pairwise

import numpy as np
import pytest

from tracker.analysis import find_phases
from tracker.analysis.schema import Extent
from tracker.analysis.synthetic import drift, log_steps, noisy_samples, shifting_run, training_curves
from tracker.errors import RequestError
from tracker.facts import table

STEPS = log_steps(19)
PLACES = np.log2(STEPS + 1.0)
RUNS = 100


def brackets(found):
    return tuple((point.step_low, point.step_high) for point in found.change_points)


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
    assert exploratory.evidence["frequency_selectivity"] == Extent(0.369, 0.230, 0.230, 1000)
    assert exploratory.evidence["spectral_entropy"].extremum == 3.522
    assert [point.confidence for point in found.change_points] == [None, None]


def test_table5_does_not_hang_on_the_seed():
    steps, metrics = table5()
    assert all(brackets(find_phases(steps, metrics, seed=seed)) for seed in range(4))


def test_table5_in_random_order_is_not_three_phases():
    steps, metrics = table5()
    rng = np.random.default_rng(0)
    claimed = 0
    for _ in range(30):
        order = rng.permutation(len(steps))
        claimed += bool(find_phases(steps, {k: v[order] for k, v in metrics.items()}).change_points)
    assert claimed <= 6  # groups that land side by side are real levels; a tenth to a fifth of orders


# truth


@pytest.mark.parametrize(("size", "share"), [(3, 0.35), (6, 0.8)])
def test_shifts_are_found_between_the_right_checkpoints(size, share):
    rng = np.random.default_rng(1)
    exact = 0
    for _ in range(30):
        run = shifting_run(STEPS, [int(rng.integers(4, 15))], size, rng)
        exact += brackets(find_phases(run.steps, run.metrics, resamples=2)) == run.brackets
    assert exact / 30 >= share


def test_two_shifts_are_both_found():
    rng = np.random.default_rng(2)
    exact = 0
    for _ in range(15):
        run = shifting_run(STEPS, [5, 12], 5, rng)
        exact += brackets(find_phases(run.steps, run.metrics, resamples=2)) == run.brackets
    assert exact / 15 >= 0.85


def test_training_like_curves_get_the_three_labels():
    rng = np.random.default_rng(3)
    found = find_phases(STEPS, noisy_samples(training_curves(STEPS), 16, rng, error=0.005))
    assert [phase.label for phase in found.phases] == ["initial", "exploratory", "specialisation"]
    assert brackets(found) == ((128, 256), (1000, 2000))
    assert found.phases[1].peak_step == 1000


def test_a_quick_rise_between_two_levels_is_a_change_and_a_slow_one_is_not():
    rng = np.random.default_rng(21)

    def rise(width):
        curve = drift(PLACES, "sigmoid", width=width, centre=0.6)
        curves = {"spectral_entropy": 2 + curve, "frequency_selectivity": 1 - curve}
        return find_phases(STEPS, noisy_samples(curves, 16, rng, error=0.005))

    quick = rise(0.25)
    assert [phase.label for phase in quick.phases][:2] == ["initial", "exploratory"]
    assert 16 <= quick.change_points[0].step_low <= 256
    assert rise(0.6).change_points == ()


def test_averaged_columns_are_labelled_too():
    curves = {f"averaged_{name}": curve for name, curve in training_curves(STEPS).items()}
    found = find_phases(STEPS, noisy_samples(curves, 16, np.random.default_rng(3), error=0.005))
    assert [phase.label for phase in found.phases] == ["initial", "exploratory", "specialisation"]


def test_every_pythia_checkpoint_makes_no_staircase_of_a_slow_recovery():
    steps = np.array([0, *(2**power for power in range(10)), *range(1000, 144000, 1000)])
    rng = np.random.default_rng(4)
    found = find_phases(steps, noisy_samples(training_curves(steps), 16, rng, error=0.02))
    assert len(found.phases) <= 4
    assert brackets(found)[0][0] in (64, 128, 256)
    assert any(phase.peak_step == 1000 for phase in found.phases)


def test_phases_without_entropy_and_selectivity_have_no_label():
    run = shifting_run(STEPS, [8], 8, np.random.default_rng(5))
    found = find_phases(run.steps, run.metrics)
    assert [phase.label for phase in found.phases] == [None, None]
    assert found.phases[0].evidence == {}


def test_phases_cover_the_run_without_gap_and_have_two_checkpoints():
    rng = np.random.default_rng(6)
    for _ in range(6):
        run = shifting_run(STEPS, [3, 6, 11], 8, rng)
        found = find_phases(run.steps, run.metrics, resamples=2)
        index = {step: number for number, step in enumerate(found.steps)}
        assert found.phases[0].first_step == 0
        assert found.phases[-1].last_step == STEPS[-1]
        for left, right in pairwise(found.phases):
            assert index[right.first_step] == index[left.last_step] + 1
        assert all(index[phase.last_step] > index[phase.first_step] for phase in found.phases)


@pytest.mark.slow
def test_confidence_is_high_for_clear_shifts_and_low_for_weak_ones():
    def sure(size):
        rng = np.random.default_rng(7)
        found = []
        for _ in range(15):
            run = shifting_run(STEPS, [9], size, rng, metrics=1)
            found += [point.confidence for point in find_phases(run.steps, run.metrics).change_points]
        return np.mean(found)

    assert sure(12) > 0.95
    assert sure(4) < sure(12)


# nothing there


@pytest.mark.parametrize("sampled", [True, False])
@pytest.mark.parametrize(
    ("kind", "height"), [("flat", 0), ("line", 5), ("line", 50), ("sigmoid", 5), ("sigmoid", 50)]
)
def test_noise_and_smooth_drift_are_no_phases(kind, height, sampled):
    rng = np.random.default_rng(8)
    claimed = 0
    for _ in range(RUNS):
        curve = height * drift(PLACES, kind, width=rng.uniform(0.5, 1), centre=rng.uniform(0.3, 0.7))
        metrics = noisy_samples({"a": curve, "b": -curve, "c": 0.5 * curve}, 16, rng)
        if not sampled:
            metrics = {name: each.mean(axis=1) for name, each in metrics.items()}
        found = find_phases(STEPS, metrics, resamples=2)
        claimed += bool(found.change_points)
        assert len(found.phases) == len(found.change_points) + 1
    assert claimed / RUNS <= 0.05


def test_noise_gives_one_unlabelled_phase_and_says_how_sure():
    metrics = noisy_samples({"spectral_entropy": 0 * PLACES, "frequency_selectivity": 0 * PLACES}, 16,
                            np.random.default_rng(9))  # fmt: skip
    found = find_phases(STEPS, metrics)
    assert found.change_points == ()
    (phase,) = found.phases
    assert (phase.label, phase.first_step, phase.last_step) == (None, 0, STEPS[-1])
    assert found.p_value is not None
    assert found.p_value > 0.03


def test_same_input_same_answer():
    run = shifting_run(STEPS, [6, 12], 4, np.random.default_rng(10))
    assert find_phases(run.steps, run.metrics) == find_phases(run.steps, run.metrics)


# what cannot be said


def test_four_checkpoints_say_what_to_measure():
    found = find_phases([0, 10, 100, 1000], {"loss": [5.0, 5.0, 2.0, 2.0]})
    assert found.change_points == ()
    assert found.p_value is None
    assert found.note == (
        "phases need at least 5 checkpoints, better 10 or more spread evenly over log steps (4 measured)"
    )


def test_metrics_without_values_are_left_out_with_a_note():
    run = shifting_run(STEPS, [8], 8, np.random.default_rng(11))
    extra = {"nothing": np.full(19, np.nan), "same": np.ones(19)}
    found = find_phases(run.steps, run.metrics | extra)
    assert brackets(found) == run.brackets
    assert found.metrics == tuple(run.metrics)
    assert found.note == "left out as undefined at most checkpoints: nothing; left out as constant: same"


def test_only_undefined_metrics_say_so():
    found = find_phases(STEPS, {"nothing": np.full(19, np.nan)})
    assert found.note is not None
    assert found.note.startswith("phases need a metric that is defined and varies; measure")
    assert found.change_points == ()


def test_a_hole_is_left_out_and_named():
    run = shifting_run(STEPS, [8], 10, np.random.default_rng(12))
    holed = {name: each.copy() for name, each in run.metrics.items()}
    holed["metric_1"][12] = np.nan
    found = find_phases(run.steps, holed)
    assert STEPS[12] not in found.steps
    assert brackets(found) == run.brackets
    assert found.change_points[0].confidence is not None
    assert found.note == f"left out as a metric is undefined there: step {STEPS[12]}"


def test_a_sequence_with_a_hole_does_not_cost_the_checkpoint():
    run = shifting_run(STEPS, [8], 10, np.random.default_rng(13))
    run.metrics["metric_0"][5, 3] = np.inf
    found = find_phases(run.steps, run.metrics)
    assert len(found.steps) == 19
    assert brackets(found) == run.brackets


@pytest.mark.parametrize(
    ("steps", "metrics", "message"),
    [
        ([], {"a": []}, r"^steps: shape \(0,\); a list with one step per checkpoint is needed$"),
        ([0, 1, 1], {"a": [1, 2, 3]},
         r"^steps=\[0, 1, 1\]: each step must be larger than the one before it$"),
        ([-1, 1, 2], {"a": [1, 2, 3]}, r"^steps=\[-1, 1, 2\]: steps are whole numbers from 0 on$"),
        ([0, 1.5, 2], {"a": [1, 2, 3]}, r"^steps=\[0.0, 1.5, 2.0\]: steps are whole numbers from 0 on$"),
        (["a", "b"], {"a": [1, 2]}, r"^steps=\['a', 'b'\]: steps are whole numbers from 0 on$"),
        ([0, 1, 2], {}, r"^metrics: none given; at least one curve is needed to look for phases$"),
        ([0, 1, 2], {"loss": [1, 2]},
         r"^metric loss: shape \(2,\); 3 steps need \(3,\) or \(3, sequences\)$"),
        ([0, 1, 2], {"loss": np.ones((3, 0))},
         r"^metric loss: shape \(3, 0\); 3 steps need \(3,\) or \(3, sequences\)$"),
        ([0, 1, 2], {"loss": ["x", "y", "z"]}, r"^metric loss: not an array of numbers: could not convert"),
    ],
)  # fmt: skip
def test_wrong_input_is_named(steps, metrics, message):
    with pytest.raises(RequestError, match=message):
        find_phases(steps, metrics)


def test_an_unknown_drift_is_named():
    with pytest.raises(RequestError, match=r"^kind=spiral: invalid value; expected one of flat, line"):
        drift(PLACES, "spiral")  # type: ignore[arg-type]
