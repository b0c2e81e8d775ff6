"""Stores for the tests of the W&B sink, and what must arrive from them."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import wandb
import wandb_file
from loopback_wandb import API_KEY, LoopbackWandb, ServedRun

from tracker.atomic import locked
from tracker.metrics.registry import checkpoint_columns
from tracker.records import Checkpoint, Conventions, Measurement, ProbeSpec, Unit
from tracker.store import Store, open_store
from tracker.wandb_sink import Published, SinkOptions, publish

OFFLINE = SinkOptions(mode="offline", maps=False, histograms=False)
LEAN = SinkOptions(maps=False, histograms=False, artifact=False)
PROBE = ProbeSpec("default", "0" * 64, n=96, number=2)
LAYERS, HEADS = 3, 4
METRICS = ("spectral_entropy", "spectral_entropy_normalised", "frequency_selectivity", "band_power_low",
           "averaged_scale_sensitivity_0.5", "previous_token_score")  # fmt: skip


def unit_of(step: int, model: str = "70m", seed: int = 0, suite: str = "pythia") -> Unit:
    checkpoint = Checkpoint(suite, model, seed, step, "hub", f"org/{model}-{seed}", f"step{step}")
    return Unit(checkpoint, PROBE, Conventions())


def store_one(folder: Path, step: int, model: str = "70m", seed: int = 0, suite: str = "pythia",
              tokens: bool = True, again: int = 0) -> Unit:  # fmt: skip
    """Stores one made-up measurement whose numbers depend on all of its names, and on how often it was
    measured ``again``, which replaces the record."""
    unit = unit_of(step, model, seed, suite)
    values = np.random.default_rng([step, seed, len(model), *[again] * (again > 0)])
    identity = unit.identity("ok")
    heads = [
        identity | {"layer": layer, "head": head} | {metric: values.uniform() for metric in METRICS}
        for layer in range(LAYERS) for head in range(HEADS)
    ]  # fmt: skip
    heads[5]["previous_token_score"] = math.nan
    summary: dict[str, Any] = {"key": unit.key, "n_layers": LAYERS, "n_heads": HEADS, "d_model": 64,
                               "params_total": 1000, "params_non_embedding": 900,
                               "repo": f"org/{model}-{seed}", "dtype": "float32",
                               "seconds": 0.5, "undefined_rows": 2,
                               "tokens_seen": step * 2**21 if tokens else None, "loss": values.uniform(),
                               "prefix_matching_score": math.nan}  # fmt: skip
    for metric in METRICS:
        column = np.array([row[metric] for row in heads])
        column = column[~np.isnan(column)]
        low, high = np.quantile(column, [0.25, 0.75])
        summary |= {metric: column.mean(), f"{metric}_std": column.std(ddof=1),
                    f"{metric}_q25": low, f"{metric}_q75": high}  # fmt: skip
    measurement = Measurement(pl.DataFrame(heads), pl.DataFrame(), pl.DataFrame(),
                              pl.DataFrame([identity | summary]))  # fmt: skip
    Store(folder).write(unit, measurement, replace=again > 0)
    return unit


def expected_rows(folder: Path) -> dict[str, dict[str, Any]]:
    """By key, the scalars that every row must carry, read from the store without the sink's code."""
    expected = {}
    for row in open_store(folder).checkpoints().filter(pl.col("status") == "ok").iter_rows(named=True):
        scalars = {"checkpoint/step": row["step"], "checkpoint/step_plus_one": row["step"] + 1,
                   "checkpoint/key": row["key"], "checkpoint/tokens": row["tokens_seen"],
                   "checkpoint/seconds": row["seconds"],
                   "checkpoint/undefined_rows": row["undefined_rows"]}  # fmt: skip
        for metric in checkpoint_columns(own=False):
            scalars[metric] = row[metric]
            for spread in ("std", "q25", "q75"):
                scalars[f"{spread}/{metric}"] = row[f"{metric}_{spread}"]
        expected[row["key"]] = {name: value for name, value in scalars.items() if value is not None}
    return expected


def scalars(row: dict[str, Any]) -> dict[str, Any]:
    """A row of history without its own name, pictures, histograms and what W&B adds."""
    return {name: value for name, value in row.items()
            if not name.startswith(("_", "heads/", "maps/", "checkpoint/row"))}  # fmt: skip


def assert_rows_equal_store(history: list[dict[str, Any]], folder: Path) -> None:
    """Every stored row exactly once, with the store's values."""
    expected = expected_rows(folder)
    keys = [row["checkpoint/key"] for row in history]
    assert sorted(keys) == sorted(expected), "rows were lost or sent twice"
    for row in history:
        assert scalars(row) == expected[row["checkpoint/key"]]
        assert row["checkpoint/row"].startswith(f"{row['checkpoint/key']}.")


def all_rows(server: LoopbackWandb) -> list[dict[str, Any]]:
    """Every row of every run of a server."""
    return [row for run in server.runs.values() for row in run.history]


def all_history(folder: Path) -> list[dict[str, Any]]:
    """Every row in every .wandb file of a store."""
    return [row for path in wandb_file.wandb_files(folder) for row in wandb_file.history(path)]


@pytest.fixture(autouse=True, name="home")
def no_wandb_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
                         ) -> Iterator[Path]:  # fmt: skip
    """No key, no settings, no cache of whoever runs the tests; yields the home folder instead."""
    home = tmp_path_factory.mktemp("home")
    for name in ("API_KEY", "MODE", "BASE_URL", "ENTITY", "PROJECT", "IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    yield home
    wandb.teardown()


@pytest.fixture(name="server")
def wandb_server(monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[LoopbackWandb]:
    """A W&B server on loopback that the environment points to, with a key."""
    with LoopbackWandb() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", API_KEY)
        yield server
        assert server.unknown == set(), "the client asked what the loopback server does not know"


def only_run(server: LoopbackWandb) -> ServedRun:
    """The run of a server that has one."""
    (run,) = server.runs.values()
    return run


def wait_until(condition: Callable[[], object], seconds: float = 20) -> float:
    """Seconds until ``condition`` came true; fails where it does not in time."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, "it did not happen in time"
        time.sleep(0.02)
    return time.monotonic() - begun


def publisher_lock(folder: Path) -> AbstractContextManager[None]:
    """What a running publisher holds; free once it has ended."""
    return locked(folder / "wandb" / "publisher.lock", 5)


class Follower:
    """A publisher that follows a store in a thread of this process."""

    def __init__(self, folder: Path, options: SinkOptions) -> None:
        self.stop = threading.Event()
        self.published: Published | None = None
        self._thread = threading.Thread(target=self._run, args=(folder, options), daemon=True)
        self._thread.start()

    def _run(self, folder: Path, options: SinkOptions) -> None:
        self.published = publish(folder, options, follow=self.stop)

    def finish(self) -> Published:
        self.stop.set()
        self._thread.join(60)
        assert self.published is not None
        return self.published
