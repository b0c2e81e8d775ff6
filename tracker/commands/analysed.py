"""The analysis of a store as commands need it: kept in analysis.json, made again where anything differs."""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tracker.atomic import read_json
from tracker.checkpoints.audit import file as audit_file
from tracker.commands.results import assumption_limits, without_suspects, write_report
from tracker.config import PACKAGE, Config
from tracker.records import digest
from tracker.store import Results
from tracker.store.journal import live_alerts
from tracker.store.record_files import SUMS

TABLES = ("checkpoint", "sequences", "heads")
"""Tables of a record that an analysis reads."""
CODE = ("analysis", "facts", "metrics/registry.py", "metrics/table.py")
"""What of the package an analysis depends on."""
KINDS = (".py", ".csv", ".json", ".yaml")


def analysed(results: Results, config: Config) -> dict[str, Any]:
    """Return the content of analysis.json, which is made and written unless it holds for these results.

    Raises:
        StoreError: a table cannot be read, or the file cannot be written.
    """
    made_of = _made_of(results, config)
    path = config.store / "analysis.json"
    report = _kept(path, made_of)
    if report is None:
        report = _analyse(results, config) | {"made_of": made_of}
        write_report(path, report)
    return report


def _kept(path: Path, made_of: str) -> dict[str, Any] | None:
    """The stored analysis where it was made of the same rows, settings and code."""
    try:
        report = read_json(path)
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) and report.get("made_of") == made_of else None


def _made_of(results: Results, config: Config) -> str:
    settings = {
        "suspects": config.view.suspects,
        "limits": asdict(assumption_limits(config)),
        "conventions": asdict(config.conventions),
        "live": live_alerts(config.store),
        "damaged": [str(each) for each in results.damaged],
    }
    code = sorted(path for place in CODE for path in _files(PACKAGE / place))
    rows = [path for place in results.records for path in _rows(place)]
    return f"{_content([*code, results.folder / audit_file.NAME, *rows])}-{digest(settings)}"


def _rows(place: Path) -> list[Path]:
    """The sums of a record, which were compared with its tables when it was opened; else the tables."""
    sums = place / SUMS
    return [sums] if sums.is_file() else [place / f"{table}.parquet" for table in TABLES]


def _files(place: Path) -> Iterable[Path]:
    return [path for path in place.rglob("*") if path.suffix in KINDS] if place.is_dir() else [place]


def _content(paths: Iterable[Path]) -> str:
    """A digest of what files hold, wherever they lie; one that is missing counts as empty."""
    whole = hashlib.blake2b(digest_size=8)
    for path in paths:
        try:
            content = path.read_bytes()
        except OSError:
            content = b""
        whole.update(f"{path.name} {len(content)}\n".encode())
        whole.update(content)
    return whole.hexdigest()


def _analyse(results: Results, config: Config) -> dict[str, Any]:
    from tracker.analysis import analyse
    from tracker.analysis.assumptions import alerts_of, break_conditions
    from tracker.analysis.context import HEAD_COLUMNS
    from tracker.analysis.roles import COLUMNS, head_roles

    checkpoints, suspects = without_suspects(results, config)
    heads = results.heads(HEAD_COLUMNS)
    found = analyse(results.checkpoints(), results.sequences(), heads, suspects=suspects)
    alerts = alerts_of(break_conditions(checkpoints, found.phases, assumption_limits(config)))
    roles = head_roles(results.heads(COLUMNS), checkpoints, config.conventions)
    damaged = tuple(map(str, results.damaged))
    report = replace(found, alerts=alerts, roles=tuple(roles), damaged=damaged).to_dict()
    report["alerts"] += live_alerts(config.store, found.probe, found.conventions)
    return report
