import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from tracker.errors import RequestError, StoreError
from tracker.records import Checkpoint, Conventions, Measurement, ProbeSpec, Unit
from tracker.store import SCHEMAS, Store, conform, open_store, safe_name

PROBE = ProbeSpec("default", "0" * 64, n=96, number=2)
CONVENTIONS = Conventions()


def unit_of(
    step: int = 0,
    model: str = "m",
    probe: ProbeSpec = PROBE,
    conventions: Conventions = CONVENTIONS,
    location: str = "org/repo",
) -> Unit:
    checkpoint = Checkpoint("suite", model, 0, step, "hub", location, f"step{step}")
    return Unit(checkpoint, probe, conventions)


def measurement_of(unit: Unit, value: float = 1.0) -> Measurement:
    identity = unit.identity("ok")
    heads = pl.DataFrame([identity | {"layer": 0, "head": h, "spectral_entropy": value} for h in range(2)])
    layers = pl.DataFrame([identity | {"layer": 0, "frame_ratio": 0.5}])
    sequences = pl.DataFrame([identity | {"sequence": s, "loss": float("nan")} for s in range(2)])
    row = {"key": unit.key, "spectral_entropy": value, "repo": unit.checkpoint.location, "dtype": "float32"}
    return Measurement(heads, layers, sequences, pl.DataFrame([identity | row]))


def test_a_record_reads_back_typed_with_nulls_for_what_is_not_there(tmp_path: Path):
    unit = unit_of()
    assert Store(tmp_path).write(unit, measurement_of(unit))
    results = open_store(tmp_path)
    for table, frame in (
        ("heads", results.heads()),
        ("layers", results.layers()),
        ("sequences", results.sequences()),
        ("checkpoint", results.checkpoints()),
    ):
        assert dict(frame.schema) == SCHEMAS[table]
    assert results.heads()["spectral_entropy"].to_list() == [1.0, 1.0]
    assert results.sequences()["loss"].to_list() == [None, None]
    assert results.heads(["layer", "head"]).columns == ["layer", "head"]


def test_other_libraries_read_the_store_without_us(tmp_path: Path):
    unit = unit_of()
    Store(tmp_path).write(unit, measurement_of(unit))
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    place = Store(tmp_path).place(unit)
    assert pandas.read_parquet(place / "heads.parquet").shape[0] == 2
    assert "=" not in str(place.relative_to(tmp_path))


def test_the_first_ok_record_stands_and_replace_puts_another_in_its_place(tmp_path: Path):
    store, unit = Store(tmp_path), unit_of()
    assert store.write(unit, measurement_of(unit, 1.0))
    assert not store.write(unit, measurement_of(unit, 2.0))
    assert open_store(tmp_path).heads()["spectral_entropy"][0] == 1.0
    assert store.write(unit, measurement_of(unit, 3.0), replace=True)
    assert open_store(tmp_path).heads()["spectral_entropy"][0] == 3.0
    assert list((tmp_path / ".partial").iterdir()) == []


def test_a_hole_is_recorded_with_its_reason_and_gives_way_to_a_measurement(tmp_path: Path):
    store, unit = Store(tmp_path), unit_of()
    store.write_hole(unit, "failed", "shard 2 is truncated")
    record = store.recorded()[unit.id]
    assert (record.status, record.reason) == ("failed", "shard 2 is truncated")
    assert open_store(tmp_path).heads().height == 0
    assert store.write(unit, measurement_of(unit))
    assert store.recorded()[unit.id].status == "ok"
    store.write_hole(unit, "failed", "too late")
    assert store.recorded()[unit.id].status == "ok"


def test_a_record_stands_where_folders_cannot_be_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    flush = os.fsync

    def of_files_alone(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", of_files_alone)
    store, unit = Store(tmp_path), unit_of()
    store.write_hole(unit, "failed", "for now")
    assert store.write(unit, measurement_of(unit, 1.0))
    assert store.write(unit, measurement_of(unit, 2.0), replace=True)
    assert open_store(tmp_path).heads()["spectral_entropy"][0] == 2.0


def renamed_with(monkeypatch: pytest.MonkeyPatch, before: Callable[[Path, Path], None]) -> None:
    """Has ``before`` called in front of every rename of a folder."""
    rename = os.rename

    def with_it(source: Path, target: Path) -> None:
        before(Path(source), Path(target))
        rename(source, target)

    monkeypatch.setattr(os, "rename", with_it)


def test_a_hole_does_not_take_the_place_of_a_record_that_arrives_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store, unit = Store(tmp_path), unit_of()
    store.write_hole(unit, "failed", "first")
    late = True

    def another_worker(source: Path, _: Path) -> None:
        nonlocal late
        if late and source == store.place(unit):
            late = False
            assert store.write(unit, measurement_of(unit))

    renamed_with(monkeypatch, another_worker)
    store.write_hole(unit, "failed", "second")
    assert not late
    assert store.recorded()[unit.id].status == "ok"
    assert list((tmp_path / ".partial").iterdir()) == []


def test_what_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store, unit = Store(tmp_path), unit_of()
    store.write(unit, measurement_of(unit, 1.0))
    broken = True

    def break_once(source: Path, target: Path) -> None:
        nonlocal broken
        if broken and target == store.place(unit) and not target.exists():
            broken = False
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    renamed_with(monkeypatch, break_once)
    with pytest.raises(StoreError, match="Input/output error"):
        store.write(unit, measurement_of(unit, 2.0), replace=True)
    assert open_store(tmp_path).heads()["spectral_entropy"][0] == 1.0


@pytest.mark.parametrize("table", ["heads", "layers", "sequences", "checkpoint"])
def test_a_record_that_does_not_read_back_is_not_done_and_is_replaced(tmp_path: Path, table: str):
    store, unit = Store(tmp_path), unit_of()
    store.write(unit, measurement_of(unit))
    path = store.place(unit) / f"{table}.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    assert store.recorded() == {}
    assert store.write(unit, measurement_of(unit, 2.0))
    assert open_store(tmp_path).heads()["spectral_entropy"][0] == 2.0


def test_several_probes_or_conventions_must_be_chosen_between(tmp_path: Path):
    store = Store(tmp_path)
    units = [unit_of(), unit_of(probe=replace(PROBE, n=64)), unit_of(conventions=Conventions(wavelet="db4"))]
    for unit in units:
        store.write(unit, measurement_of(unit))
    with pytest.raises(RequestError, match="several probes, which are never mixed"):
        open_store(tmp_path)
    with pytest.raises(RequestError, match="several conventions, which are never mixed"):
        open_store(tmp_path, probe=PROBE.label)
    chosen = open_store(tmp_path, probe=PROBE.label, conventions=Conventions().label)
    assert chosen.checkpoints()["key"].to_list() == [units[0].key]
    with pytest.raises(RequestError, match=r"probe=other: not in store .*; choose from default-2x"):
        open_store(tmp_path, probe="other")


def test_no_store_is_one_clear_line(tmp_path: Path):
    with pytest.raises(RequestError, match="holds no measurements; create some with `tracker sweep store="):
        open_store(tmp_path / "nowhere")


def test_one_checkpoint_from_two_places_is_refused(tmp_path: Path):
    store = Store(tmp_path)
    for location in ("org/a", "org/b"):
        unit = unit_of(location=location)
        store.write(unit, measurement_of(unit))
    with pytest.raises(StoreError, match=r"m seed 0 step 0 of suite suite is recorded twice: from org/[ab]"):
        open_store(tmp_path)


def test_an_unknown_column_is_an_error():
    with pytest.raises(StoreError, match="table layers has no column spectral_entrpy"):
        conform("layers", pl.DataFrame({"spectral_entrpy": [1.0]}))


def test_a_store_that_cannot_be_written_says_why(tmp_path: Path):
    (tmp_path / "file").write_text("")
    unit = unit_of()
    with pytest.raises(StoreError, match=r"cannot write m seed 0 step 0 to .*; free or change store=DIR"):
        Store(tmp_path / "file").write(unit, measurement_of(unit))


@pytest.mark.parametrize("name", ["../../etc", "..", ".", "a/b", "a=b", "<script>", "\x00"])
def test_names_never_leave_the_store(tmp_path: Path, name: str):
    place = Store(tmp_path).place(unit_of(model=name)).relative_to(tmp_path)
    assert len(place.parts) == 5
    assert ".." not in place.parts
    assert "=" not in safe_name(name)


def test_the_key_is_known_before_anything_is_fetched_and_tells_ways_of_measuring_apart():
    key = unit_of().key
    assert len(key) == 12
    assert key == unit_of().key
    others = {
        unit_of(1).key,
        unit_of(location="org/x").key,
        unit_of(probe=replace(PROBE, seed=1)).key,
        unit_of(conventions=Conventions(n_fft=256)).key,
        replace(unit_of(), dtype="bfloat16").key,
    }
    assert len(others | {key}) == 6
    pinned = replace(unit_of(), checkpoint=replace(unit_of().checkpoint, commit="abc"))
    assert pinned.key == key


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_store import unit_of, measurement_of
from tracker.store import Store
store = Store(Path(sys.argv[1]))
print("ready", flush=True)
for step in range(10_000):
    store.write(unit_of(step), measurement_of(unit_of(step)))
"""


def test_a_killed_writer_leaves_whole_records_only(tmp_path: Path):
    command = [sys.executable, "-c", WRITER, str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        while len(list(tmp_path.glob("checkpoints/*/*/*/*"))) < 20:
            assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
    folders = list(tmp_path.glob("checkpoints/*/*/*/*"))
    assert len(Store(tmp_path).recorded()) == len(folders) >= 20


FULL = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_store import unit_of, measurement_of
from tracker.errors import StoreError
from tracker.store import Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    Store(Path(sys.argv[1])).write(unit_of(), measurement_of(unit_of()))
except StoreError as error:
    print(error)
"""


def test_a_full_disk_is_one_clear_error_and_leaves_no_record(tmp_path: Path):
    command = [sys.executable, "-c", FULL, str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "cannot write m seed 0 step 0 to" in done.stdout
    assert Store(tmp_path).recorded() == {}


def test_a_ledger_reads_each_record_once(tmp_path: Path):
    store = Store(tmp_path)
    units = [unit_of(step) for step in range(3)]
    for unit in units[:2]:
        store.write(unit, measurement_of(unit))
    ledger = store.recorded()
    assert set(ledger) == {unit.id for unit in units[:2]}
    unread = store.place(units[0]) / "checkpoint.parquet"
    unread.rename(unread.with_suffix(".away"))  # what is known is not read again ...
    os.utime(unread.parent, ns=(0, ledger.entries[unread.parent][0][1]))
    store.write_hole(units[2], "failed", "later")
    store.write(units[1], measurement_of(units[1], 2.0), replace=True)
    later = ledger.refreshed()
    assert [later[unit.id].status for unit in units] == ["ok", "ok", "failed"]
    assert later[units[0].id] is ledger[units[0].id]
    assert later[units[1].id] is not ledger[units[1].id]  # ... what was replaced is
    assert units[2].id not in ledger
    unread.with_suffix(".away").rename(unread)
    assert open_store(tmp_path, ledger=ledger).checkpoints().height == 3


def test_a_result_whose_replacement_was_killed_goes_back_to_its_place(tmp_path: Path):
    store, unit = Store(tmp_path), unit_of(4)
    store.write(unit, measurement_of(unit))
    retired = tmp_path / ".partial" / "retired.1"
    retired.parent.mkdir(exist_ok=True)
    store.place(unit).rename(retired)
    store.sweep_partial()
    assert store.recorded()[unit.id].status == "ok"
    assert not retired.exists()
