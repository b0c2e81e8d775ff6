"""What moves before, with or after a change; which heads carry it; what the controls say."""

import io

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from tests.synthetic_suite import pythia_like
from tracker.analysis import analyse, find_transitions, trajectories
from tracker.analysis.context import head_contributions, landmarks_at
from tracker.analysis.controls import find_twins
from tracker.analysis.order import lag_of
from tracker.analysis.refine import propose
from tracker.analysis.schema import LeftOut
from tracker.analysis.synthetic import SyntheticRun, log_steps, noisy_samples, stored_tables, training_curves
from tracker.analysis.text.transitions import context_sentence
from tracker.console.full_text import further_table
from tracker.console.output import print_table

STEPS = log_steps(19)


def shift(at: int, size: float = 8.0) -> np.ndarray:
    return np.where(np.arange(19) < at, 0.0, size)


def samples(**curves: np.ndarray) -> dict[str, np.ndarray]:
    return noisy_samples(curves, 16, np.random.default_rng(3))


# lead and lag


def lag(metric: np.ndarray, covariate: np.ndarray):
    drawn = samples(metric=metric, covariate=covariate)
    found = find_transitions(STEPS, drawn).curves
    assert found["metric"].main is not None
    return lag_of(found["metric"].main, found["covariate"])


@pytest.mark.parametrize(("at", "verdict"), [(7, "before"), (10, "with"), (14, "after")])
def test_covariates_are_placed_before_with_or_after(at, verdict):
    found = lag(shift(10, 12.0), shift(at, -12.0))
    assert (found.verdict, found.direction) == (verdict, "down")
    octaves = (
        np.log2([STEPS[at - 1] + 1, STEPS[at] + 1]).mean() - np.log2([STEPS[9] + 1, STEPS[10] + 1]).mean()
    )
    assert found.lag == pytest.approx(octaves)
    assert found.interval is not None
    assert found.interval[0] <= octaves <= found.interval[1]
    assert found.bracket == (STEPS[at - 1], STEPS[at])


def test_what_does_not_move_beyond_noise_is_still():
    found = lag(shift(10, 12.0), np.zeros(19))
    assert (found.verdict, found.lag) == ("still", None)
    assert found.smallest is not None


WEIGHED = {
    "stable_rank_q": 7, "stable_rank_mlp_out": 7, "spectral_norm_ov": 14, "state_first_norm": 7,
}  # fmt: skip
"""Of weights and states: at which checkpoint each shifts."""


def weighed_run(seed: int = 0) -> tuple[pl.DataFrame, ...]:
    """A run with its transition at checkpoint 10 and measures of weights and states around it."""
    curves = {"spectral_entropy": shift(10, 12.0), "frequency_selectivity": shift(10, -12.0)}
    drawn = noisy_samples(curves, 16, np.random.default_rng(seed))
    noise = np.random.default_rng(seed + 1).normal(0, 0.05, (len(WEIGHED) + 1, 19))
    shifts = [*(shift(at, 12.0) for at in WEIGHED.values()), 0.0]
    alone = {
        name: np.tile((moved + each)[:, None], 16)
        for name, moved, each in zip((*WEIGHED, "outlier_ratio_q"), shifts, noise, strict=True)
    }
    return stored_tables(
        {("70m", seed): SyntheticRun(STEPS, drawn | alone, ())},
        {"70m": 19_000_000},
    )


def test_weights_and_states_are_covariates():
    (context,) = analyse(*weighed_run()).lead_lag
    found = {name: context.covariates[name].verdict for name in (*WEIGHED, "outlier_ratio_q")}
    assert found == {name: "before" if at == 7 else "after" for name, at in WEIGHED.items()} | {
        "outlier_ratio_q": "still"
    }
    said = context_sentence(context)
    assert (
        "half way before it: stable rank of Wq and MLP W_out, norm of the first token; half way after it: "
        "spectral norm of the OV circuit; no change beyond noise in 1 of 5 measures of weights and states"
    ) in said


def test_they_are_tabulated_by_model_whatever_the_number_of_seeds():
    runs = [weighed_run(seed) for seed in (0, 5)]
    both = analyse(*(pl.concat(tables) for tables in zip(*runs, strict=True))).lead_lag
    for contexts, cell in ((both[:1], "before  -"), (both, "before 2")):
        console = Console(width=120, file=io.StringIO())
        print_table(console, further_table(contexts))
        text = console.file.getvalue()  # type: ignore[attr-defined]
        row = next(line for line in text.splitlines() if line.startswith("stable rank of Wq"))
        assert cell in row
        assert "loss" not in text


def test_a_slow_drift_moves_too():
    assert lag(shift(10, 12.0), np.log2(STEPS + 1.0) * 3).direction == "up"


def test_the_heads_that_carry_a_change_are_named():
    rng = np.random.default_rng(0)
    values = 0.01 * rng.normal(size=(19, 12))
    values[:, 5] += shift(10, 3.0)
    values[:, 6] += shift(12, 1.0)
    layers, heads = np.repeat([0, 1, 2], 4), np.tile(np.arange(4), 3)
    main = find_transitions(STEPS, {"a": values.mean(axis=1)}).curves["a"].main
    assert main is not None
    found = head_contributions(STEPS, main, values, layers, heads)
    assert found is not None
    assert (found.heads[0].layer, found.heads[0].head) == (1, 1)
    assert found.heads[0].share == pytest.approx(0.8, abs=0.25)
    assert (found.half_by, found.of) == (1, 12)
    assert sum(layer.share for layer in found.layers) == pytest.approx(1)


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
        point = find_transitions(steps[kept], {"a": drawn[kept]}).curves["a"].moves[0].half
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
