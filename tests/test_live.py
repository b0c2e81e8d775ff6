"""Live training: measured inside ``transformers.Trainer``, which trains as if nobody looked."""

import json
import logging
import random
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from live_material import PROBE, nano_model, train

import tracker
from tracker.errors import RequestError
from tracker.live import Budget, ProbeOptions, Schedule, WatchOptions
from tracker.live.options import with_fields
from tracker.metrics.registry import forget
from tracker.models.preserve_state import preserve_state
from tracker.store.journal import live_alerts


def watched(folder: Path, **given) -> "tracker.TrackerCallback":
    return tracker.TrackerCallback(PROBE, store=folder / "store", **({"every": 10, "share": None} | given))


def test_a_trainer_trains_bit_for_bit_the_same_with_and_without(tmp_path: Path):
    callback = watched(tmp_path)
    plain_losses, plain = train(tmp_path / "plain", steps=24)
    losses, weights = train(tmp_path / "watched", callback, steps=24)
    assert len(losses) == 24
    assert losses == plain_losses
    assert all(torch.equal(weights[name], plain[name]) for name in plain)
    assert callback.account.measured == 8
    results = tracker.open_store(tmp_path / "store")
    table = results.checkpoints().sort("step")
    assert table["step"].to_list() == [0, 1, 2, 4, 8, 10, 20, 24]
    assert table.select("suite", "model", "seed", "status").unique().rows() == [("live", "watched", 0, "ok")]
    assert table["loss"][-1] < table["loss"][0]
    # A store like any other.
    assert results.heads().filter(pl.col("step") == 20).height == 2 * 3
    assert results.sequences()["sequence"].n_unique() == len(PROBE)


def test_the_comparison_can_fail(tmp_path: Path):
    """A callback that draws one random number changes the losses: dropout is on."""

    class Clumsy(tracker.TrackerCallback):
        def on_step_end(self, *args, **kwargs) -> None:
            torch.rand(1)

    plain, _ = train(tmp_path / "plain", steps=4)
    assert plain != train(tmp_path / "watched", Clumsy(PROBE, store=tmp_path / "store"), steps=4)[0]


def test_everything_is_put_back_whatever_happens():
    model = nano_model().train()
    model.gpt_neox.layers[0].eval()
    model.set_attn_implementation("sdpa")
    model.gpt_neox.register_buffer("memory", torch.arange(3.0))
    model(torch.from_numpy(PROBE), labels=torch.from_numpy(PROBE)).loss.backward()
    gradients = [w.grad for w in model.parameters()]
    kept = [None if g is None else g.clone() for g in gradients]
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    modes = [module.training for module in model.modules()]

    def meddle() -> None:
        with preserve_state(model):
            model.eval().set_attn_implementation("eager")
            model.zero_grad()
            model.gpt_neox.memory = torch.zeros(3)
            assert random.random() + np.random.rand() + float(torch.rand(())) >= 0
            torch.set_num_threads(2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        meddle()
    assert [module.training for module in model.modules()] == modes
    assert not model.gpt_neox.layers[0].training
    assert model.config._attn_implementation == model.gpt_neox.config._attn_implementation == "sdpa"
    assert model.gpt_neox.memory.tolist() == [0, 1, 2]
    assert all(w.grad is g for w, g in zip(model.parameters(), gradients, strict=True))
    assert all(g is None or torch.equal(g, k) for g, k in zip(gradients, kept, strict=True))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[:2]
    assert torch.equal(torch.get_rng_state(), states[2])
    assert torch.get_num_threads() == 1


def test_what_would_exceed_the_share_is_left_out_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "tracker.live")
    callback = watched(tmp_path, share=0.001)
    train(tmp_path / "run", callback, steps=20)
    account = callback.account
    assert (account.measured, account.skipped) == (3, 4)  # 0, 1 and the last; not 2, 4, 8, 10
    assert str(account).startswith("3 of 7 steps measured; share=")
    assert "step 10 is not measured: a measurement takes about" in caplog.text
    assert "0.001 of the time trained is" in caplog.text
    journal = json.loads((tmp_path / "store" / "live" / "live.run.seed-0.json").read_text())
    assert [each["step"] for each in journal["skipped"]] == [2, 4, 8, 10]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def measured_steps(budget: Budget, clock: Clock, schedule: Schedule) -> list[int]:
    """200 steps of 0.2 s; the first measurement takes 2 s, every other 0.1 s."""
    taken: list[int] = []
    for step in range(201):
        if schedule.due(step) and budget.refusal(step, early=schedule.is_early(step)) is None:
            with budget.spending():
                clock.now += 0.1 if taken else 2.0
            taken.append(step)
        clock.now += 0.2
    return taken


def test_the_first_measurement_which_loads_libraries_does_not_count_and_the_share_for_all_is_told():
    clock, schedule = Clock(), Schedule(every=20)
    due = [step for step in range(201) if schedule.due(step)]
    budget = Budget(0.05, total_steps=200, clock=clock)
    taken = measured_steps(budget, clock, schedule)
    assert len(due) > len(taken) >= 12
    assert budget.counted <= 0.05 * budget.trained
    assert budget.enough is not None
    again = Budget(budget.enough, total_steps=200, clock=clock)
    assert measured_steps(again, clock, schedule) == due
    assert again.enough is None


def test_a_budget_is_never_overdrawn_after_the_first_measurement():
    clock, schedule = Clock(), Schedule(every=50)
    budget = Budget(0.05, total_steps=2000, clock=clock)
    taken = []
    for step in range(2001):
        if schedule.due(step) and budget.refusal(step, early=schedule.is_early(step)) is None:
            with budget.spending():
                clock.now += 0.7
            taken.append(step)
        clock.now += 0.1
        if step >= 1000:
            assert budget.counted <= 0.05 * budget.trained
    assert taken[:4] == [0, 1, 2, 4]  # 5 % of the 200 s to come pay 7 of them in advance
    assert budget.spent == pytest.approx(0.7 * len(taken))
    assert 13 <= len(taken) <= 15
    assert taken[-1] >= 1900


def test_without_the_length_of_the_run_nothing_is_paid_in_advance():
    clock = Clock()
    budget = Budget(0.5, clock=clock)
    for _ in range(2):
        with budget.spending():
            clock.now += 1.0
    clock.now += 3.9
    assert budget.refusal(2, early=True) == (
        "a measurement takes about 1 s and 1 s are spent; 0.5 of the time trained is 1.95 s"
    )
    clock.now += 0.1
    assert budget.refusal(2, early=True) is None


def test_a_resumed_run_appends_and_what_it_left_is_set_aside(tmp_path: Path):
    straight = watched(tmp_path / "straight", every=5, name="run")
    train(tmp_path / "a", straight, steps=30)
    train(tmp_path / "b", watched(tmp_path, every=5, name="run"), steps=20, save=10)
    (tmp_path / "b" / "checkpoint-20").rename(tmp_path / "gone")
    callback = watched(tmp_path, every=5, name="run")
    train(tmp_path / "b", callback, steps=30, resume=True, save=10)
    here = tracker.open_store(tmp_path / "store").checkpoints().sort("step")
    there = tracker.open_store(tmp_path / "straight" / "store").checkpoints().sort("step")
    assert here["step"].to_list() == there["step"].to_list() == [0, 1, 2, 4, 5, 10, 15, 20, 25, 30]
    same = [name for name in here.columns if name not in ("seconds", "peak_bytes")]
    # Up to where it was resumed: transformers 5.23 itself reads a resumed GPT-NeoX back without its head.
    before = pl.col("step") <= 10
    assert here.filter(before).select(same).equals(there.filter(before).select(same), null_equal=True)
    aside = tracker.open_store(tmp_path / "store" / "superseded" / "1").checkpoints().sort("step")
    assert aside["step"].to_list() == [15, 20]
    assert any("earlier records beyond step 10 are in" in each for each in callback.account.sentences)


def test_a_run_that_starts_again_does_not_mix_with_the_one_before(tmp_path: Path):
    train(tmp_path / "run", watched(tmp_path), steps=8)
    train(tmp_path / "run", watched(tmp_path), steps=2)
    assert sorted(tracker.open_store(tmp_path / "store").checkpoints()["step"]) == [0, 1, 2]
    assert len(tracker.open_store(tmp_path / "store" / "superseded" / "1").checkpoints()) == 5


def test_weights_that_are_not_finite_raise_an_alert_and_training_goes_on(tmp_path: Path):
    class Poison(tracker.TrackerCallback):
        def on_step_end(self, args, state, control, **kwargs) -> None:
            if state.global_step == 4:
                with torch.no_grad():
                    kwargs["model"].gpt_neox.layers[1].mlp.dense_h_to_4h.weight[0, 0] = torch.nan
            super().on_step_end(args, state, control, **kwargs)

    alerts = []
    callback = Poison(PROBE, store=tmp_path / "store", every=4, share=None, on_alert=alerts.append)
    losses, _ = train(tmp_path / "run", callback, steps=12)
    assert len(losses) == 12
    assert callback.account.failed == 3
    assert [each.condition for each in alerts].count("weights not finite") == 1
    assert alerts[0].sentence.endswith("at step 4, first in gpt_neox.layers.1.mlp.dense_h_to_4h.weight")
    assert [(each.condition, each.step) for each in alerts[1:2]] == [("gradient norm not finite", 5)]
    holes = tracker.open_store(tmp_path / "store").checkpoints().filter(status="failed").sort("step")
    assert holes["step"].to_list() == [4, 8, 12]
    assert holes["reason"][0].startswith("run seed 0 step 4: ")
    assert "NaN or infinite" in holes["reason"][0]


@pytest.mark.parametrize("as_given", [float, torch.tensor, lambda loss: torch.tensor(loss).bfloat16()])
def test_a_loss_that_is_not_finite_raises_one_alert(as_given):
    alerts = []
    monitor = tracker.watch(nano_model(), PROBE, on_alert=alerts.append)
    for step, loss in ((1, 2.0), (2, float("nan")), (3, float("inf"))):
        monitor.note(step, "loss", as_given(loss))
    assert [(each.condition, each.step) for each in alerts] == [("loss not finite", 2)]
    assert alerts[0].sentence == "the training's loss is nan at step 2"


def test_a_loss_that_is_no_number_is_reported_and_training_goes_on():
    monitor = tracker.watch(nano_model(), PROBE)
    monitor.note(1, "loss", torch.ones(2, requires_grad=True))
    assert monitor.account.sentences[0].startswith("run seed 0: the training's loss cannot be read: ")


def test_a_step_may_be_numpys_and_must_be_whole(tmp_path: Path):
    with tracker.watch(nano_model(), PROBE, store=tmp_path, every=1, share=1e-9) as watch:
        assert watch(np.int64(0))
        assert watch(np.int64(1))
        assert not watch(np.int64(2))  # left out, which stands in the journal
        with pytest.raises(RequestError, match="step=None: not a whole number; give the finished optimizer"):
            watch(None)
    assert watch.account.skipped == 1
    assert len(watch.account.sentences) == 0


def test_a_metric_that_is_gone_is_reported_and_training_goes_on(tmp_path: Path):
    tracker.metric(lambda rows: rows.amax(-1), name="largest")
    with tracker.watch(nano_model(), PROBE, store=tmp_path, every=1, share=None) as watch:
        assert watch(0)
        forget("largest")
        assert not watch(1)
    assert watch.account.failed == 1
    assert "run seed 0 step 1: metric largest-" in watch.account.sentences[0]


def test_what_breaks_behind_a_measurement_is_reported_and_training_goes_on(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("tracker.analysis.instability._sudden", lambda *_: 1 / 0)
    with tracker.watch(nano_model(), PROBE, store=tmp_path, every=1, share=None) as watch:
        watch(0)
    assert watch.account.sentences == [
        "run seed 0: step 0 cannot be recorded: ZeroDivisionError: division by zero"
    ]
    assert tracker.open_store(tmp_path).checkpoints()["status"].to_list() == ["ok"]


def test_another_model_of_the_same_name_is_another_run(tmp_path: Path):
    for size in ("0.05m", "0.2m"):
        with tracker.watch(nano_model(size), PROBE, store=tmp_path, every=1, share=None) as watch:
            watch(2)
            watch(3)
    assert tracker.open_store(tmp_path).checkpoints()["n_layers"].to_list() == [4, 4]
    assert tracker.open_store(tmp_path / "superseded" / "1").checkpoints()["n_layers"].to_list() == [2, 2]


def test_what_is_set_aside_keeps_its_alerts_and_the_meaning_of_own_metrics(tmp_path: Path):
    tracker.metric(lambda rows: rows.amax(-1), name="largest", title="Largest share")
    try:
        for loss in (float("nan"), 1.0):
            with tracker.watch(nano_model(), PROBE, store=tmp_path, every=1, share=None) as watch:
                watch(0)
                watch(1, loss=loss)
    finally:
        forget("largest")
    aside = tmp_path / "superseded" / "1"
    assert live_alerts(tmp_path) == []
    assert [alert["condition"] for alert in live_alerts(aside)] == ["loss not finite"]
    assert "Largest share" in (aside / "metrics.json").read_text()


def test_what_a_user_does_on_an_alert_stays(tmp_path: Path):
    model = nano_model().train()
    with torch.no_grad():
        model.gpt_neox.layers[1].mlp.dense_h_to_4h.weight[0, 0] = torch.nan

    def stop(_: object) -> None:
        model.eval()

    with tracker.watch(model, PROBE, store=tmp_path, on_alert=stop) as watch:
        watch(0)
    assert not model.training


def test_a_model_is_taken_out_of_what_wraps_it(tmp_path: Path):
    with tracker.watch(torch.nn.DataParallel(nano_model()), PROBE, store=tmp_path) as watch:
        assert watch(0)


def test_an_architecture_that_cannot_be_read_is_recorded_and_training_goes_on(tmp_path: Path, monkeypatch):
    callback = watched(tmp_path)
    train(tmp_path / "run", callback, steps=2)
    model = nano_model()
    with tracker.watch(model, PROBE, store=tmp_path / "other", name="mine", share=None) as watch:
        watch(0)
        monkeypatch.setattr(type(model.gpt_neox), "forward", lambda *args, **kwargs: 1 / 0)
        assert watch(1) is False
    assert watch.account.failed == 1
    row = tracker.open_store(tmp_path / "other").checkpoints().filter(step=1).row(0, named=True)
    assert row["reason"] == "mine seed 0 step 1: ZeroDivisionError: division by zero"


def test_what_the_disk_refuses_is_written_later(tmp_path: Path, monkeypatch):
    model, store = nano_model(), tmp_path / "store"
    with tracker.watch(model, PROBE, store=store, share=None, name="mine") as watch:
        watch(0)
        (store / ".partial").rmdir()
        (store / ".partial").write_text("in the way")
        assert watch(1) is True
        assert len(tracker.open_store(store).checkpoints()) == 1
        (store / ".partial").unlink()
    assert sorted(tracker.open_store(store).checkpoints()["step"]) == [0, 1]
    assert any("it is kept in memory and tried again (1 waiting)" in each for each in watch.account.sentences)


def test_a_store_that_vanishes_is_not_made_anew_and_gets_everything_when_it_is_back(tmp_path: Path):
    model, store, away = nano_model(), tmp_path / "store", tmp_path / "away"
    with tracker.watch(model, PROBE, store=store, share=None, name="mine") as watch:
        watch(0)
        store.rename(away)
        assert watch(1) is True
        assert not store.exists()
        away.rename(store)
    assert sorted(tracker.open_store(store).checkpoints()["step"]) == [0, 1]
    assert any("store: was deleted or moved" in each for each in watch.account.sentences)


def test_a_loop_of_ones_own(tmp_path: Path):
    model, ids = nano_model().train(), torch.from_numpy(PROBE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with tracker.watch(model, PROBE, store=tmp_path, every=4, early=False, share=None) as watch:
        for step in range(1, 9):
            loss = model(ids, labels=ids).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            watch(step, loss=loss.item(), tokens_seen=step * ids.numel())
    table = tracker.open_store(tmp_path).checkpoints().sort("step")
    assert table.select("step", "tokens_seen", "model").rows() == [(4, 1024, "run"), (8, 2048, "run")]
    assert re.match(r"2 of 2 steps measured; [\d.]+ s beside [\d.]+ s of training", str(watch.account))


def test_only_the_main_process_measures(tmp_path: Path):
    class Second(tracker.TrackerCallback):
        def on_train_begin(self, args, state, control, **kwargs) -> None:
            state.is_world_process_zero = False
            super().on_train_begin(args, state, control, **kwargs)

    train(tmp_path / "run", Second(PROBE, store=tmp_path / "store"), steps=2)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"evry": 10}, "unknown field 'evry'; choose from .*every, .*number.*window"),
        ({"every": 0}, "every=0: invalid value; expected whole numbers from 1"),
        ({"share": 0.0}, "share=0.0: invalid value; expected shares of training time above 0, up to 1"),
        ({"share": 1.5}, "share=1.5: invalid value"),
        ({"name": " "}, "name=' ': invalid value; expected a text that is not empty"),
        ({"sink": tracker.SinkOptions(mode="sometimes")}, "sink.mode=sometimes: invalid value"),
    ],
)
def test_bad_input_is_named_before_training(given: dict, message: str):
    with pytest.raises(RequestError, match=message):
        tracker.TrackerCallback(PROBE, **given)
    with pytest.raises(RequestError, match=message):
        tracker.watch(nano_model(), PROBE, **given)


@pytest.mark.parametrize("given", [{"share": "0.05"}, {"total_steps": "1000"}, {"sink": "wandb"}])
def test_an_option_of_another_type_is_refused_before_training_begins(given: dict):
    with pytest.raises(RequestError, match=f"^{next(iter(given))}='.*': invalid value; expected"):
        WatchOptions(**given)


def test_lengths_and_shares_of_numpy_are_taken():
    assert WatchOptions(total_steps=np.int64(1000), share=np.float32(0.1)).total_steps == 1000  # type: ignore[arg-type]


def test_options_are_given_whole_or_by_name(tmp_path: Path):
    """A field by name goes before the same field of the options, in both places that take them."""
    options = WatchOptions("mine", every=3, share=None, probe=ProbeOptions(number=2, conventions={"span": 8}))
    assert with_fields(options, {}) == options
    changed = with_fields(options, {"every": 5, "n": 32, "window": "hamming"})
    assert (changed.name, changed.every, changed.share) == ("mine", 5, None)
    assert changed.probe == ProbeOptions(2, 32, None, {"span": 8, "window": "hamming"})
    with tracker.watch(nano_model(), PROBE, store=tmp_path, options=options, seed=4) as watch:
        watch(0)
    row = tracker.open_store(tmp_path).checkpoints().row(0, named=True)
    assert (row["model"], row["seed"]) == ("mine", 4)


def test_a_training_that_cannot_be_monitored_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    callback = tracker.TrackerCallback(store=tmp_path / "store")
    losses, _ = train(tmp_path / "run", callback, steps=2)
    assert len(losses) == 2
    assert "a probe of text needs a tokenizer" in callback.account.sentences[0]
    assert "this training is not monitored: RequestError" in caplog.text


def test_a_panic_in_an_event_reaches_no_training(tmp_path: Path):
    class Panic(BaseException):
        pass

    class Broken(tracker.TrackerCallback):
        @property
        def monitor(self):
            raise Panic("in writing")

        @monitor.setter
        def monitor(self, value) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
            pass

        account = tracker.live.run_record.Account()  # type: ignore[assignment]

    callback = Broken(PROBE, store=tmp_path / "store")
    assert len(train(tmp_path / "run", callback, steps=2)[0]) == 2
    assert "Panic: in writing" in callback.account.sentences[0]
