"""What a user gets: the wheel, and what works once it is installed."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)], check=True
    )
    return next(folder.glob("*.whl"))


def test_the_wheel_carries_configuration_facts_text_and_page(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {"tracker/conf/config.yaml", "tracker/measurement/default_probe.txt"}
    expected |= {"tracker/facts/pythia_suite.csv"}
    expected |= {
        f"tracker/conf/{path.relative_to(ROOT / 'conf')}" for path in (ROOT / "conf").rglob("*.yaml")
    }
    expected |= {
        str(path.relative_to(ROOT))
        for path in (ROOT / "tracker" / "views" / "page").iterdir()
        if path.is_file()
    }
    assert expected <= names


def test_an_installed_tracker_works_in_an_empty_folder(wheel: Path, tmp_path: Path):
    place, empty = tmp_path / "venv", tmp_path / "empty"
    venv.create(place, with_pip=False, system_site_packages=False)
    empty.mkdir()
    library = next((place / "lib").glob("python*")) / "site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(library)
    # The libraries of this environment, without its tracker: what the wheel lacks cannot be found elsewhere.
    paths = [p for p in sys.path if "site-packages" in p]
    (library / "these.pth").write_text("\n".join(paths))
    code = "import tracker.cli, sys; print(tracker.cli.__file__); sys.exit(tracker.cli.run(['plan']))"
    done = subprocess.run(
        [place / "bin" / "python", "-c", code], cwd=empty, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert str(library) in done.stdout
    assert "nano: 48 checkpoints of 3 models" in done.stdout
    assert list(empty.iterdir()) == []


def test_nothing_of_the_project_names_a_machine():
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    for name in tracked:
        path = ROOT / name
        if (
            path.suffix in (".py", ".md", ".yaml", ".toml", ".txt", ".sh", ".js", ".html", ".css")
            and path.is_file()
        ):
            text = path.read_text(encoding="utf-8")
            assert "/work" + "/" not in text, name
