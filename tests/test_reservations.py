"""Several sweeps on one store: each unit has one owner, and an owner that dies holds nobody up."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from test_store import measurement_of, unit_of

from tracker.checkpoints import CheckpointCache
from tracker.engines.prefetch import Prefetch
from tracker.engines.reservations import Reservations
from tracker.records import PlannedUnit, Recorded
from tracker.store import Store
from tracker.store.heartbeat import STALE_SECONDS, SUFFIX, Heartbeat, read_heartbeat
from tracker.store.progress import Watch

TAKER = """
import sys, time
from test_store import unit_of
from tracker.engines.reservations import Reservations
from tracker.records import PlannedUnit
from tracker.store import Store
from pathlib import Path
from tracker.store.heartbeat import Heartbeat
store = Store(Path(sys.argv[1]))
with Heartbeat(store.folder) as heartbeat, Reservations(store, heartbeat) as mine:
    print([mine.take(PlannedUnit(unit_of(step=step), "to do")) for step in range(3)], flush=True)
    time.sleep(300)
"""


def planned(step: int = 0, state: str = "to do") -> PlannedUnit:
    return PlannedUnit(unit_of(step=step), state)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@contextmanager
def reserving(store: Store) -> Iterator[Reservations]:
    store.folder.mkdir(exist_ok=True)
    with Heartbeat(store.folder) as heartbeat, Reservations(store, heartbeat) as reservations:
        yield reservations


def links(store: Store) -> list[str]:
    return sorted(path.name for path in (store.folder / ".running").glob("*") if path.suffix != SUFFIX)


def test_of_many_that_want_a_unit_at_once_one_gets_it(store: Store):
    sweeps, taken = 8, dict[int, list[int]]()
    start = threading.Barrier(sweeps)

    def sweep(number: int) -> None:
        with reserving(store) as mine:
            start.wait()
            taken[number] = [step for step in range(40) if mine.take(planned(step)) == "mine"]
            start.wait()

    threads = [threading.Thread(target=sweep, args=[number]) for number in range(sweeps)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(step for steps in taken.values() for step in steps) == list(range(40))
    assert not (store.folder / ".running").exists()


def test_a_unit_is_free_again_when_it_is_released_and_recorded_when_it_is_recorded(store: Store):
    with reserving(store) as one, reserving(store) as other:
        assert one.take(planned()) == "mine"
        assert other.take(planned()) == "elsewhere"
        one.release(planned())
        assert other.take(planned()) == "mine"
        store.write(planned().unit, measurement_of(planned().unit))
        other.release(planned())
        found = one.take(planned())
    assert isinstance(found, Recorded)
    assert found.status == "ok"


def test_a_unit_to_be_measured_again_counts_as_recorded_only_when_its_record_is_new(store: Store):
    unit = planned(state="retry").unit
    store.write(unit, measurement_of(unit))
    old = store.place(unit)
    for days in (-5, 5):  # a store that was copied, or a clock that was wrong: only what is another counts
        os.utime(old, (old.stat().st_atime, old.stat().st_mtime + days * 86400))
        again = replace(planned(state="retry"), seen=store.recorded()[unit.id].stamp)
        with reserving(store) as one, reserving(store) as other:
            assert one.take(again) == "mine"
            store.write(unit, measurement_of(unit), replace=True)
            one.release(again)
            assert isinstance(other.take(again), Recorded)


def test_what_a_killed_process_held_is_free_at_once(store: Store):
    here = str(Path(__file__).parent)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([here, str(Path(here).parent)])}
    command = [sys.executable, "-c", TAKER, str(store.folder)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().count("mine") == 3
        with reserving(store) as mine:
            assert mine.take(planned(0)) == "elsewhere"
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert mine.take(planned(0)) == "mine"
            assert len(links(store)) == 4, "its three, and ours as the next of one of them"
    with reserving(store):
        assert links(store) == [], "who comes next clears up"


def test_another_machines_heartbeat_counts_until_it_is_old(store: Store):
    with reserving(store) as mine, reserving(store) as theirs:
        content = json.loads(theirs.heartbeat.path.read_text())
        theirs.heartbeat.path.write_text(json.dumps(content | {"machine": "another", "pid": 1}))
        assert theirs.take(planned()) == "mine"
        assert mine.take(planned()) == "elsewhere"
        now = mine.heartbeat.path.stat().st_mtime
        os.utime(theirs.heartbeat.path, (now, now - STALE_SECONDS - 1))
        assert mine.take(planned()) == "mine"
        theirs.release(planned())  # it had only stood still: what was taken over stays taken
        with reserving(store) as third:
            assert third.take(planned()) == "elsewhere"


def test_one_that_stood_still_until_others_cleared_up_goes_on(store: Store):
    with reserving(store) as mine:
        mine.heartbeat.path.unlink()
        assert mine.take(planned()) == "mine"


def test_without_hard_links_every_unit_is_measured(store: Store, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    with reserving(store) as one, reserving(store) as other:
        assert one.take(planned()) == other.take(planned()) == "mine"


def test_a_sweep_begins_while_another_removes_the_folder_as_it_ends(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    made, ends = os.mkdir, 3

    def made_and_gone(path: Path, *rest: int) -> None:
        nonlocal ends
        made(path, *rest)
        if ends:
            ends -= 1
            os.rmdir(path)

    monkeypatch.setattr(os, "mkdir", made_and_gone)
    with reserving(store) as mine:
        assert mine.take(planned()) == "mine"


def test_a_disk_that_breaks_is_no_second_error_when_reservations_are_given_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    with reserving(store) as mine:
        assert mine.take(planned()) == mine.take(planned(1)) == "mine"
        monkeypatch.setattr(os, "unlink", refuse)
        mine.release(planned())
    assert len(links(store)) == 2, "nothing was raised, whatever stands is dead with its process"


def test_what_a_sweep_reports_is_written_into_the_file_that_its_reservations_link_to(store: Store):
    with reserving(store) as mine:
        assert mine.take(planned()) == "mine"
        for doing in ("measuring " * 50, "done"):  # a shorter text leaves nothing of a longer one
            mine.heartbeat.report(doing=doing)
            while (read_heartbeat(mine.heartbeat.path)[0] or {}).get("doing") != doing:
                time.sleep(0.02)
        (link,) = [path for path in mine.heartbeat.folder.iterdir() if path.suffix != SUFFIX]
        assert os.path.samefile(link, mine.heartbeat.path)
        assert json.loads(link.read_text())["doing"] == "done"


@pytest.mark.parametrize(
    "content",
    [b"[" * 200_000, b"\xff\x00", b"", b"3", b'{"doing": 3}', b'{"doing": "x", "bars": [{}], "since": 1}',
     b'{"doing": "x", "bars": [], "since": "y"}', b'{"machine": [1], "pid": {}, "started": []}'],
)  # fmt: skip
def test_a_damaged_heartbeat_stops_nobody(store: Store, content: bytes):
    store.folder.joinpath(".running").mkdir(parents=True, exist_ok=True)
    damaged = store.folder / ".running" / f"{'0' * 32}{SUFFIX}"
    damaged.write_bytes(content)
    os.link(damaged, damaged.with_name(f"{'1' * 20}.0"))
    with reserving(store) as mine:
        assert mine.take(planned()) == "mine"
        mine.heartbeat.report(doing="measuring", bars=[])
        while not (found := Watch(store.folder).look()):
            time.sleep(0.02)
    assert [each["doing"] for each in found] == ["measuring"]


def test_a_report_that_could_not_be_written_is_written_with_the_next_beat(store: Store, monkeypatch):
    refused = threading.Event()

    def refuse(path: Path, *_: object) -> None:
        refused.set()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with reserving(store) as mine:
        monkeypatch.setattr("tracker.store.heartbeat.open", refuse, raising=False)
        mine.heartbeat.report(doing="measuring")
        assert refused.wait(10)
        monkeypatch.undo()
        deadline = time.monotonic() + 10
        while (read_heartbeat(mine.heartbeat.path)[0] or {}).get("doing") != "measuring":
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_retried_unit_that_another_sweep_has_recorded_since_the_plan_is_not_measured_again(store: Store):
    store.write(unit_of(), measurement_of(unit_of()))
    again = replace(planned(state="retry"), seen=store.recorded()[unit_of().id].stamp)
    store.write(unit_of(), measurement_of(unit_of(), 2.0), replace=True)
    with reserving(store) as mine:
        assert isinstance(mine.take(again), Recorded)


def test_whoever_waits_for_checkpoints_of_a_cache_that_was_stopped_is_let_go(tmp_path: Path):
    cache = CheckpointCache(tmp_path, None)
    cache.stop.set()
    taken: list[object] = []
    with Prefetch([planned()], cache) as supply:
        waiting = threading.Thread(target=lambda: taken.append(supply.take()), daemon=True)
        waiting.start()
        waiting.join(10)
    assert taken == [None]
