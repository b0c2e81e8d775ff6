import time
from pathlib import Path

import pytest
import wandb
import wandb_file
from loopback_wandb import API_KEY, LoopbackWandb
from sink_material import (
    Follower,
    all_history,
    assert_rows_equal_store,
    no_wandb_of_the_user,  # noqa: F401  # a fixture that every test here uses
    only_run,
    store_one,
    wait_until,
    wandb_server,  # noqa: F401  # the fixture `server`
)

from tracker.wandb_sink import SinkOptions, publish

IMPATIENT = SinkOptions(init_timeout=2, finish_timeout=2, maps=False)


def test_a_server_that_is_busy_for_a_while_gets_every_row(tmp_path: Path, server: LoopbackWandb):
    for step in (0, 1, 2):
        store_one(tmp_path, step)
    server.refuse = 1
    follower = Follower(tmp_path, SinkOptions(maps=False))
    wait_until(lambda: server.asked["UpsertBucket"], 20)
    server.refuse = 1
    assert follower.finish().failure is None
    assert server.refused == 2
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
    assert any("may have arrived or not" in sentence for sentence in published.sentences)
    wandb.teardown()
    server.live()
    store_one(tmp_path, 2)
    assert publish(tmp_path, SinkOptions()).failure is None
    assert_rows_equal_store([row for run in server.runs.values() for row in run.history], tmp_path)


def test_a_key_that_is_refused_costs_nothing_but_a_sentence(tmp_path: Path, server: LoopbackWandb):
    store_one(tmp_path, 0)
    server.deny = True
    published = publish(tmp_path, IMPATIENT)
    assert published.failure is not None
    assert API_KEY not in " ".join(published.sentences)
    assert_rows_equal_store(all_history(tmp_path), tmp_path)
