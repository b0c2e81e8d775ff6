import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb
import wandb_file
from loopback_wandb import API_KEY, ENTITY, LoopbackWandb, ServedRun
from sink_material import (
    all_history,
    assert_rows_equal_store,
    no_wandb_of_the_user,  # noqa: F401  # a fixture that every test here uses
    store_one,
)

from tracker.sinks import Published, SinkOptions, publish

IMPATIENT = SinkOptions(init_timeout=3, finish_timeout=4)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, no_wandb_of_the_user: Path) -> Iterator[LoopbackWandb]:  # noqa: F811
    with LoopbackWandb() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", API_KEY)
        yield server
        assert server.unknown == set(), "the client asked what the loopback server does not know"


def only_run(server: LoopbackWandb) -> ServedRun:
    (run,) = server.runs.values()
    return run


def wait_until(condition, seconds: float) -> float:
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, "it did not happen in time"
        time.sleep(0.02)
    return time.monotonic() - begun


class Follower:
    """A publisher that follows a store in a thread of this process."""

    def __init__(self, folder: Path, options: SinkOptions) -> None:
        self.stop = threading.Event()
        self.published: Published | None = None
        self._thread = threading.Thread(target=self._run, args=(folder, options))
        self._thread.start()

    def _run(self, folder: Path, options: SinkOptions) -> None:
        self.published = publish(folder, options, follow=self.stop)

    def finish(self) -> Published:
        self.stop.set()
        self._thread.join(60)
        assert self.published is not None
        return self.published


def test_every_stored_row_arrives_once_with_its_histograms_and_maps(tmp_path: Path, server: LoopbackWandb):
    for seed in (0, 1):
        for step in (128, 0, 1):
            store_one(tmp_path, step, seed=seed)
    published = publish(tmp_path, SinkOptions())
    assert (published.rows, published.runs, published.failure) == (6, 2, None)
    assert published.sentences == [f"W&B: 6 checkpoints in 2 runs at {server.url}/{ENTITY}/tracker"]
    assert_rows_equal_store([row for run in server.runs.values() for row in run.history], tmp_path)
    for run in server.runs.values():
        assert [row["checkpoint/step"] for row in run.history] == [0, 1, 128]
        assert (run.complete, run.group) == (True, "pythia")
        assert run.summary["last_step"] == 128
        picture = run.history[2]["maps/band_power_low"]["path"]
        assert run.files[picture].startswith(b"\x89PNG")
        assert sum(run.history[0]["heads/band_power_low"]["values"]) == 12


def test_history_read_back_over_the_public_interface_equals_the_store(tmp_path: Path, server: LoopbackWandb):
    for step in (0, 1, 64):
        store_one(tmp_path, step)
    publish(tmp_path, SinkOptions(histograms=False, maps=False))
    run = wandb.Api(timeout=10).run(f"{ENTITY}/tracker/{only_run(server).id}")
    keys = ["checkpoint/step", "spectral_entropy", "std/spectral_entropy"]
    found = [[row[key] for key in keys] for row in run.scan_history(keys=keys, use_cache=False)]
    assert found == [[row[key] for key in keys] for row in only_run(server).history]
    assert len(found) == 3


def test_a_replay_adds_nothing_even_where_the_ledger_is_lost(tmp_path: Path, server: LoopbackWandb):
    store_one(tmp_path, 0)
    store_one(tmp_path, 1)
    publish(tmp_path, SinkOptions())
    asked = sum(server.asked.values())
    assert publish(tmp_path, SinkOptions()).runs == 0
    assert sum(server.asked.values()) == asked, "a replay with nothing to send asked the server"
    (ledger,) = (tmp_path / "wandb" / "sent").rglob("*.json")
    ledger.unlink()
    store_one(tmp_path, 2)
    assert publish(tmp_path, SinkOptions()).rows == 1
    assert_rows_equal_store(only_run(server).history, tmp_path)


def test_a_server_that_is_busy_for_a_while_gets_every_row(tmp_path: Path, server: LoopbackWandb):
    for step in (0, 1, 2):
        store_one(tmp_path, step)
    server.refuse = 4
    published = publish(tmp_path, SinkOptions())
    assert published.failure is None
    assert server.refused == 4
    assert_rows_equal_store(only_run(server).history, tmp_path)


@pytest.mark.parametrize("trouble", ["nobody listens", "nobody answers"])
def test_without_a_server_the_rows_go_to_disk_and_later_to_the_server(
    tmp_path: Path, server: LoopbackWandb, trouble: str
):
    for model in ("70m", "160m"):
        store_one(tmp_path, 0, model)
    if trouble == "nobody listens":
        server.die()
    else:
        server.silent.set()
    begun = time.monotonic()
    published = publish(tmp_path, IMPATIENT)
    assert time.monotonic() - begun < 8
    assert published.failure is not None
    assert published.failure.startswith(server.url)
    where = tmp_path / "wandb"
    assert published.sentences[0].endswith(f"nothing is lost: 2 checkpoints in 2 runs lie in {where}.")
    assert f"`tracker stream store={tmp_path}` sends what is missing" in published.sentences[1]
    assert_rows_equal_store(all_history(tmp_path), tmp_path)

    server.silent.clear()
    if trouble == "nobody listens":
        server.live()
    store_one(tmp_path, 1)
    wandb.teardown()
    assert publish(tmp_path, SinkOptions()).rows == 3
    assert_rows_equal_store([row for run in server.runs.values() for row in run.history], tmp_path)
    for path in wandb_file.wandb_files(tmp_path):
        if "offline-run" in str(path):
            assert path.with_suffix(".wandb.synced").exists(), "a later wandb sync would send it again"


def test_a_server_that_dies_gets_the_rest_later_and_nothing_twice(tmp_path: Path, server: LoopbackWandb):
    store_one(tmp_path, 0)
    follower = Follower(tmp_path, IMPATIENT)
    wait_until(lambda: server.runs and len(only_run(server).lines) == 1, 20)
    server.die()
    store_one(tmp_path, 1)
    store_one(tmp_path, 0, "160m")
    begun = time.monotonic()
    published = follower.finish()
    assert time.monotonic() - begun < 15
    assert published.failure is not None
    assert any("wandb sync --include-online" in sentence for sentence in published.sentences)
    wandb.teardown()
    server.live()
    store_one(tmp_path, 2)
    assert publish(tmp_path, SinkOptions()).failure is None
    assert_rows_equal_store([row for run in server.runs.values() for row in run.history], tmp_path)


def test_a_row_is_visible_within_three_seconds_and_runs_stay_open(tmp_path: Path, server: LoopbackWandb):
    store_one(tmp_path, 0)
    follower = Follower(tmp_path, SinkOptions())
    wait_until(lambda: server.runs and len(only_run(server).lines) == 1, 20)
    store_one(tmp_path, 8)
    assert wait_until(lambda: len(only_run(server).lines) == 2, 20) < 3
    store_one(tmp_path, 4)  # a unit that finishes out of order
    wait_until(lambda: len(only_run(server).lines) == 3, 20)
    assert follower.finish().runs == 1
    assert_rows_equal_store(only_run(server).history, tmp_path)
    assert server.asked["RunResumeStatus"] == 1
    assert only_run(server).summary["last_step"] == only_run(server).summary["checkpoint/step"] == 8


def test_a_follower_waits_for_a_store_that_does_not_exist_yet(tmp_path: Path):
    follower = Follower(tmp_path / "new", SinkOptions(mode="offline"))
    time.sleep(0.3)
    store_one(tmp_path / "new", 0)
    assert follower.finish().rows == 1
    assert_rows_equal_store(all_history(tmp_path / "new"), tmp_path / "new")


def test_a_key_that_is_refused_costs_nothing_but_a_sentence(tmp_path: Path, server: LoopbackWandb):
    store_one(tmp_path, 0)
    server.deny = True
    published = publish(tmp_path, IMPATIENT)
    assert published.failure is not None
    assert API_KEY not in " ".join(published.sentences)
    assert_rows_equal_store(all_history(tmp_path), tmp_path)


def test_online_without_a_key_does_not_ask_at_the_terminal(tmp_path: Path, server: LoopbackWandb,
                                                          monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WANDB_API_KEY")
    store_one(tmp_path, 0)
    published = publish(tmp_path, SinkOptions(mode="online"))
    assert published.failure == f"{server.url}: there is no key for it; `wandb login` stores one"
    assert server.asked.total() == 0
    assert_rows_equal_store(all_history(tmp_path), tmp_path)
