"""Sweeps of many checkpoints: fetched ahead, bounded on disk, killed, and served by a hostile hub."""

import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from huggingface_hub import constants, snapshot_download
from loopback_hub import Hub, loopback_hub
from saved_models import save
from suite_material import (
    PROBE,
    REPO,
    Watch,
    finished,
    last_record,
    left_in,
    make_suite,
    records,
    start_sweep,
    tables,
    wait_for,
)

import tracker as package
from tracker.checkpoints.claims import on_disk
from tracker.cli import run

ROOM = 50_000
"""Bytes for links, folders and small files of a checkpoint, in bounds of the tests."""


def bound(size: int, count: int) -> str:
    return f"cache.max_gb={count * (on_disk(size) + ROOM) / 1e9:.9f}"


def throttled(folder: Path, count: int) -> tuple[float, float, int, int]:
    """A sweep of ``count`` whose every checkpoint takes as long to fetch as to measure.

    Returns:
        Seconds from the first request to the last record; the longer of the totals of fetching and
        measuring; the most bytes on disk; the bound.
    """
    size = make_suite(folder, range(0, count * 100, 100), sequences=800, hidden_size=128, num_hidden_layers=3)
    with loopback_hub(folder / "hub") as hub:
        finished(start_sweep(folder, hub.url, "steps.list=[0,100,200,300]", "store=trial"))
        usual = sorted(package.open_store(folder / "trial").checkpoints()["seconds"])[1]
        hub.bytes_per_second = size / usual
        hub.log.clear()
        limit = 3 * (on_disk(size) + ROOM)
        with Watch(folder / "other").running() as watch:
            finished(
                start_sweep(
                    folder, hub.url, f"cache.folder={folder / 'other/hub'}", f"cache.max_gb={limit / 1e9:.9f}"
                )
            )
        # Imports happen between the branches that discovery asks for and the first file.
        first = min(request.at for request in hub.log if "/resolve/" in request.path)
    seconds = sum(package.open_store(folder / "tracker-store").checkpoints()["seconds"].to_list())
    taken = last_record(folder / "tracker-store") - first
    print(
        f"{count} checkpoints of {size / 1e6:.2f} MB: fetching {count * usual:.1f} s, measuring "
        f"{seconds:.1f} s, together {taken:.1f} s = {taken / max(seconds, count * usual):.3f} x the longer; "
        f"most on disk {watch.most / 1e6:.2f} MB of {limit / 1e6:.2f} MB allowed, {watch.looks} looks"
    )
    return taken, max(seconds, count * usual), watch.most, limit


def test_the_next_checkpoints_arrive_while_one_is_measured_and_the_disk_stays_below_its_bound(
    hub: Hub, tmp_path: Path
):
    size = make_suite(tmp_path, range(5), sequences=60, hidden_size=64)
    limit = 3 * (on_disk(size) + ROOM)
    hub.bytes_per_second = size / 0.3
    with Watch(tmp_path / "cache").running() as watch:
        assert sweep_here(bound(size, 3)) == 0
    commits = {hub.commit(tmp_path / "hub" / REPO / f"step{step}"): step for step in range(5)}
    asked = {
        step: request.at
        for request in hub.log
        for commit, step in commits.items()
        if request.path.endswith(f"{commit}/model.safetensors")
    }
    stored = {int(place.name.split(".")[0].removeprefix("step-")): place.stat().st_mtime for place in
              records(tmp_path / "tracker-store")}  # fmt: skip
    early = [step for step in range(1, 5) if asked[step] < stored[step - 1]]
    assert early == [1, 2, 3, 4], "each was asked for before the one before it was stored"
    assert 0 < watch.most <= limit
    assert left_in(tmp_path / "cache") == []


@pytest.mark.slow
def test_a_throttled_sweep_of_twelve_takes_little_longer_than_the_longer_of_its_two_totals(tmp_path: Path):
    taken, longer, most, limit = throttled(tmp_path, 12)
    assert taken <= 1.15 * longer
    assert 0 < most <= limit


def sweep_here(*overrides: str) -> int:
    """A sweep in this process; its exit code."""
    number = len(np.load("ids.npy"))
    return run(["sweep", "suite=hub", f"suite.repo={REPO}", f"probe.sequences={number}", *PROBE, *overrides])


def test_what_was_there_before_stays_and_all_else_goes_when_it_is_measured(hub: Hub, tmp_path: Path):
    size = make_suite(tmp_path, range(4))
    cache = tmp_path / "cache" / "hub"
    snapshot_download(REPO, revision="step1", cache_dir=cache, endpoint=hub.url)
    before = {path: path.stat().st_ino for path in cache.rglob("*") if ".locks" not in path.parts}
    hub.log.clear()
    assert sweep_here(bound(size, 2)) == 0
    after = {path: path.stat().st_ino for path in cache.rglob("*") if ".locks" not in path.parts}
    assert after == before
    assert hub.asked(hub.commit(hub.root / REPO / "step1")) == [
        f"GET /api/models/{REPO}/revision/{hub.commit(hub.root / REPO / 'step1')}"
    ]
    rows = package.open_store(tmp_path / "tracker-store").checkpoints()
    assert rows["status"].to_list() == ["ok"] * 4


def test_without_a_bound_everything_stays_and_serves_offline(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    make_suite(tmp_path, range(3))
    assert sweep_here() == 0
    # The branches for the plan and for the audit, main's folders for the plan, each commit once (main's too),
    # each content once.
    assert len(hub.asked("/refs")) == 2
    assert len(hub.asked("/revision/")) == 1 + 4
    assert len(hub.asked("/resolve/")) == 2 + 3  # the configuration is the same file in every step
    assert len(hub.asked()) == 2 + 5 + 5 + 3
    hub.log.clear()
    assert sweep_here() == 0
    main = hub.commit(hub.root / REPO / "main")
    listings = [f"GET /api/models/{REPO}/refs", f"GET /api/models/{REPO}/revision/{main}"]
    assert hub.asked() == listings, "what is done is not asked for"
    hub.log.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert sweep_here("store=second") == 0
    assert hub.log == []
    mine, theirs = tables(tmp_path / "tracker-store"), tables(tmp_path / "second")
    assert all(mine[name].equals(theirs[name]) for name in mine)


@pytest.mark.slow
def test_two_sweeps_share_a_cache_and_its_bound(tmp_path: Path):
    size = make_suite(tmp_path, range(8), hidden_size=64)
    with loopback_hub(tmp_path / "hub") as hub:
        hub.bytes_per_second = size / 0.15
        limit = 3 * (on_disk(size) + ROOM)
        with Watch(tmp_path / "cache").running() as watch:
            both = [start_sweep(tmp_path, hub.url, bound(size, 3), f"store={name}") for name in ("a", "b")]
            for process in both:
                finished(process)
    assert 0 < watch.most <= limit
    assert left_in(tmp_path / "cache") == []
    mine, theirs = tables(tmp_path / "a"), tables(tmp_path / "b")
    assert mine["checkpoints"].height == 8
    assert all(mine[name].equals(theirs[name]) for name in mine)


def killed_again_and_again(folder: Path, kills: int, count: int) -> None:
    """SIGKILL at random moments between the first listing and some units on, a restart each time."""
    size = make_suite(folder, range(count))
    chance = random.Random(kills)
    with loopback_hub(folder / "hub") as hub:
        finished(start_sweep(folder, hub.url, "store=undisturbed", f"cache.folder={folder / 'other'}"))
        hub.bytes_per_second = size / 0.5
        request = (bound(size, 3), "engine.prefetch=2")
        done = []
        for life in range(kills):
            asked, sign = len(hub.log), "/revision/" if life % 4 == 0 else "/content/"
            process = start_sweep(folder, hub.url, *request)
            # After the imports, which are most of a short sweep's time; a quarter while the hub is asked.
            wait_for(lambda n=asked, s=sign: any(s in each.path for each in hub.log[n:]), process)
            time.sleep(chance.uniform(0, 1.5))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            done.append(len(records(folder / "tracker-store")))
        hub.bytes_per_second = None
        finished(start_sweep(folder, hub.url, *request))
    print(f"{kills} kills of a sweep of {count}; records after each: {done}")
    assert done[-1] > kills / 4, "the kills came before anything was measured: let the sweeps live longer"
    assert done[-1] < count, "the last kills met a sweep with nothing left to do: make it longer"
    mine, theirs = tables(folder / "tracker-store"), tables(folder / "undisturbed")
    assert sorted(mine["checkpoints"]["step"]) == list(range(count))
    for name in mine:
        assert mine[name].equals(theirs[name]), name
    assert len(records(folder / "tracker-store")) == count
    assert left_in(folder / "cache") == []


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on_and_leaves_nothing_behind(tmp_path: Path):
    killed_again_and_again(tmp_path, 3, 14)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_sweep_that_is_killed_at_forty_random_moments_ends_as_if_undisturbed(tmp_path: Path):
    killed_again_and_again(tmp_path, 40, 120)


FORMS = {0: "safetensors", 1: "sharded safetensors", 2: "bin", 3: "both", 4: "safetensors", 5: "sharded bin"}


def test_branches_of_one_commit_are_measured_alike_from_files_that_stay_as_long_as_either_needs_them(
    hub: Hub, tmp_path: Path
):
    size = make_suite(tmp_path, [0, 2])
    (tmp_path / "hub" / REPO / "step1").symlink_to("step0")
    assert sweep_here(bound(size, 1), "steps.list=[0,1,2]") == 0
    rows = package.open_store(tmp_path / "tracker-store").checkpoints().sort("step")
    assert rows["status"].to_list() == ["ok"] * 3
    assert rows["commit"][0] == rows["commit"][1] != rows["commit"][2]
    assert rows["spectral_entropy"][0] == rows["spectral_entropy"][1] != rows["spectral_entropy"][2]
    assert left_in(tmp_path / "cache") == []


@pytest.mark.slow
def test_a_hostile_hub_costs_only_the_checkpoints_that_it_spoils(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    make_suite(tmp_path, [])
    for step, form in FORMS.items():
        save(tmp_path / "hub" / REPO / f"step{step}", form, step)
    assert sweep_here("store=good", f"cache.folder={tmp_path / 'other'}") == 0
    # One file may meet all of them: no more than one request bears.
    hub.busy, hub.busy_path = [(429, 1), (503, 0), (500, 0), (504, 0)], "/resolve/"
    hub.cut = [5_000, 0, 9_000, 1, 20_000]
    hub.altered = {"pytorch_model.bin"}
    hub.truncated = {"pytorch_model-00002-of-00002.bin"}
    capsys.readouterr()
    assert sweep_here("cache.max_gb=0.001") == 1
    said = capsys.readouterr().out
    assert hub.busy == hub.cut == []
    rows = package.open_store(tmp_path / "tracker-store").checkpoints().sort("step")
    assert rows["status"].to_list() == ["ok", "ok", "failed", "ok", "ok", "failed"]
    assert "pytorch_model.bin arrived altered" in rows["reason"][2]
    assert "pytorch_model-00002-of-00002.bin arrived cut short" in rows["reason"][5]
    assert all(f"step {step}: {REPO} at step{step}: " in said for step in (2, 5))
    mine, theirs = tables(tmp_path / "tracker-store"), tables(tmp_path / "good")
    ok = rows.filter(status="ok")["step"].to_list()
    for name in ("heads", "layers", "sequences"):
        assert mine[name].equals(theirs[name].filter(pl.col("step").is_in(ok))), name
    assert left_in(tmp_path / "cache") == []
    hub.altered = hub.truncated = set()
    assert sweep_here("cache.max_gb=0.001") == 0, "what failed is tried again"


def test_a_bound_below_one_checkpoint_fails_every_unit_with_what_is_missing(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    size = make_suite(tmp_path, range(2))
    assert sweep_here(f"cache.max_gb={size / 4e9:.9f}") == 1
    assert "is less than it takes; raise it" in capsys.readouterr().out
    assert hub.asked("/content/") == []
    assert left_in(tmp_path / "cache") == []


def test_a_full_disk_stops_what_needs_it_and_says_how_much_is_missing(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    size = make_suite(tmp_path, range(3), hidden_size=128)
    place = tmp_path / "cache"
    place.mkdir()
    room = on_disk(size) + 400_000
    mount = ["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can be mounted by root alone")
    try:
        assert sweep_here() == 1
        said = capsys.readouterr().out
        assert "1 measured now" in said
        assert said.count("GB are missing: the disk of") >= 2
        shutil.rmtree(place / "hub")
        assert sweep_here(bound(size, 1)) == 0
    finally:
        subprocess.run(["umount", str(place)], check=True)
    assert package.open_store(tmp_path / "tracker-store").checkpoints()["status"].to_list() == ["ok"] * 3
