"""What models, folders and errors are called never reaches the terminal as a command to it."""

import io
import json
import shutil
from pathlib import Path

import pytest
from command_line import here  # noqa: F401  # a fixture
from rich.table import Table
from rich.text import Text
from suite_material import PROBE, make_suite
from synthetic_store import SMALL, Shape, write_audit, write_store

from tracker.cli import run
from tracker.console import output
from tracker.console.progress import Bars

NAME = "a\x1b[2J\x1b]0;owned\x07\x9b31m\u202eb\u2066c\r\x08"
OBEYED = {"\x1b", "\x9b", "\x07", "\x08", "\r", "\u202e", "\u2066", "\x85", "\u2028"}
SHAPES = tuple(
    Shape(f"{NAME}{each.model}", each.layers, each.heads, each.d_model, each.non_embedding) for each in SMALL
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_store(tmp_path_factory.mktemp("hostile") / "store", SHAPES, (0, 1, 2, 4, 8, 16, 32, 64))
    write_audit(folder, SHAPES[0], 4)
    audit = json.loads((folder / "audit.json").read_text())
    for entry in audit["repos"]:
        entry["repo"] = f"lab/{NAME}"
        for finding in entry["findings"]:
            finding["sentence"] += NAME
    (folder / "audit.json").write_text(json.dumps(audit))
    return folder


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("command", ["analyse", "compare", "roles", "roles verbose=true", "dashboard"])
def test_no_command_on_a_store_passes_on_control_characters(
    command: str,
    store: Path,
    capfd: pytest.CaptureFixture[str],
):
    name, *more = command.split()
    assert run([name, f"store={store}", *more]) in (0, 1)
    said = "".join(capfd.readouterr())
    assert not set(said) & OBEYED
    assert "\\x1b" in said or name == "dashboard"


@pytest.mark.usefixtures("here")
def test_no_command_on_a_folder_passes_on_control_characters(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
):
    make_suite(tmp_path, range(2), repo="lab/some")
    runs = tmp_path / "hub" / "lab" / "x\x1b[2J\u202e\x9by"
    (tmp_path / "hub" / "lab" / "some").rename(runs)
    config = json.loads((runs / "step1" / "config.json").read_text())
    (runs / "step1" / "config.json").write_text(json.dumps(config | {"hidden_act": NAME}))
    request = (f"suite.path='{runs}'", "suite=folder", "sink=none")
    capfd.readouterr()  # what saving the models said
    for command, code in (("plan", 0), ("audit", 0), ("sweep", 1), ("plan", 0)):
        assert run([command, *request, "probe.sequences=4", *PROBE]) == code, capfd.readouterr()
        said = "".join(capfd.readouterr())
        assert not set(said) & OBEYED, command
        assert "\\x1b[2J" in said, command


def test_bars_and_tables_in_a_terminal_show_control_characters():
    file = io.StringIO()
    console = output._Output(file=file, force_terminal=True, color_system=None, width=160)
    bars = Bars(console, "measuring")
    with bars.running():
        bars.add(NAME, 2)
        bars.advance_to(NAME, 1, note=NAME)
    table = Table("heading")
    table.add_row(Text(NAME))
    output.print_table(console, table)
    output.print_line(console, NAME)
    said = file.getvalue()
    assert "\x1b[2J" not in said
    assert "\x1b]0" not in said
    assert not set(said) & (OBEYED - {"\x1b", "\r"})
    assert said.count("a\\x1b[2J\\x1b]0;ow") >= 3


@pytest.mark.usefixtures("here")
def test_what_is_logged_is_made_visible_too(
    tmp_path: Path,
    store: Path,
    capfd: pytest.CaptureFixture[str],
):
    other = tmp_path / "s\x1b[2Jt"
    shutil.copytree(store, other)
    (other / "audit.json").write_text("[]")
    assert run(["analyse", f"store='{other}'"]) == 0
    said = capfd.readouterr()
    assert "audit.json cannot be used" in said.err
    assert "\x1b" not in said.err + said.out
