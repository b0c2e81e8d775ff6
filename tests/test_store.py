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
from tracker.store import (
    SCHEMAS,
    TABLES,
    DamagedRecord,
    Store,
    conform,
    load_record,
    open_store,
    record_files,
    safe_name,
    writer,
)
from tracker.store.record_files import load_records, write_files

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


@pytest.fixture(params=["in one step", "in two"])
def exchanged(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records are replaced as on file systems that exchange two folders in one step, or as on others."""
    if request.param == "in two":
        monkeypatch.setattr("tracker.store.writer.exchange", lambda *_: False)


def renamed_with(monkeypatch: pytest.MonkeyPatch, before: Callable[[Path, Path], None]) -> None:
    """Has ``before`` called in front of every rename of a folder, and of every exchange of two."""
    rename, swap = os.rename, writer.exchange

    def swap_with_it(one: Path, other: Path) -> bool:
        before(other, one)
        return swap(one, other)

    monkeypatch.setattr(writer, "exchange", swap_with_it)

    def with_it(source: Path, target: Path) -> None:
        before(Path(source), Path(target))
        rename(source, target)

    monkeypatch.setattr(os, "rename", with_it)


@pytest.mark.usefixtures("exchanged")
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
    monkeypatch.setattr(writer, "exchange", lambda *_: False)
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
    assert store.recorded().damaged[0].place == path.parent
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


REPLACER = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_store import unit_of, measurement_of
from tracker.store import Store, writer
store, moves = Store(Path(sys.argv[1])), int(sys.argv[3])
def killed(call):
    def after(*arguments):
        global moves
        found = call(*arguments)
        moves -= 1
        if not moves:
            os._exit(9)
        return found
    return after
Path.rename = killed(Path.rename)
writer.exchange = killed(writer.exchange) if sys.argv[4] == "in one step" else lambda *_: False
store.write(unit_of(), measurement_of(unit_of(), 2.0), replace=True)
"""


@pytest.mark.parametrize("way", ["in one step", "in two"])
@pytest.mark.parametrize("moves", [1, 2, 3])
def test_a_replacement_killed_after_any_of_its_moves_loses_no_result(tmp_path: Path, moves: int, way: str):
    store, unit = Store(tmp_path), unit_of()
    store.write(unit, measurement_of(unit, 1.0))
    here = str(Path(__file__).parent)
    arguments = [str(tmp_path), here, str(moves), way]
    subprocess.run([sys.executable, "-c", REPLACER, *arguments], check=False)
    if way == "in one step":
        assert store.recorded()[unit.id].status == "ok", "at no moment is there no result"
    store.sweep_partial()
    assert open_store(tmp_path).heads()["spectral_entropy"][0] in (1.0, 2.0)
    assert list((tmp_path / ".partial").iterdir()) == [], "what a dead process left goes at once"


@pytest.mark.parametrize("days", [-2, 2])
def test_what_another_machine_left_goes_by_the_file_servers_clock_also_from_the_future(
    tmp_path: Path, days: int
):
    store = Store(tmp_path)
    for name, age in (("elsewhere-1-2.left", days * 86400), ("elsewhere-1-2.new", 0)):
        folder = tmp_path / ".partial" / name
        folder.mkdir(parents=True)
        now = folder.stat().st_mtime
        os.utime(folder, (now, now + age))
    store.sweep_partial()
    assert [path.name for path in (tmp_path / ".partial").iterdir()] == ["elsewhere-1-2.new"]


@pytest.mark.parametrize("name", ["a[b]", "a*", "a?b", "a{b,c}", "%41", "~", " a "])
def test_a_store_reads_back_whatever_its_folder_is_called(tmp_path: Path, name: str):
    store, unit = Store(tmp_path / name), unit_of()
    store.write(unit, measurement_of(unit))
    assert store.recorded()[unit.id].status == "ok"
    results = open_store(store.folder)
    assert results.heads(["spectral_entropy"]).height == 2
    assert results.registry is not None
    pytest.importorskip("duckdb")
    assert results.to_duckdb().sql("select count(*) from heads").fetchall() == [(2,)]


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("table", ["heads", "layers", "sequences", "checkpoint"])
def test_one_flipped_bit_anywhere_in_a_record_is_named_and_the_rest_goes_on(tmp_path: Path, table: str):
    store, units = Store(tmp_path), [unit_of(step) for step in range(2)]
    for unit in units:
        store.write(unit, measurement_of(unit))
    path = store.place(units[0]) / f"{table}.parquet"
    whole = path.read_bytes()
    for place in range(0, len(whole), 997):
        flip(path, place)
        (damaged,) = store.recorded().damaged
        expected = f"{path.parent}: {table}.parquet is not what was written (see SHA256SUMS)"
        assert str(damaged) == f"{expected}; left out; `tracker sweep` measures it again"
        path.write_bytes(whole)
    flip(path, len(whole) // 2)
    with pytest.warns(UserWarning, match=r"step-0.*is not what was written"):
        results = open_store(tmp_path)
    assert results.checkpoints()["step"].to_list() == [1]
    assert str(results).endswith("1 measured checkpoints of 1 runs, 0 not measured, 1 damaged")
    assert store.write(units[0], measurement_of(units[0]))
    assert store.recorded().damaged == []


def test_damaged_sums_and_lost_tables_are_damage_too_and_every_record_damaged_is_an_error(tmp_path: Path):
    store, unit = Store(tmp_path), unit_of()
    store.write(unit, measurement_of(unit))
    place = store.place(unit)
    flip(place / "SHA256SUMS", 3)
    with pytest.raises(StoreError, match=r"step-0\.\w+: heads\.parquet is not what was written"):
        open_store(tmp_path)
    store.write(unit, measurement_of(unit))
    (place / "layers.parquet").unlink()
    (damaged,) = store.recorded().damaged
    assert damaged.why == "layers.parquet: No such file or directory"
    assert damaged.as_hole() == {
        "suite": "suite", "model": "m", "seed": 0, "step": 0, "status": "damaged", "reason": damaged.why
    }  # fmt: skip


def test_a_record_without_sums_reads_and_shows_what_its_tables_contradict(tmp_path: Path):
    store, unit = Store(tmp_path), unit_of()
    store.write(unit, measurement_of(unit))
    place = store.place(unit)
    (place / "SHA256SUMS").unlink()
    assert store.recorded()[unit.id].status == "ok"
    heads = pl.read_parquet(place / "heads.parquet")
    for column, value, why in (
        ("step", pl.lit(3, pl.Int64), "heads.parquet is of another step than checkpoint.parquet"),
        ("spectral_entropy", pl.lit("x"), "heads.parquet has no valid column spectral_entropy"),
    ):
        heads.with_columns(value.alias(column)).write_parquet(place / "heads.parquet")
        assert [each.why for each in store.recorded().damaged] == [why]
    heads.write_parquet(place / "heads.parquet")
    place.rename(place.with_name(place.name.replace("step-0", "step-7")))
    (damaged,) = store.recorded().damaged
    assert damaged.why == "checkpoint.parquet is of another checkpoint than its folder's name says"


def test_records_are_read_together_as_they_are_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = Store(tmp_path)
    units = [unit_of(step) for step in range(9)]
    for unit in units:
        store.write(unit, measurement_of(unit, unit.checkpoint.step))
    places = [store.place(unit) for unit in units]
    whole = [load_record(place) for place in places]
    with monkeypatch.context() as alone:
        alone.delattr(record_files, "_loaded")
        assert list(load_records(places)) == whole
    assert [getattr(each, "stamp", None) for each in load_records(places)] == [each.stamp for each in whole]
    (places[1] / "SHA256SUMS").unlink()  # of an earlier version
    places[2].rename(tmp_path / "elsewhere")
    _rewrite(places[3], pl.read_parquet(places[3] / "checkpoint.parquet").clear())
    _rewrite(places[4], pl.concat([pl.read_parquet(places[4] / "checkpoint.parquet")] * 2))
    _rewrite(places[5], pl.read_parquet(places[0] / "checkpoint.parquet"))
    flip(places[6] / "heads.parquet", 99)
    found = list(load_records(places))
    assert [found[i] for i in (0, 1, 7, 8)] == [whole[i] for i in (0, 1, 7, 8)]
    assert found[2] is None
    assert [getattr(found[i], "why", "") for i in (3, 4, 5, 6)] == [
        "checkpoint.parquet has 0 rows for 1",
        "checkpoint.parquet has 2 rows for 1",
        "checkpoint.parquet is of another checkpoint than its folder's name says",
        "heads.parquet is not what was written (see SHA256SUMS)",
    ]


def _rewrite(place: Path, checkpoint: pl.DataFrame) -> None:
    """Puts another table in a record, with sums that hold."""
    tables = {table: pl.read_parquet(place / f"{table}.parquet") for table in TABLES}
    write_files(place, tables | {"checkpoint": checkpoint})


def test_tables_damaged_after_the_store_was_opened_are_named(tmp_path: Path):
    store, unit = Store(tmp_path), unit_of()
    store.write(unit, measurement_of(unit))
    results = open_store(tmp_path)
    path = store.place(unit) / "heads.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DamagedRecord, match=r"step-0\.\w+: heads\.parquet"):
        results.heads()
