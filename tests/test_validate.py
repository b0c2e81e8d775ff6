"""`tracker validate` and alerts: right metrics pass, wrong ones fail, and a planted break is told once."""

import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import torch
import wandb_file
from command_line import here, tracker  # noqa: F401  # here is a fixture
from loopback_wandb import LoopbackWandb
from rich.console import Console
from sink_material import no_wandb_of_the_user, wandb_server  # noqa: F401  # fixtures
from synthetic_store import PROBE, SMALL, SMALL_STEPS, measurement_of, unit_of
from views_browser import browsing, chromium, visiting

from tracker import metrics
from tracker.analysis.assumptions import Condition, Limits, alerts_of, break_conditions
from tracker.analysis.schema import ChangePoint, RunPhases
from tracker.cli import run
from tracker.metrics.fused.signals import SignalPlan, signal_values
from tracker.records import Conventions
from tracker.store import Store, open_store
from tracker.validate import (
    agreement,
    conditions_table,
    detection,
    findings_table,
    ground_truth,
    runs_in_all,
)
from tracker.validate.finding import at_least, at_most, near
from tracker.views import write_dashboard
from tracker.wandb_sink import SinkOptions, publish

LIMITS = Limits(entropy_spread=0.1, correlation=0.0, reconstruction=1e-5, settled=0.1)
STEPS = SMALL_STEPS
LAST = STEPS[-1]
Row = dict[str, Any]
SOUND = {
    "spectral_entropy_std": 0.3, "averaged_position_spectrum_correlation": -0.4,
    "reconstruction_error": 3e-7, "averaged_reconstruction_error": 3e-7,
}  # fmt: skip


def planted(folder: Path, change: Callable[[int], Row], steps: tuple[int, ...] = STEPS) -> Path:
    """A store of one model in which every condition holds, but for what ``change(step)`` puts there."""
    for step in steps:
        unit = unit_of("nano", SMALL[0], 0, step)
        measured = measurement_of(unit, SMALL[0], 0.0)
        sound = {name: value for name, value in SOUND.items() if name in measured.checkpoint.columns}
        lits = [pl.lit(value).alias(name) for name, value in (sound | change(step)).items()]
        Store(folder).write(unit, replace(measured, checkpoint=measured.checkpoint.with_columns(lits)))
    return folder


def judged(folder: Path, last_change: int | None = 1000) -> dict[str, Any]:
    """Conditions by name, with the last detected change given."""
    points = [] if last_change is None else [ChangePoint(512, last_change)]
    phases = [RunPhases("nano", SMALL[0].model, 0, change_points=tuple(points))]
    found = break_conditions(open_store(folder).checkpoints(), phases, LIMITS)
    assert all(each.sentence.startswith("0.05m seed 0: ") for each in found)
    return {each.condition: each for each in found}


# ground truth


def test_every_experiment_and_witness_agrees():
    findings = [*ground_truth(), *agreement()]
    assert [each for each in findings if not each.passed] == []
    assert len(findings) > 60


def _shifted(spectrum: Any) -> Any:
    return metrics.spectral_entropy(spectrum) + 1e-3


WRONG: dict[str, tuple[Callable[..., Any], str]] = {
    "spectral_entropy": (_shifted, "impulse, n_fft 64: entropy log(33)"),
    "power_spectrum": (lambda x, **given: metrics.power_spectrum(x, **given).roll(1, -1), "a cosine at bin"),
    "band_power": (lambda x: metrics.band_power(x).flip(-1), "white noise: mean share of the low band"),
    "frequency_selectivity": (lambda x: x.amax(-1) / (x.sum(-1) - x.amax(-1)), "one bin only: selectivity"),
    "positional_entropy": (lambda x: metrics.positional_entropy(x) / math.log(2), "uniform attention over"),
    "window_entropy": (lambda x, width: metrics.window_entropy(x, width) * 1.01, "window entropy, width 16"),
    "wavelet_coefficients": (
        lambda x, *, wavelet="db2", level, mode="symmetric": metrics.wavelet_coefficients(
            x, wavelet=wavelet, level=level, mode="zero"), "coefficients against pywt, 6 wavelets, reflect"),
    "reconstruction_error": (lambda x, **given: metrics.reconstruction_error(x, **given) + 2e-6,
                             "reconstruction error, 6 wavelets, zero"),
    "wavelet_entropy": (lambda x: metrics.wavelet_entropy(x, normalised=True), "wavelet entropy"),
    "scale_sensitivity": (lambda a, b, **given: metrics.scale_sensitivity(a, b, **given) + 0.05,
                          "row of t / n alone: S(0.5)"),
    "position_spectrum_correlation": (lambda x, y: -metrics.position_spectrum_correlation(x, y),
                                      "correlation against scipy"),
    "previous_token_score": (metrics.sink_share, "previous-token map: previous-token score"),
    "sink_share": (metrics.previous_token_score, "map on the first key"),
    "local_share": (lambda x, span: metrics.local_share(x, 1), "previous-token map: local share"),
    "prefix_matching_score": (lambda x, block: metrics.prefix_matching_score(x, block + 1),
                              "induction on a block"),
    "head_redundancy": (lambda x: metrics.head_redundancy(x) ** 2, "two heads alike"),
    "frame_bounds": (lambda x: tuple(bound.sqrt() for bound in metrics.frame_bounds(x)), "three heads"),
    "lag_profile": (lambda x: metrics.lag_profile(x).roll(1, -1), "profile by distance"),
    "admissibility": (lambda x: metrics.admissibility(x) * 1.001, "admissibility"),
    "refinement_residual": (lambda x: metrics.refinement_residual(x) ** 2, "refinement residual"),
    "singular_values": (lambda x: metrics.singular_values(x).square(), "Gaussian matrix, 512 x 512"),
    "stable_rank": (lambda s: s.sum(-1) / s.amax(-1), "Gaussian matrix, 512 x 512"),
    "effective_rank": (lambda s: metrics.effective_rank(s).log(), "projection on 7 directions: effective"),
    "product_singular_values": (lambda a, b: metrics.product_singular_values(a, b).sqrt(), "product of"),
    "spectral_norm": (lambda s: s.mean(-1), "product of factors"),
    "outlier_ratio": (lambda x: metrics.outlier_ratio(x) * 1.01, "entries of one magnitude"),
    "rotary_shares": (lambda x, dims, interleaved: metrics.rotary_shares(
        x, dims, interleaved=not interleaved), "a head of the third of 8 rotary frequencies (half)"),
    "mean_frequency_index": (lambda x: 1 - metrics.mean_frequency_index(x), "a head of the third"),
    "rotary_bands": (lambda x: tuple(1.1 * each for each in metrics.rotary_bands(x)), "a head that uses 8"),
    "largest_over_median": (lambda x: metrics.largest_over_median(x.square()), "one activation of 100"),
    "first_norm": (lambda x: metrics.first_norm(x) ** 2, "in the first token"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_metric_is_noticed(name: str):
    wrong, experiment = WRONG[name]
    functions = SimpleNamespace(**{each: getattr(metrics, each) for each in metrics.__all__} | {name: wrong})
    failed = [each.experiment for each in (*ground_truth(functions), *agreement(functions))
              if not each.passed]  # fmt: skip
    assert any(each.startswith(experiment) for each in failed), failed


def test_validation_certifies_what_a_sweep_records_where_one_bin_holds_all_power():
    plan = SignalPlan.of(Conventions(window="rectangular", n_fft=64, theory_tokens=0), 64)
    recorded = signal_values(torch.full((2, 64), 1 / 64), plan).values["frequency_selectivity"]
    assert recorded.isnan().all()
    (certified,) = [each for each in ground_truth() if each.experiment == "one bin only: selectivity"]
    assert (certified.expected, certified.found, certified.passed) == ("undefined", "nan", True)


def test_a_metric_that_gives_no_number_fails():
    assert not near("x", 1, math.nan, 1).passed
    assert not at_most("x", math.nan, 1).passed
    assert not at_least("x", math.nan, 0).passed
    near_miss, missed = at_least("x", 0.86, 0.9, chance=0.05), at_most("x", 0.04, 0.02, chance=0.01)
    assert (near_miss.passed, near_miss.by_chance) == (False, True)
    assert (missed.passed, missed.by_chance) == (False, False)
    assert not at_most("x", math.nan, 1, chance=1).by_chance
    table = findings_table("t", [near_miss, missed])
    assert [str(cell) for cell in table.columns[-1].cells] == ["chance", "FAIL"]
    functions = SimpleNamespace(**{name: getattr(metrics, name) for name in metrics.__all__})
    functions.window_entropy = lambda x, width: torch.full(x.shape[:-1], torch.nan)
    undefined = [each for each in agreement(functions) if "window entropy" in each.experiment]
    assert [each.passed for each in undefined] == [False] * 3


def test_the_analysis_table_counts_its_runs():
    calls = []
    findings = {each.experiment: each for each in detection(1, lambda: calls.append(1))}
    assert len(calls) == runs_in_all(1)
    clear = findings["step, size 10, 16 checkpoints: claimed"]
    assert (float(clear.found), clear.passed) == (1.0, True)
    assert clear.tolerance == "at least 0.98 - 0.23"


# break conditions


def test_a_sound_store_breaks_nothing(tmp_path: Path):
    found = judged(planted(tmp_path, lambda step: {}))
    assert [each.passed for each in found.values()] == [True] * 5
    assert alerts_of(found.values()) == ()


@pytest.mark.parametrize(
    ("condition", "column", "value", "just_right"),
    [
        ("spread over heads", "spectral_entropy_std", 0.0999, 0.1),
        ("position-spectrum correlation", "averaged_position_spectrum_correlation", 0.0, -1e-6),
        ("reconstruction error", "reconstruction_error", 1.1e-5, 1e-5),
        ("averaged reconstruction error", "averaged_reconstruction_error", 1.1e-5, 1e-5),
    ],
)
def test_a_planted_value_breaks_its_condition_alone(
    tmp_path: Path, condition: str, column: str, value: float, just_right: float
):
    broken = judged(planted(tmp_path / "broken", lambda step: {column: value} if step == LAST else {}))
    (alert,) = alerts_of(broken.values())
    assert (alert.condition, alert.steps, alert.passed) == (condition, (LAST,), False)
    assert alert.value == pytest.approx(value)
    assert f"{value:.3g}" in alert.sentence
    sound = judged(planted(tmp_path / "sound", lambda step: {column: just_right} if step == LAST else {}))
    assert alerts_of(sound.values()) == ()


def test_claims_about_trained_models_are_judged_at_the_last_checkpoint(tmp_path: Path):
    found = judged(planted(tmp_path, lambda step: {"spectral_entropy_std": 0.01} if step < 8 else {}))
    spread = found["spread over heads"]
    assert (spread.passed, spread.steps) == (True, (LAST,))
    assert spread.sentence.endswith("step 16000; 4 of 15 earlier checkpoints broke it")


def test_a_store_of_untrained_or_undefined_values_is_not_judged(tmp_path: Path):
    only = judged(planted(tmp_path / "zero", lambda step: {"spectral_entropy_std": 0.0}, (0,)), None)
    assert only["spread over heads"].passed is None
    assert "only step 0 is measured" in only["spread over heads"].sentence
    none = judged(planted(tmp_path / "none", lambda step: {"averaged_position_spectrum_correlation": None}))
    assert none["position-spectrum correlation"].passed is None
    assert "undefined at the last checkpoint" in none["position-spectrum correlation"].sentence
    assert alerts_of([*only.values(), *none.values()]) == ()


def test_reconstruction_is_judged_at_every_checkpoint(tmp_path: Path):
    worse = {4: 2e-5, 64: 3e-3}
    found = judged(
        planted(tmp_path, lambda step: {"reconstruction_error": worse[step]} if step in worse else {})
    )
    assert found["reconstruction error"].steps == (4, 64)
    assert "0.003 at step 64, above 1e-05 at 2 checkpoints" in found["reconstruction error"].sentence


def test_scale_sensitivity_may_move_before_the_last_change_and_not_after(tmp_path: Path):
    def jump(at: int) -> Callable[[int], Row]:
        return lambda step: {"scale_sensitivity_0.5": 0.3 + 0.11 * (step >= at)}

    before = judged(planted(tmp_path / "before", jump(1000)))["scale sensitivity settled"]
    assert before.passed is True
    after = judged(planted(tmp_path / "after", jump(4000)))["scale sensitivity settled"]
    assert (after.passed, after.steps) == (False, (4000,))
    assert "moves by 0.11 from step 2000 to 4000" in after.sentence
    unknown = judged(tmp_path / "after", None)["scale sensitivity settled"]
    assert (unknown.passed, unknown.value) == (None, None)
    assert "no change is detected" in unknown.sentence
    few = judged(tmp_path / "after", LAST)["scale sensitivity settled"]
    assert (few.passed, few.steps) == (None, ())


# the verb


def test_without_a_store_the_verb_tries_the_metrics_and_writes_nothing(tmp_path: Path):
    done = tracker(tmp_path, "validate")
    assert (done.returncode, done.stderr) == (0, "")
    assert "coefficients against pywt, 6 wavelets, reflect" in done.stdout
    assert done.stdout.rstrip().endswith("checks, 0 failed")
    assert list(tmp_path.iterdir()) == []


def test_a_broken_store_ends_with_1_and_alerts_are_short(here: Path, capsys: pytest.CaptureFixture[str]):  # noqa: F811
    store = here / "broken"
    planted(store, lambda step: {"spectral_entropy_std": 0.01, "reconstruction_error": 1.0})
    assert run(["validate", "what=breaks", "store=broken"]) == 1
    shown = capsys.readouterr().out
    assert "FAIL" in shown
    assert shown.rstrip().endswith("checks, 2 failed")
    looser = ["validate.entropy_spread=0.001", "validate.reconstruction=2"]
    assert run(["validate", "what=breaks", "store=broken", *looser]) == 0
    capsys.readouterr()
    assert run(["analyse", "store=broken"]) == 0
    assert capsys.readouterr().out.count("Alert: ") == 2
    alerts = json.loads((store / "analysis.json").read_text())["alerts"]
    assert [each["condition"] for each in alerts] == ["spread over heads", "reconstruction error"]


def test_a_store_without_a_measurement_says_so(here: Path, capsys: pytest.CaptureFixture[str]):  # noqa: F811
    Store(here / "holes").write_hole(unit_of("nano", SMALL[0], 0, 1), "failed", "no weights")
    assert run(["validate", "what=breaks", "store=holes"]) == 0
    said = capsys.readouterr().out
    assert "holes: no checkpoint is measured, so there is nothing to judge" in said


def test_it_opens_the_store_before_any_check_is_made(tmp_path: Path):
    for probe in (PROBE, replace(PROBE, n=64)):
        unit = replace(unit_of("nano", SMALL[0], 0, 1), probe=probe)
        Store(tmp_path / "two").write_hole(unit, "failed", "no weights")
    done = tracker(tmp_path, "validate", "what=all", "store=two")
    assert (done.returncode, done.stdout) == (2, "")
    assert "store=two: holds results of several probes, which are never mixed; choose one" in done.stderr


def test_names_are_never_markup():
    condition = Condition("[red]s", "[bold]m", 0, "c", (1, 2, 3, 4, 5), 1.0, 2.0, True, "")
    shown = io.StringIO()
    Console(width=120, file=shown).print(conditions_table("in [blue]", [condition]))
    told = ("[red]s", "[bold]m", "in [blue]", "1, 2, 3 and 2 more", "pass")
    assert all(name in shown.getvalue() for name in told)


def test_many_alerts_are_cut_short(capsys: pytest.CaptureFixture[str]):
    from tracker.console.output import make_console, print_alerts

    print_alerts(make_console(), [f"sentence {number}" for number in range(8)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert lines[-1] == "and 3 more: tracker validate"
    print_alerts(make_console(), ["a"] * 5)
    assert capsys.readouterr().out == "Alert: a\n" * 5


# where alerts go


def _with_alerts(folder: Path, *sentences: str) -> list[Row]:
    """A store of one run, and an analysis.json that holds these alerts."""
    planted(folder, lambda step: {}, (0, 1000))
    return _say(folder, *sentences)


def _say(folder: Path, *sentences: str) -> list[Row]:
    alerts = [{"suite": "nano", "model": SMALL[0].model, "seed": 0, "condition": f"condition {number}",
               "steps": [1000], "value": 1.0, "limit": 0.5, "passed": False, "sentence": sentence}
              for number, sentence in enumerate(sentences)]  # fmt: skip
    other = {**alerts[0], "model": "another", "sentence": "not of this run"}
    (folder / "analysis.json").write_text(json.dumps({"alerts": [*alerts, other]}))
    return alerts


@pytest.mark.slow
def test_wandb_gets_each_alert_once(tmp_path: Path, server: LoopbackWandb):
    _with_alerts(tmp_path, "first", "second")
    assert publish(tmp_path, SinkOptions()).failure is None
    (run,) = server.runs.values()
    assert [(each["title"], each["text"], each["severity"]) for each in run.alerts] == [
        ("condition 0: 0.05m seed 0", "first", "WARN"), ("condition 1: 0.05m seed 0", "second", "WARN")
    ]  # fmt: skip
    assert publish(tmp_path, SinkOptions()).runs == 0
    assert len(run.alerts) == 2
    _say(tmp_path, "first", "second", "third")
    assert publish(tmp_path, SinkOptions()).rows == 0
    assert [each["text"] for each in run.alerts] == ["first", "second", "third"]
    publish(tmp_path, SinkOptions(project="another"))
    assert len(run.alerts) == 6, "another project is told too"


@pytest.mark.slow
def test_a_ledger_from_before_alerts_sends_no_row_again(tmp_path: Path, server: LoopbackWandb):
    _with_alerts(tmp_path, "first")
    publish(tmp_path, SinkOptions())
    (path,) = (tmp_path / "wandb" / "sent").rglob("*.json")
    content = json.loads(path.read_text())
    del content["alerts"], content["sum"]
    path.write_text(json.dumps(content))
    assert publish(tmp_path, SinkOptions()).rows == 0


def test_offline_alerts_are_written_once(tmp_path: Path):
    _with_alerts(tmp_path, "first")
    for _ in range(2):
        publish(tmp_path, SinkOptions(mode="offline"))
    records = [each for path in wandb_file.wandb_files(tmp_path) for each in wandb_file.records(path)]
    assert [each.alert.text for each in records if each.HasField("alert")] == ["first"]


@browsing
def test_the_dashboard_shows_alerts_as_text_and_nothing_where_there_are_none(tmp_path: Path):
    alerts = _with_alerts(tmp_path, "S(0.5) <b>moves</b>")
    analysis: Row = {"summary": ["One run."]}
    with chromium() as browser, visiting(browser) as visit:
        visit.open(write_dashboard(open_store(tmp_path), analysis | {"alerts": alerts}, tmp_path / "a.html"))
        assert "S(0.5) <b>moves</b>" in visit.text("#alerts")
        assert visit.text("#alerts-name").startswith("1 alert: ")
        visit.open(write_dashboard(open_store(tmp_path), analysis, tmp_path / "b.html"))
        assert not visit.page.locator("#alerts-box").is_visible()
        assert visit.complaints == []
