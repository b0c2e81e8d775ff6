"""Rows in step order although units finish in any order: what waits, for what, and for how long."""

import json
import random
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
import wandb_file
from sink_material import (
    Follower,
    all_history,
    assert_rows_equal_store,
    no_wandb_of_the_user,  # noqa: F401  # a fixture that every test here uses
    store_one,
    unit_of,
    wait_until,
)

from tracker.records import PlannedUnit
from tracker.store import Store
from tracker.wandb_sink import Promised, SinkOptions, promised_by
from tracker.wandb_sink import promises as promises_module
from tracker.wandb_sink.arrivals import Arrivals
from tracker.wandb_sink.identity import RunIdentity
from tracker.wandb_sink.order import StepOrder
from tracker.wandb_sink.promises import Promises, promising

OFFLINE = SinkOptions(mode="offline", maps=False, histograms=False)


@dataclass(frozen=True)
class Row:
    step: int

    @property
    def row(self) -> str:
        return f"row {self.step}"


def ready(order: StepOrder, steps: list[int], coming: set[int], now: float) -> list[int]:
    return [row.step for row in order.ready([Row(step) for step in steps], coming, now)]


def test_a_row_waits_for_an_earlier_one_and_not_for_ever():
    order = StepOrder(patience=10)
    assert ready(order, [0, 1, 4, 8], {2}, now=0) == [0, 1]
    assert ready(order, [4, 8], {2}, now=9) == []
    assert ready(order, [2, 4, 8], set(), now=9) == [2, 4, 8]
    assert ready(order, [4, 8], {2}, now=10) == [4, 8]
    assert ready(StepOrder(patience=0), [4, 8], {2}, now=0) == [4, 8]


def test_a_row_that_is_overdue_takes_the_earlier_ones_along():
    order = StepOrder(patience=10)
    assert ready(order, [8], {1}, now=0) == []
    assert ready(order, [4, 8], {1}, now=10) == [4, 8]


def test_nothing_is_said_of_order_where_nothing_is_to_come():
    assert ready(StepOrder(patience=60), [8, 16], set(), now=0) == [8, 16]
    assert ready(StepOrder(patience=60), [], {1}, now=0) == []


def planned(*steps: int, state: str = "to do") -> list[Promised]:
    return promised_by(PlannedUnit(unit_of(step), state) for step in steps)  # type: ignore[arg-type]


def stored(folder: Path) -> dict[RunIdentity, dict[str, object]]:
    found: dict[RunIdentity, dict[str, object]] = {}
    for arrival in Arrivals(folder).poll():
        found.setdefault(RunIdentity.of(arrival.record), {})[arrival.record.key] = arrival
    return found


def coming(promises: Promises, folder: Path, **chosen: str) -> set[int]:
    promises.look()
    found = promises.coming(stored(folder), **chosen)  # type: ignore[arg-type]
    return set().union(*found.values())


def test_what_is_promised_is_coming_until_it_is_stored_as_anything(tmp_path: Path):
    promises, stop = Promises(tmp_path), threading.Event()
    with promising(tmp_path, OFFLINE, planned(0, 1, 2), stop) as mine:
        assert coming(promises, tmp_path) == {0, 1, 2}
        store_one(tmp_path, 0)
        Store(tmp_path).write_hole(unit_of(1), "failed", "torn")
        assert coming(promises, tmp_path) == {2}
        assert coming(promises, tmp_path, without=mine) == set()
        assert coming(promises, tmp_path, only="/tracker") == {2}
        assert coming(promises, tmp_path, only="/other") == set()
    assert coming(promises, tmp_path) == set()
    assert list((tmp_path / "wandb" / "promised").iterdir()) == []


def test_what_is_measured_again_is_coming_until_the_new_record_is_there(tmp_path: Path):
    store_one(tmp_path, 1)
    promises, stop = Promises(tmp_path), threading.Event()
    with promising(tmp_path, OFFLINE, planned(1, state="retry"), stop):
        assert coming(promises, tmp_path) == {1}
        store_one(tmp_path, 1, again=1)
        assert coming(promises, tmp_path) == set()


def test_the_promise_of_a_sweep_that_died_stops_counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(promises_module, "STALE_SECONDS", 0.3)
    folder = tmp_path / "wandb" / "promised"
    folder.mkdir(parents=True)
    told = {"run": RunIdentity.of(store_and_read(tmp_path)).__dict__, "step": 1, "key": "k", "again": False}
    content = {"destination": "/tracker", "since": 0.0, "promised": [told]}
    (folder / "dead.json").write_text(json.dumps(content))
    (folder / "torn.json").write_text('{"since')
    promises = Promises(tmp_path)
    assert coming(promises, tmp_path) == {1}
    wait_until(lambda: coming(promises, tmp_path) == set(), 5)


def store_and_read(folder: Path):
    store_one(folder, 0)
    (arrival,) = Arrivals(folder).poll()
    return arrival.record


def test_units_that_finish_in_any_order_are_logged_in_step_order(tmp_path: Path):
    steps = [0, 1, 2, 4, 8, 16, 32, 64]
    follower = Follower(tmp_path, OFFLINE, planned(*steps))
    for step in random.Random(1).sample(steps, len(steps)):
        store_one(tmp_path, step)
        if step == 4:
            Store(tmp_path).write_hole(unit_of(999), "missing", "no branch")
    wait_until(lambda: any("handed" in p.read_text() for p in (tmp_path / "wandb").glob("sent/*/*.json")))
    follower.finish()
    assert_rows_equal_store(all_history(tmp_path), tmp_path)
    (path,) = wandb_file.wandb_files(tmp_path)
    assert [row["checkpoint/step"] for row in wandb_file.history(path)] == steps


def test_a_row_that_was_waited_for_in_vain_still_arrives_once(tmp_path: Path):
    impatient = SinkOptions(mode="offline", maps=False, histograms=False, order_wait=0.5)
    follower = Follower(tmp_path, impatient, planned(1, 2, 4))
    for step in (4, 2):
        store_one(tmp_path, step)
    ledgers = tmp_path / "wandb" / "sent" / "tracker"
    wait_until(lambda: any(len(json.loads(p.read_text())["handed"]) == 2 for p in ledgers.glob("*.json")))
    store_one(tmp_path, 1)
    follower.finish()
    history = all_history(tmp_path)
    assert [row["checkpoint/step"] for row in history] == [2, 4, 1]
    assert_rows_equal_store(history, tmp_path)


def test_a_promise_that_is_kept_while_the_store_is_looked_at_does_not_let_a_later_row_pass(tmp_path: Path):
    promises, stop = Promises(tmp_path), threading.Event()
    with promising(tmp_path, OFFLINE, planned(1, 4), stop):
        promises.look()
        store_one(tmp_path, 4)
        before = stored(tmp_path)
        store_one(tmp_path, 1)
    assert set().union(*promises.coming(before).values()) == {1}  # type: ignore[arg-type]


def test_a_sweep_that_ends_leaves_to_the_other_what_still_waits_for_it(tmp_path: Path):
    first = Follower(tmp_path, OFFLINE, planned(0, 4))
    store_one(tmp_path, 0)
    wait_until(lambda: list((tmp_path / "wandb").glob("sent/*/*.json")))  # now it is the one that publishes
    second = Follower(tmp_path, OFFLINE, planned(1, 8))
    wait_until(lambda: len(list((tmp_path / "wandb" / "promised").glob("*.json"))) == 2)
    for step in (4, 8):
        store_one(tmp_path, step)
    told = first.finish()
    assert told.rows == 1
    assert told.sentences[1].startswith("W&B: 2 checkpoints left to the publisher of another sweep")
    store_one(tmp_path, 1)
    assert second.finish().rows == 3
    history = all_history(tmp_path)
    assert [row["checkpoint/step"] for row in history] == [0, 1, 4, 8]
    assert_rows_equal_store(history, tmp_path)
