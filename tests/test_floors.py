"""Imports go down the floors: a module knows lower floors, its own folder, and what is listed here."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "tracker"
FLOORS = {
    "errors": 0,
    "records": 0,
    "saving": 0,
    "columns": 0,
    "facts": 0,
    "extension": 0,
    "metrics": 1,
    "lanes": 1,
    "allocator": 0,
    "surroundings": 0,
    "analysis": 1,
    "config": 2,
    "shards": 1,
    "simulation": 1,
    "plan": 2,
    "checkpoints": 2,
    "models": 2,
    "probes": 2,
    "nano": 2,
    "store": 2,
    "running": 2,
    "refinement": 3,
    "comparison": 3,
    "head_reporting": 5,
    "driver_reporting": 5,
    "survey": 3,
    "surveyed_model": 3,
    "auditing": 3,
    "measure": 3,
    "values": 2,
    "given_model": 3,
    "exchange": 1,
    "face": 4,
    "journal": 3,
    "forecast": 3,
    "sinks": 3,
    "views": 3,
    "engines": 4,
    "validate": 4,
    "live": 4,
    "console": 5,
    "encoding_table": 5,
    "inspection": 5,
    "measuring": 5,
    "terminal_chart": 5,
    "reporting": 5,
    "verbs": 5,
    "cli": 5,
    "notebook": 5,
    "__main__": 5,
    "__init__": 5,
}
SIDEWAYS = {
    ("records", "errors"),
    ("extension", "errors"),
    ("extension", "columns"),
    ("extension", "saving"),
    ("facts", "errors"),
    ("plan", "config"),
    ("survey", "refinement"),
    ("surveyed_model", "survey"),
    ("sinks", "journal"),
    ("nano", "probes"),
    ("nano", "checkpoints"),
    ("nano", "models"),
    ("models", "checkpoints"),
    ("inspection", "console"),
    ("verbs", "inspection"),
    ("verbs", "measuring"),
    ("measuring", "inspection"),
    ("verbs", "console"),
    ("verbs", "reporting"),
    ("reporting", "console"),
    ("head_reporting", "console"),
    ("head_reporting", "reporting"),
    ("head_reporting", "measuring"),
    ("head_reporting", "inspection"),
    ("verbs", "head_reporting"),
    ("driver_reporting", "console"),
    ("driver_reporting", "reporting"),
    ("verbs", "driver_reporting"),
    ("reporting", "encoding_table"),
    ("reporting", "terminal_chart"),
    ("cli", "console"),
    ("cli", "verbs"),
    ("__main__", "cli"),
    ("__init__", "notebook"),
}
FORBIDDEN = {
    "torch": {
        "errors",
        "records",
        "columns",
        "facts",
        "analysis",
        "config",
        "plan",
        "store",
        "sinks",
        "views",
        "survey",
        "refinement",
        "comparison",
    },
    "hydra": set(FLOORS) - {"cli"},
    "omegaconf": set(FLOORS) - {"cli", "config"},
    "wandb": set(FLOORS) - {"sinks"},
    "distributed": set(FLOORS) - {"engines"},
    "dask_jobqueue": set(FLOORS) - {"engines"},
    "transformers": set(FLOORS) - {"models", "nano", "probes", "measure", "engines", "notebook", "live"},
}


def rooms(package: Path) -> list[tuple[str, Path]]:
    """(room, file): the folder or module directly below the package that a file belongs to."""
    files = sorted(package.rglob("*.py"))
    return [(path.relative_to(package).parts[0].removesuffix(".py"), path) for path in files]


def imported(path: Path) -> set[str]:
    """Every module a file imports anywhere in it, with names imported from the package itself resolved."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = str(node.module)
            names |= {f"tracker.{alias.name}" for alias in node.names} if module == "tracker" else {module}
    return names


def violations(package: Path) -> list[str]:
    """Every arrow that goes up, sideways where that is not listed, or to a library the room must not know."""
    found = []
    for room, path in rooms(package):
        if room not in FLOORS:
            found.append(f"{path.relative_to(package)}: stands on no floor")
            continue
        for name in imported(path):
            parts = name.split(".")
            if parts[0] in FORBIDDEN and room in FORBIDDEN[parts[0]]:
                found.append(f"{path.relative_to(package)}: must not know {parts[0]}")
            if parts[0] == "tracker" and len(parts) > 1 and parts[1] in FLOORS:
                other = parts[1]
                level = FLOORS[other] >= FLOORS[room] and other != room and (room, other) not in SIDEWAYS
                if level:
                    found.append(f"{path.relative_to(package)}: reaches up or sideways to {other}")
    return found


def test_imports_go_down_the_floors():
    assert violations(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("records.py", "from tracker.store import Store", "records.py: reaches up or sideways to store"),
        ("analysis/phases.py", "def f():\n    import torch", "analysis/phases.py: must not know torch"),
        ("store.py", "from tracker import probes", "store.py: reaches up or sideways to probes"),
        ("helpers.py", "", "helpers.py: stands on no floor"),
    ],
)
def test_this_test_can_fail(tmp_path: Path, file: str, line: str, complaint: str):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(line)
    assert violations(tmp_path) == [complaint]


def test_no_drawer_for_everything():
    assert not [path for _, path in rooms(PACKAGE) if path.stem in ("utils", "helpers", "misc", "common")]
