"""Imports go down the floors: a module knows its own package and those below it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "tracker"
ORDER = (
    *("errors", "atomic", "side_files", "records", "facts"),
    *("metrics", "analysis", "config", "store", "checkpoints", "models"),
    *("measurement", "nano", "planning", "wandb_sink", "views"),
    *("engines", "live", "validate"),
    *("console", "commands", "api", "cli", "__main__", "__init__"),
)
"""From the ground up: a module imports its own package and what stands before it here."""
FLOORS = {name: floor for floor, name in enumerate(ORDER)}
TORCH_FREE = (
    *("errors", "atomic", "side_files", "records", "facts", "analysis", "config", "store"),
    *("planning", "wandb_sink", "views"),
)
FORBIDDEN = {
    "torch": set(TORCH_FREE),
    "hydra": set(FLOORS) - {"cli"},
    "omegaconf": set(FLOORS) - {"cli", "config"},
    "wandb": set(FLOORS) - {"wandb_sink"},
    "distributed": set(FLOORS) - {"engines"},
    "dask_jobqueue": set(FLOORS) - {"engines"},
    "transformers": set(FLOORS) - {"models", "nano", "measurement", "engines", "api", "live"},
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
                if FLOORS[other] > FLOORS[room]:
                    found.append(f"{path.relative_to(package)}: reaches up to {other}")
    return found


def test_imports_go_down_the_floors():
    assert violations(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("records.py", "from tracker.store import Store", "records.py: reaches up to store"),
        ("analysis/phases.py", "def f():\n    import torch", "analysis/phases.py: must not know torch"),
        ("store/a.py", "from tracker import nano", "store/a.py: reaches up to nano"),
        ("helpers.py", "", "helpers.py: stands on no floor"),
    ],
)
def test_this_test_can_fail(tmp_path: Path, file: str, line: str, complaint: str):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(line)
    assert violations(tmp_path) == [complaint]


def graph(package: Path) -> dict[str, set[str]]:
    """Module -> the modules of the package that it imports, anywhere in it."""
    files = {".".join(("tracker", *path.relative_to(package).with_suffix("").parts)): path
             for path in package.rglob("*.py")}  # fmt: skip
    files = {name.removesuffix(".__init__"): path for name, path in files.items()}
    return {name: modules_of(path, set(files)) - {name} for name, path in files.items()}


def modules_of(path: Path, known: set[str]) -> set[str]:
    """The modules among ``known`` that a file imports; ``from package import module`` means the module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (names & known) or {str(node.module)}
    return found & known


def circular(edges: dict[str, set[str]]) -> set[str]:
    """Modules on a circle, or between two: what is left when those without unmet imports are taken away."""
    left = {name: set(needs) for name, needs in edges.items()}
    while free := {name for name, needs in left.items() if not needs}:
        left = {name: needs - free for name, needs in left.items() if name not in free}
    return set(left)


def test_no_module_imports_itself_by_way_of_others():
    assert circular(graph(PACKAGE)) == set()


def test_a_circle_is_seen(tmp_path: Path):
    (tmp_path / "a.py").write_text("from tracker import b")
    (tmp_path / "b.py").write_text("def f():\n    import tracker.a")
    (tmp_path / "c.py").write_text("import os")
    assert circular(graph(tmp_path)) == {"tracker.a", "tracker.b"}


def test_no_drawer_for_everything():
    assert not [path for _, path in rooms(PACKAGE) if path.stem in ("utils", "helpers", "misc", "common")]
