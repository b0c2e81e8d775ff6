"""What a user gets: the wheel, the README, the recipes."""

import re
import shlex
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from tracker import config
from tracker.cli import with_current_names
from tracker.commands import COMMANDS
from tracker.metrics.table import markdown_table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


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


def test_the_readme_has_exactly_the_two_commands_and_its_table_is_the_codes():
    first, second = (
        "python -m pip install -c constraints.txt . && tracker sweep",
        "python -m pip install -c constraints.txt '.[test]' && python -m pytest",
    )
    assert README.count("pip install") == 2
    assert first in README
    assert second in README
    assert markdown_table() in README


def test_every_command_and_picture_of_the_readme_exists_and_its_table_lists_every_command():
    for command in re.findall(r"^(?:\$ )?tracker (\w+) ?(?:$|\w+=|  )", README, flags=re.MULTILINE):
        assert command in COMMANDS
    listed = README.split("and exit codes\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| `tracker (\w+)` \|", listed, flags=re.MULTILINE) == list(COMMANDS)
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    assert pictures
    for picture in pictures:
        assert (ROOT / picture).is_file(), picture


def commands_of_the_readme() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("tracker ")]


@pytest.mark.parametrize("command", commands_of_the_readme())
def test_every_command_of_the_readme_composes_by_the_current_names(command: str):
    _, name, *overrides = shlex.split(command)
    assert name in COMMANDS
    given = [each for each in overrides if not each.startswith("--")]
    assert with_current_names(given) == given
    with initialize_config_dir(str(config.folder()), version_base="1.3"):
        config.read(compose("config", overrides=given))


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
