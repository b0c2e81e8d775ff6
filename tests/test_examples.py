"""Every example runs, as it stands, in a folder of its own, and shows what it says that it shows."""

import runpy
import shutil
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from command_line import swept  # noqa: F401  # a fixture

EXAMPLES = Path(__file__).parent.parent / "sweeps" / "examples"
SHOWN = {
    "launch_a_sweep": "measured checkpoints of 2 runs, 0 not measured",
    "read_a_phase_dashboard": "open example-store/dashboard.html",
    "compare_scales": "Differences of a tenth or more",
    "watch_your_own_training": "10 of 10 steps measured; ",
    "add_a_metric": "['Attention distance', 'Attention distance (averaged)']",
}


def executed(name: str, folder: Path) -> tuple[str, dict[str, Any]]:
    """What an example prints, on one line, and what it leaves."""
    with chdir(folder), redirect_stdout(StringIO()) as said:
        left = runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    return " ".join(said.getvalue().split()), left


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("examples")


@pytest.fixture(scope="module")
def launched(folder: Path, swept: tuple[Path, str]) -> tuple[str, dict[str, Any]]:  # noqa: F811
    """The first example, whose store others read; it finds its models trained."""
    shutil.copytree(swept[0] / "tracker-store" / "nano", folder / "example-store" / "nano")
    return executed("launch_a_sweep", folder)


def test_every_example_is_run_here():
    assert {path.stem for path in EXAMPLES.iterdir()} == set(SHOWN)


@pytest.mark.parametrize("name", list(SHOWN))
def test_an_example_runs(name: str, folder: Path, launched: tuple[str, dict[str, Any]]):
    said, left = launched if name == "launch_a_sweep" else executed(name, folder)
    assert SHOWN[name] in said
    if name == "launch_a_sweep":
        assert left["checkpoints"]["step"].n_unique() * 2 == left["checkpoints"].height
    if name == "read_a_phase_dashboard":
        assert (folder / "example-phases.png").stat().st_size > 10_000
        assert left["moved"].height == 16
    if name == "compare_scales":
        assert {each["model"] for each in left["compared"]["models"]} == {"0.05m", "0.2m"}
    if name == "watch_your_own_training":
        assert left["curve"]["step"].to_list() == [1, 2, 4, 8, 10, 20, 30, 40, 50, 60]
        assert left["curve"]["loss"][-1] < left["curve"]["loss"][0]
    if name == "add_a_metric":
        assert left["measured"].summary["attention_distance"].item() == pytest.approx(15.75, abs=0.5)


def test_the_metric_takes_twenty_lines():
    text = (EXAMPLES / "add_a_metric.py").read_text(encoding="utf-8")
    cell = text.split("# %% Twenty lines")[1].split("# %%")[0]
    assert len([line for line in cell.splitlines() if line.strip()]) <= 20
