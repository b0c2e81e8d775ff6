"""From the store's tables to analysis.json: numbers, holes and sentences."""

import json

import numpy as np
import polars as pl
import pytest

from tracker.analysis import AnalysisReport, trajectories
from tracker.analysis import analyse as analysed
from tracker.analysis.phase_report import find_run
from tracker.analysis.scale_report import find_thresholds
from tracker.analysis.scale_values import TURNING, TURNING_REPORTED
from tracker.analysis.schema import ChangePoint, Extent, Phase, RunPhases
from tracker.analysis.synthetic import (
    SyntheticRun,
    log_steps,
    noisy_samples,
    scale_values,
    stored_tables,
    training_curves,
)
from tracker.analysis.text.phases import ONE_RUN, summary_of
from tracker.errors import StoreError
from tracker.store import SCHEMAS, conform

STEPS = log_steps(16)
SIZES = {"0.05m": 50_000, "0.2m": 200_000, "0.8m": 800_000}


def analyse(*tables: pl.DataFrame) -> dict:
    """The content of analysis.json."""
    return analysed(*tables).to_dict()


def training_run(seed: int) -> SyntheticRun:
    rng = np.random.default_rng(seed)
    return SyntheticRun(STEPS, noisy_samples(training_curves(STEPS), 16, rng, error=0.005), ())


def nano_tables(seeds: int = 1) -> tuple[pl.DataFrame, pl.DataFrame]:
    runs = {(model, seed): training_run(seed) for model in SIZES for seed in range(seeds)}
    return stored_tables(runs, SIZES)


def scale_tables(metric: str, values: np.ndarray) -> tuple[pl.DataFrame, pl.DataFrame]:
    rng = np.random.default_rng(0)
    sizes = {f"model-{number}": int(1e6 * 3**number) for number in range(len(values))}
    runs = {
        (model, 0): SyntheticRun(STEPS[:6], noisy_samples({metric: curve}, 8, rng, error=1e-4), ())
        for model, curve in zip(sizes, np.tile(values[:, None], 6), strict=True)
    }
    return stored_tables(runs, sizes)


def with_hole(
    checkpoints: pl.DataFrame, model: str, step: int, status: str, reason: str | None
) -> pl.DataFrame:
    here = (pl.col("model") == model) & (pl.col("step") == step)
    numbers = [name for name, kind in checkpoints.schema.items() if kind == pl.Float64]
    return checkpoints.with_columns(pl.col("reason").cast(pl.String)).with_columns(
        pl.when(here).then(pl.lit(status)).otherwise("status").alias("status"),
        pl.when(here).then(pl.lit(reason)).otherwise("reason").alias("reason"),
        *(pl.when(here).then(None).otherwise(name).alias(name) for name in numbers),
    )


# trajectories


def test_trajectories_are_the_tables():
    checkpoints, sequences = nano_tables(seeds=2)
    runs = trajectories(checkpoints.sample(fraction=1, shuffle=True, seed=1), sequences)
    assert [(run.model, run.seed) for run in runs] == [(m, s) for m in SIZES for s in (0, 1)]
    truth = training_run(1)
    run = runs[3]
    assert run.steps.tolist() == STEPS.tolist()
    assert run.samples["spectral_entropy"] == pytest.approx(truth.metrics["spectral_entropy"])
    assert run.metrics["spectral_entropy"] == pytest.approx(truth.metrics["spectral_entropy"].mean(axis=1))
    assert run.tokens.tolist() == (STEPS * 1024).tolist()
    assert run.facts["params_non_embedding"] == 200_000
    assert run.facts["d_model"] is None
    assert run.left_out == ()


def test_failed_and_missing_checkpoints_are_left_out_with_their_reason():
    checkpoints, sequences = nano_tables()
    holed = with_hole(checkpoints, "0.2m", 16, "failed", "weights are corrupt")
    holed = with_hole(holed, "0.2m", 64, "missing", None)
    run = trajectories(holed, sequences)[1]
    assert run.left_out == ((16, "weights are corrupt"), (64, "missing"))
    assert 16 not in run.steps
    assert run.samples["spectral_entropy"].shape == (14, 16)


def test_a_failed_record_beside_a_good_one_is_no_hole():
    checkpoints, sequences = nano_tables()
    again = with_hole(checkpoints, "0.2m", 16, "failed", "disk full").filter(pl.col("status") == "failed")
    run = trajectories(pl.concat([checkpoints, again], how="vertical_relaxed"), sequences)[1]
    assert run.left_out == ()
    assert len(run.steps) == 16


def test_only_sequences_that_every_checkpoint_has_are_samples():
    checkpoints, sequences = nano_tables()
    fewer = sequences.filter(~((pl.col("step") == 8) & (pl.col("sequence") == 3)))
    assert trajectories(checkpoints, fewer)[0].samples["spectral_entropy"].shape == (16, 15)
    assert trajectories(checkpoints, None)[0].samples == {}


@pytest.mark.parametrize("column", ["probe", "conventions"])
def test_mixed_probes_or_conventions_are_refused(column):
    checkpoints, _ = nano_tables()
    mixed = pl.concat([checkpoints, checkpoints.with_columns(pl.lit("other").alias(column))])
    first = checkpoints[column][0]
    names = ", ".join(sorted(["other", first]))
    message = (
        rf"^results of several {column} cannot be analysed together: {names}; "
        rf"choose one with open_store\(\.\.\., {column}=\.\.\.\)$"
    )
    with pytest.raises(StoreError, match=message):
        trajectories(mixed)


def test_a_table_without_its_columns_is_refused():
    with pytest.raises(StoreError, match=r"^the checkpoint table has no column probe; open it with tracker"):
        trajectories(pl.DataFrame({"step": [1]}))


def test_a_checkpoint_that_is_there_twice_is_refused():
    checkpoints, _ = nano_tables()
    twice = pl.concat([checkpoints, checkpoints.filter(pl.col("step") == 8)])
    with pytest.raises(StoreError, match=r"^0.05m seed 0 step 8 of suite synthetic is there twice; keep one"):
        trajectories(twice)


# the report


@pytest.fixture(scope="module")
def two_seeds() -> AnalysisReport:
    return analysed(*nano_tables(seeds=2))


def test_analysis_has_every_run_and_is_json(two_seeds: AnalysisReport):
    result = two_seeds.to_dict()
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert (result["probe"], result["conventions"]) == ("synthetic-probe", "paper-synthetic")
    assert len(result["phases"]) == 6
    entry = result["phases"][0]
    assert entry["metrics"] == list(training_curves(STEPS))
    assert [phase["label"] for phase in entry["phases"]] == ["initial", "exploratory", "specialisation"]
    assert entry["phases"][1]["peak_step"] == 1000
    assert set(entry["change_points"][0]) == {"step_low", "step_high", "confidence", "interval"}
    assert entry["change_points"][0]["confidence"] > 0.5
    evidence = entry["phases"][1]["evidence"]["frequency_selectivity"]
    assert evidence["extremum"] == pytest.approx(0.23, abs=0.02)


def test_the_summary_says_it_in_words():
    checkpoints, sequences = nano_tables()
    summary = analyse(checkpoints, sequences)["summary"]
    assert len(summary) == 6
    assert summary[0].startswith("0.05m seed 0: exploratory phase from step (128, 256]")
    assert "frequency selectivity falls 0.7" in summary[0]
    assert "specialisation after it: turning point at step 1000 (90%: (512, 2000]), " in summary[0]
    # Equal values at all three sizes have no trend to report.
    few = "a threshold needs at least 8 sizes (3 measured)."
    assert summary[3] == f"Frequency selectivity at step 16000 is the same in all 3 sizes; {few}"
    assert summary[4].startswith("Half-way point of the transition ")


def two_levels(*, turn: int = 12) -> np.ndarray:
    return np.where(np.arange(len(STEPS)) < 8, 0.0, 1.0) + 0.03 * (np.arange(len(STEPS)) == turn)


RISE, LATE, FLAT = two_levels(), two_levels(turn=15), np.zeros(len(STEPS))


@pytest.mark.parametrize(
    ("entropy", "selectivity", "parts"),
    [
        (None, None, ["transition from step (64, 128]", "labels need spectral entropy and selectivity"]),
        (-RISE, RISE, ["transition from step (64, 128]", "spectral entropy falls"]),
        (RISE, -RISE, ["exploratory phase from step (64, 128]", "frequency selectivity falls"]),
        (LATE, -LATE, ["exploratory phase from step", "spectral entropy rises"]),
        (FLAT, FLAT, ["no transition beyond noise (p = ", "would have been seen", "over 16 checkpoints"]),
    ],
    ids=["without names", "other direction", "a rise", "a late rise", "noise"],
)  # fmt: skip
def test_the_sentence_of_a_run_says_what_its_curves_do(entropy, selectivity, parts):
    curves = {"band_power_low": RISE}
    if entropy is not None:
        curves = {"spectral_entropy": entropy, "frequency_selectivity": selectivity}
    samples = noisy_samples(curves, 16, np.random.default_rng(0), error=0.005)
    tables = stored_tables({("0.8m", 0): SyntheticRun(STEPS, samples, ())}, SIZES)
    sentence = find_run(trajectories(*tables)[0]).phases.sentence
    assert sentence.startswith("0.8m seed 0: ")
    assert [part for part in parts if part not in sentence] == []


def test_weights_and_states_are_not_judged_over_size():
    """They would weaken the correction of what is, and follow the width of the model."""
    values = scale_values(np.geomspace(1, 10, 8), "step", -40, np.random.default_rng(3)) * 0.002 + 0.2
    checkpoints, sequences = scale_tables("averaged_scale_sensitivity_0.5", values)
    further = {"stable_rank_q": pl.col("params_total") * 1e-6, "state_first_norm": pl.col("step") + 2.0}
    plain, weighed = analyse(checkpoints, sequences), analyse(checkpoints.with_columns(**further), sequences)
    assert plain["thresholds"] == weighed["thresholds"]


def test_a_threshold_is_reported_with_its_models():
    values = scale_values(np.geomspace(1, 10, 8), "step", -40, np.random.default_rng(3)) * 0.002 + 0.2
    result = analyse(*scale_tables("averaged_scale_sensitivity_0.5", values))
    entry = next(each for each in result["thresholds"] if each["models"])
    assert entry["metric"] == "averaged_scale_sensitivity_0.5"
    assert (entry["axis"], entry["step"]) == ("params_non_embedding", 16)
    assert (entry["low"], entry["high"]) == (9e6, 27e6)
    assert entry["models"] == [f"model-{number}" for number in range(8)]
    assert entry["values"] == pytest.approx(values, abs=0.001)
    assert entry["effect"] == pytest.approx(-0.08, abs=0.01)
    assert entry["confidence"] == 1.0
    assert entry["sentence"].startswith(
        "scale sensitivity at 0.5x (averaged) at step 16 has a threshold: it falls by 0.08"
    )
    assert "between 9M and 27M non-embedding parameters; a step is favoured " in entry["sentence"]
    assert entry["sentence"][1:] in [sentence[1:] for sentence in result["summary"]]


def test_no_trend_is_said_too():
    values = np.array([0.2, 0.1, 0.15, 0.2, 0.1, 0.2, 0.1, 0.15])
    result = analyse(*scale_tables("frequency_selectivity", values))
    assert "synthetic: no trend over 8 model sizes in frequency selectivity." in result["summary"]
    assert "shows no trend over 8 sizes beyond the scatter" in result["thresholds"][0]["sentence"]


def test_models_of_one_size_are_not_counted_as_sizes():
    checkpoints, sequences = scale_tables(
        "frequency_selectivity", np.array([0.2, 0.1, 0.15, 0.2, 0.1, 0.2, 0.1, 0.15])
    )
    params = pl.col("params_non_embedding")
    twins = pl.when(params == params.max()).then(params.min()).otherwise(params)
    result = analyse(checkpoints.with_columns(params_non_embedding=twins), sequences)
    assert "synthetic: no trend over 8 models of 7 sizes in frequency selectivity." in result["summary"]
    assert "no trend over 8 models of 7 sizes beyond" in result["thresholds"][0]["sentence"]


def test_a_smooth_trend_is_no_threshold():
    values = np.linspace(0.2, 0.1, 8)
    result = analyse(*scale_tables("frequency_selectivity", values))
    entry = result["thresholds"][0]
    assert (entry["low"], entry["high"], entry["interval"]) == (None, None, None)
    assert entry["p_value"] == pytest.approx(2 / 70)  # of the best step, which a line explains as well
    assert entry["sentence"].startswith("frequency selectivity at step 16 falls by 0.1 (90% over sequences: ")
    assert "; a smooth trend is favoured " in entry["sentence"]


def test_larger_models_that_turn_earlier_are_told():
    steps, runs, rng = log_steps(16), {}, np.random.default_rng(0)
    sizes = {f"model-{number}": int(1e6 * 3**number) for number in range(9)}
    for number, model in enumerate(sizes):
        curve = 1 / (1 + np.exp(-4 * (np.log2(steps + 1.0) - (9 - 0.7 * number))))
        curves = {"spectral_entropy": 2 + curve, "frequency_selectivity": 0.7 - 0.5 * curve}
        runs[model, 0] = SyntheticRun(steps, noisy_samples(curves, 8, rng, error=0.01), ())
    result = analyse(*stored_tables(runs, sizes))
    entry = next(each for each in result["thresholds"] if each["metric"] == "transition_half")
    assert entry["values"] == pytest.approx([9 - 0.7 * number for number in range(9)], abs=0.8)
    assert entry["shift"]["told"]
    assert entry["low"] is None
    assert entry["sentence"].startswith("half-way point of the transition comes earlier by ")
    assert entry["sentence"] in [each[:1].lower() + each[1:] for each in result["summary"]]


def test_seeds_are_averaged_at_the_last_common_step():
    checkpoints, sequences = nano_tables(seeds=2)
    last = with_hole(checkpoints, "0.8m", 16000, "missing", "no such branch")
    found = find_thresholds("synthetic", trajectories(last, sequences))
    entry = next(each for each in found if each.metric == "spectral_entropy")
    assert entry.step == 8000
    rows = checkpoints.filter(pl.col("step") == 8000).group_by("model").agg(pl.col("spectral_entropy").mean())
    means = dict(rows.iter_rows())
    assert entry.values == pytest.approx([means[model] for model in entry.models])


def test_one_model_says_what_to_measure():
    result = analyse(*stored_tables({("0.8m", 0): training_run(0)}, SIZES))
    assert result["summary"][1] == (
        "synthetic: a threshold over size needs at least 8 model sizes (1 measured)."
    )
    assert all(entry["low"] is None and entry["high"] is None for entry in result["thresholds"])


def test_all_undefined_metrics_say_so():
    checkpoints, _ = nano_tables()
    empty = checkpoints.with_columns(pl.lit(None, pl.Float64).alias(name) for name in training_curves(STEPS))
    result = analyse(empty)
    assert result["phases"][0]["sentence"] == (
        "0.05m seed 0: no phases, since none of the metrics they need has a value; run `tracker sweep`."
    )
    assert result["thresholds"][0]["sentence"].startswith(
        "spectral entropy at step 16000: no threshold, since it has no value there in any model"
    )
    assert result["thresholds"][0]["left_out"][0] == {
        "model": "0.05m", "reason": "spectral_entropy is not known there",
    }  # fmt: skip


def test_a_run_without_any_measurement_is_reported():
    checkpoints, sequences = nano_tables()
    lost = checkpoints
    for step in STEPS:
        lost = with_hole(lost, "0.2m", int(step), "failed", "out of memory")
    result = analyse(lost, sequences)
    entry = result["phases"][1]
    assert entry["sentence"] == (
        "0.2m seed 0: no phases, since no checkpoint was measured; run `tracker sweep`. "
        "Left out: 16 checkpoints not measured."
    )
    assert entry["left_out"][0] == {"step": 0, "reason": "out of memory"}
    lost_models = result["thresholds"][0]["left_out"]
    assert {"model": "0.2m", "reason": "no checkpoint of it was measured"} in lost_models


def test_models_without_a_common_step_are_told():
    checkpoints, sequences = nano_tables()
    steps = {"0.05m": [0, 1], "0.2m": [2, 4], "0.8m": [8, 16]}
    apart = pl.any_horizontal((pl.col("model") == m) & pl.col("step").is_in(s) for m, s in steps.items())
    entry = find_thresholds("synthetic", trajectories(checkpoints.filter(apart), sequences))[0]
    assert entry.step is None
    assert entry.sentence == (
        "spectral entropy: no threshold, since the models share no measured step; measure one in all."
    )


def test_dates_leave_out_a_model_for_its_own_reason():
    checkpoints, sequences = nano_tables()
    sizeless = pl.when(pl.col("model") != "0.2m").then(pl.col("params_non_embedding"))
    still = pl.col("model") == "0.05m"
    flat = [pl.when(~still).then(pl.col(name)).otherwise(1.0).alias(name) for name in training_curves(STEPS)]
    tables = [each.with_columns(flat) for each in (checkpoints, sequences)]
    result = analyse(tables[0].with_columns(sizeless.alias("params_non_embedding")), tables[1])
    entry = next(each for each in result["thresholds"] if each["metric"] == TURNING_REPORTED)
    assert entry["models"] == ["0.8m"]
    assert entry["left_out"] == [
        {"model": "0.05m", "reason": "no transition"},
        {"model": "0.2m", "reason": "params_non_embedding is not known there"},
    ]


def test_a_store_with_all_its_columns_is_analysed():
    checkpoints, sequences = nano_tables()
    full = conform("checkpoint", checkpoints.with_columns(pl.lit("k").alias("key")))
    result = analyse(full, conform("sequences", sequences))
    assert result["phases"][0]["metrics"][:2] == ["spectral_entropy", "frequency_selectivity"]
    assert [each["metric"] for each in result["thresholds"][10:]] == list(TURNING)
    json.dumps(result, allow_nan=False)


def test_an_empty_store_says_nothing():
    result = analyse(pl.DataFrame(schema=SCHEMAS["checkpoint"]), pl.DataFrame(schema=SCHEMAS["sequences"]))
    lists = ("phases", "seeds", "lead_lag", "thresholds", "summary")
    assert {name: result[name] for name in lists} == {name: [] for name in lists}
    assert (result["probe"], result["conventions"]) == ("", "")


def test_several_seeds_are_reported_together_with_how_far_they_agree():
    def entry(seed: int, low: int, high: int, lowest: float, label: str | None = "exploratory") -> RunPhases:
        extent = Extent(1.0, lowest, lowest, 10 * high)
        evidence = {"spectral_entropy": extent, "frequency_selectivity": extent}
        return RunPhases(
            "s", "m", seed, sentence=f"seed {seed}", metrics=tuple(evidence),
            change_points=(ChangePoint(low, high, 1.0),), phases=(Phase(label, high, 999, None, evidence),),
        )  # fmt: skip

    seeds = [entry(0, 16, 32, 0.2), entry(1, 16, 32, 0.1), entry(2, 8, 16, 0.3), entry(3, 8, 16, 0.0, None)]
    assert summary_of(seeds, []) == [
        "m, 4 seeds: exploratory phase in 3 of 4 seeds, from step (16, 32] (2 seeds), (8, 16] (1 seed); "
        "specialisation in 0 of 4 seeds."
    ]
    assert summary_of(seeds[:1], []) == ["seed 0", ONE_RUN]


def test_a_report_reads_back_and_older_ones_with_it(two_seeds: AnalysisReport):
    stored = json.loads(json.dumps(two_seeds.to_dict()))
    assert AnalysisReport.from_dict(stored).to_dict() == stored
    older = {"phases": [{**stored["phases"][0], "hidden_markov": {"states": 2}}, {"model": "no suite"}]}
    del older["phases"][0]["left_out"], older["phases"][0]["change_points"][0]["interval"]
    read = AnalysisReport.from_dict(older)
    assert [(each.model, each.left_out) for each in read.phases] == [("0.05m", ())]
    assert read.phases[0].change_points[0].interval is None
    assert (read.thresholds, read.alerts, read.controls.twins) == ((), (), ())
    assert AnalysisReport.from_dict({"phases": "broken", "controls": []}) == AnalysisReport()
