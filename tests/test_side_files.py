"""Files beside the records, damaged one value at a time: no reader of them breaks, and each is named."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from synthetic_store import SMALL, SMALL_STEPS, synthetic_analysis, write_audit, write_store

from tracker.checkpoints.audit import file as audit_file
from tracker.metrics.registry import read_descriptions
from tracker.planning.estimate import note_transfer, transfer_rate
from tracker.side_files import read_typed
from tracker.store import open_store
from tracker.store.journal import Journal, live_alerts
from tracker.views.data import dashboard_data
from tracker.wandb_sink.findings import Findings, read_analysis
from tracker.wandb_sink.identity import RunIdentity

WRONG: tuple[Any, ...] = (None, 3, -1.5, "x", True, [], {}, [None], {"x": 1}, [[[]]], "1e999")
DEEP = "[" * 100_000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with every side file."""
    folder = write_store(tmp_path_factory.mktemp("side"), steps=SMALL_STEPS)
    write_audit(folder, SMALL[0], 1)
    note_transfer(folder, 1000, 2.0)
    alert = {"condition": "loss", "steps": [4], "level": "WARN", "sentence": "0.2m seed 0: loss rises"}
    row = open_store(folder).checkpoints().row(0, named=True)
    names = {name: row[name] for name in ("suite", "model", "seed", "probe", "conventions")}
    Journal(**names, alerts=[alert], skipped=[{"step": 1, "reason": "no time"}]).save(folder)
    report = synthetic_analysis(steps=SMALL_STEPS) | {"alerts": [alert | names]}
    (folder / "analysis.json").write_text(json.dumps(report))
    own = {"name": "mine", "columns": ["mine"], "low": "-inf", "high": "inf"}
    (folder / "metrics.json").write_text(json.dumps({row["conventions"]: [own]}))
    return folder


def read_all(folder: Path) -> None:
    """Read every side file as the commands do."""
    audit_file.suspects(folder)
    live_alerts(folder)
    transfer_rate(folder)
    read_descriptions(folder)
    analysis = read_analysis(folder)
    checkpoints = open_store(folder).checkpoints()
    columns = ("suite", "model", "seed", "probe", "conventions")
    for identity in {RunIdentity(*row) for row in checkpoints.select(columns).iter_rows()}:
        Findings(analysis).summary(identity)
        Findings(analysis).alerts(identity)


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a JSON value."""
    yield path
    items = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    )
    for key, each in items:
        yield from places(each, (*path, key))


def put(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The content with another value at a place; an ellipsis takes it out."""
    if not path:
        return value
    changed = json.loads(json.dumps(content))
    at = changed
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return changed


def damaged(whole: str, count: int) -> Iterator[str]:
    """Texts of a file with one thing wrong with it."""
    content, rng = json.loads(whole), random.Random(0)
    yield from (whole[: len(whole) // 2], "", DEEP, '{"repos": ' + DEEP, "\0" * 99)
    everywhere = list(places(content))
    for _ in range(count):
        yield json.dumps(put(content, rng.choice(everywhere), rng.choice(WRONG)))


@pytest.mark.parametrize("name", ["audit.json", "rates.json", "metrics.json", "live", "analysis.json"])
@pytest.mark.parametrize("count", [15, pytest.param(500, marks=pytest.mark.slow)])
def test_no_reader_breaks_on_a_side_file_with_one_wrong_value(store: Path, name: str, count: int):
    path = next((store / "live").glob("*.json")) if name == "live" else store / name
    whole = path.read_text()
    results = open_store(store)
    try:
        for text in damaged(whole, count):
            path.write_text(text)
            read_all(store)
            if name in ("analysis.json", "audit.json"):
                dashboard_data(results, read_typed(store / "analysis.json", dict[str, Any], {}), served=True)
    finally:
        path.write_text(whole)


MAKERS: dict[str, Callable[[Path], object]] = {
    "rates.json": lambda folder: note_transfer(folder, 10, 1.0),
    "audit.json": lambda folder: audit_file.record(folder, lambda _: [audit_file.RepoAudit("r", (1,), ())]),
    "live/s.m.seed-0.json": lambda folder: Journal("s", "m", 0, "p", "c").resumed(folder, 9).save(folder),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_damaged_file_is_named_set_aside_and_made_again(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"repos": 3, "here": []}')
    read_all_alone = {"rates.json": transfer_rate, "audit.json": audit_file.suspects}.get(name, live_alerts)
    read_all_alone(tmp_path)
    assert f"{path} cannot be used and counts as absent" in caplog.text
    caplog.clear()
    MAKERS[name](tmp_path)
    assert f"{path} is made again; what it held is in {path.name}.damaged" in caplog.text
    assert (path.parent / f"{path.name}.damaged").read_text() == '{"repos": 3, "here": []}'
    caplog.clear()
    read_all_alone(tmp_path)
    assert caplog.text == ""


def test_alerts_that_are_null_are_none(store: Path, tmp_path: Path):
    """Earlier versions wrote ``null`` where there was no alert."""
    (tmp_path / "analysis.json").write_text('{"alerts": null, "phases": null}')
    assert read_analysis(tmp_path)["alerts"] == []
    data = dashboard_data(open_store(store), {"alerts": None, "phases": None}, served=True)
    assert (data["alerts"], data["phases"]) == ([], [])
