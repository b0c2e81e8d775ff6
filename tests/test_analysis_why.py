"""What moves before, with or after a change; which heads carry it; what the controls say."""

import numpy as np
import polars as pl
import pytest

from tests.synthetic_suite import pythia_like
from tracker.analysis import analyse, find_phases, trajectories
from tracker.analysis.controls import alarm_rates, find_twins
from tracker.analysis.lead_lag import covariate_lags, windows
from tracker.analysis.lead_lag_report import head_contributions, landmarks_at
from tracker.analysis.phase_report import run_phases
from tracker.analysis.refine import propose
from tracker.analysis.schema import LeftOut
from tracker.analysis.synthetic import SyntheticRun, log_steps, noisy_samples, stored_tables, training_curves

STEPS = log_steps(19)


def shift(at: int, size: float = 8.0) -> np.ndarray:
    return np.where(np.arange(19) < at, 0.0, size)


def samples(**curves: np.ndarray) -> dict[str, np.ndarray]:
    return noisy_samples(curves, 16, np.random.default_rng(3))


# lead and lag


@pytest.mark.parametrize(("at", "verdict", "lag"), [(7, "before", -3), (10, "with", 0), (14, "after", 4)])
def test_covariates_are_placed_before_with_or_after(at, verdict, lag):
    drawn = samples(metric=shift(10), covariate=shift(at))
    high = int(STEPS[10])
    (entry,) = covariate_lags(STEPS, [high], {"metric": drawn["metric"]}, {"covariate": drawn["covariate"]})
    found = entry["covariate"]
    assert (found.verdict, found.lag) == (verdict, lag)
    assert found.interval is not None
    assert found.interval[0] <= lag <= found.interval[1]
    assert found.bracket == (STEPS[at - 1], STEPS[at])


@pytest.mark.parametrize("curve", [np.zeros(19), np.linspace(0, 40, 19)], ids=["noise", "a straight drift"])
def test_what_has_no_change_of_its_own_is_still(curve):
    places = np.log2(STEPS + 1.0)
    drawn = samples(metric=shift(10), covariate=curve if not curve.any() else 3 * places)
    (entry,) = covariate_lags(STEPS, [int(STEPS[10])], {"m": drawn["metric"]}, {"c": drawn["covariate"]})
    assert entry["c"].verdict == "still"


def test_a_covariate_with_a_hole_is_undefined():
    drawn = samples(metric=shift(10))
    holed = np.where(np.arange(19) == 9, np.nan, 1.0)
    (entry,) = covariate_lags(STEPS, [int(STEPS[10])], drawn, {"c": holed})
    assert entry["c"].verdict == "undefined"


def test_the_heads_that_carry_a_change_are_named():
    rng = np.random.default_rng(0)
    values = 0.01 * rng.normal(size=(19, 12))
    values[:, 5] += shift(10, 3.0)
    values[:, 6] += shift(12, 1.0)
    layers, heads = np.repeat([0, 1, 2], 4), np.tile(np.arange(4), 3)
    (window,) = windows(STEPS, [int(STEPS[10])])
    found = head_contributions(window, values, layers, heads)
    assert found is not None
    assert (found.heads[0].layer, found.heads[0].head) == (1, 1)
    assert found.heads[0].share == pytest.approx(0.8, abs=0.05)
    assert (found.half_by, found.of) == (1, 12)
    assert sum(layer.share for layer in found.layers) == pytest.approx(1)
    assert found.layers[1].lag == 0


def test_landmarks_are_those_of_the_model_within_the_interval():
    def named(model, suite, interval):
        tables = stored_tables(
            {(model, 0): SyntheticRun(STEPS, samples(a=shift(9)), ())}, {model: 5}, suite=suite
        )
        return [each.name for each in landmarks_at(trajectories(tables[0])[0], interval)]

    assert named("70m", "pythia", (512, 2000)) == [
        "learning-rate warm-up ends", "steepest LAMBADA log-perplexity drop", "induction bump 2.5-5e9 tokens",
        "seed-divergence phases",
    ]  # fmt: skip
    assert "exploratory phase begins / peaks" in named("6.9b", "pythia", (512, 2000))
    assert named("70m", "nano", (512, 2000)) == []


# controls


def pythia(suite: str = "pythia", twin: bool = True) -> tuple[pl.DataFrame, pl.DataFrame]:
    drawn = noisy_samples(training_curves(STEPS), 16, np.random.default_rng(1), error=0.005)
    if twin:
        for each in drawn.values():
            each[1] = each[0]
    return stored_tables({("70m", 0): SyntheticRun(STEPS, drawn, ())}, {"70m": 19_000_000}, suite=suite)


def test_twins_measure_alike_or_are_named():
    assert [pair.same for pair in find_twins(trajectories(pythia()[0]))] == [True]
    (pair,) = find_twins(trajectories(pythia(twin=False)[0]))
    assert not pair.same
    both = pl.concat([pythia()[0], pythia("pythia-deduped")[0]])
    assert sum(pair.suites == ("pythia", "pythia-deduped") for pair in find_twins(trajectories(both))) == 1
    summary = analyse(*pythia(twin=False)).summary
    assert any("steps 0 and 1, should hold the same weights but" in sentence for sentence in summary)


def test_controls_hardly_ever_claim_a_change():
    runs = trajectories(*pythia())
    rates = alarm_rates(runs, [run_phases(run) for run in runs])
    assert rates.resampled.curves == 50
    assert rates.resampled.claimed <= 5
    assert rates.permuted.claimed <= 8


def test_null_curves_are_judged_with_the_noise_that_sequences_show():
    """Sequences that disagree by more than the curve moves: no scatter of such a run is a change."""
    curve = np.array([0.0, 0, 1, 1, 0, 0, 0])
    noise = 40 * np.random.default_rng(7).normal(size=(7, 16))
    drawn = {"spectral_entropy": curve[:, None] + noise - noise.mean(axis=1, keepdims=True)}
    tables = stored_tables({("70m", 0): SyntheticRun(STEPS[:7], drawn, ())}, {"70m": 19_000_000})
    runs = trajectories(*tables)
    rates = alarm_rates(runs, [run_phases(run) for run in runs])
    assert (rates.permuted.claimed, rates.resampled.claimed) == (0, 0)


def test_suspect_checkpoints_are_left_out_with_a_note_unless_asked():
    checkpoints, sequences = pythia()
    run = checkpoints.select("suite", "model", "seed").row(0)
    reason = "suspect: same-weights, holds the weights of main"
    suspects = {(*run, 64): reason, ("another", *run[1:], 128): reason}
    entry = analyse(checkpoints, sequences, suspects=suspects).phases[0]
    assert 64 not in entry.steps
    assert entry.left_out == (LeftOut(64, reason),)
    assert "Left out: 1 checkpoint found suspect by the audit." in entry.sentence
    assert 64 in analyse(checkpoints, sequences).phases[0].steps


# refinement


def test_the_widest_stretch_is_parted_first_and_the_budget_kept():
    there = [[0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000], list(range(0, 1000, 100))]
    measured = [[0, 16, 1000], [0, 500, 900]]
    found = propose([[(16, 1000)], [(500, 900)]], measured, there, 4)
    assert (found[0].run, found[0].step) == (0, 128)
    assert len(found) == 4
    assert all(step in there[each.run] for each in found for step in [each.step])
    assert propose([[(1, 2)]], [[0, 1, 2, 4]], [[0, 1, 2, 4]], 8) == []


def test_refined_changes_are_narrower():
    rng = np.random.default_rng(5)
    steps = np.arange(0, 400, 2)
    drawn = noisy_samples({"a": np.where(steps < 150, 0.0, 9.0)}, 16, rng)["a"]
    kept = np.isin(steps, steps[::14])
    widths = []
    for _ in range(2):
        point = find_phases(steps[kept], {"a": drawn[kept]}).change_points[0]
        assert point.interval is not None
        assert point.interval[0] < 150 <= point.interval[1]
        widths.append(point.interval[1] - point.interval[0])
        proposed = propose([[point.interval]], [steps[kept].tolist()], [steps.tolist()], 3)
        kept |= np.isin(steps, [each.step for each in proposed])
    assert widths[1] < widths[0] / 2


# a whole suite


@pytest.mark.slow
def test_a_full_suite_is_analysed_in_a_minute_and_two_gigabytes():
    import resource
    import time

    checkpoints, sequences, heads = pythia_like()
    assert (checkpoints.height, heads.height) == (154 * 10, 154 * 4648)
    before = time.perf_counter()
    result = analyse(checkpoints, sequences, heads)
    assert time.perf_counter() - before < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2e6  # kilobytes
    for entry in result.phases:
        first = entry.change_points[0]
        assert first.reach[0] < 512
        assert first.step_low >= 64
    found = next(each for each in result.thresholds if each.main and each.low is not None)
    assert found.metric == "averaged_scale_sensitivity_0.5"
    assert (found.low, found.high) == (85056000, 302311424)
