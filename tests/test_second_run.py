"""What a command costs that has nothing to do: imports, the kept analysis, a page that is served at once."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from command_line import SMALL, here, swept, tracker  # noqa: F401  # here and swept are fixtures
from synthetic_store import SMALL as SHAPES
from synthetic_store import write_store

from tracker.checkpoints.audit import file as audit_file
from tracker.checkpoints.audit.findings import Finding
from tracker.cli import run
from tracker.commands import analysed

HEAVY = {"torch", "transformers", "tokenizers", "scipy", "matplotlib", "pandas", "pyarrow", "wandb", "dask",
         "distributed", "plotly", "hydra", "polars", "rich", "numpy", "pywt", "huggingface_hub"}  # fmt: skip
ALWAYS = {"hydra", "polars", "rich", "numpy", "pywt", "huggingface_hub"}
"""What every command that reads a request and a store needs; the rest is for what a command does."""
COMMANDS = {
    ("--help",): set(),
    ("--version",): set(),
    ("swep",): set(),
    ("sweep", "--help"): {"numpy", "pywt"},
    ("plan",): ALWAYS,
    ("sweep",): ALWAYS | {"plotly"},
    ("analyse",): ALWAYS,
    ("dashboard",): ALWAYS | {"plotly"},
    ("roles",): ALWAYS | {"scipy"},
    ("compare",): ALWAYS | {"scipy"},
}
"""Command -> the heavy packages that it may import where everything is measured and analysed."""


def imported(folder: Path, *command: str) -> set[str]:
    """Heavy packages that a command imports, as ``-X importtime`` reports them."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    environment |= {
        "PYTHONPATH": str(Path(__file__).parent.parent),
        "OMP_NUM_THREADS": "1",
        "HOME": str(folder),
    }
    done = subprocess.run([sys.executable, "-X", "importtime", *command], cwd=folder, env=environment,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr[-2000:]
    names = re.findall(r"^import time: +\d+ \| +\d+ \| +([\w.]+)$", done.stderr, flags=re.MULTILINE)
    return {name.partition(".")[0] for name in names if name.partition(".")[0] in HEAVY}


@pytest.fixture(scope="module")
def settled(swept: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """A folder whose store is swept and analysed."""
    folder = tmp_path_factory.mktemp("settled")
    shutil.copytree(swept[0] / "tracker-store", folder / "tracker-store")
    assert tracker(folder, "sweep", *SMALL).returncode == 0
    return folder


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_imports_no_heavy_package_that_it_does_not_use(command: tuple[str, ...], settled: Path):
    request = SMALL if command[0] in ("plan", "sweep") and len(command) == 1 else ()
    found = imported(settled, "-m", "tracker", *command, *request)
    assert found <= COMMANDS[command], f"{found - COMMANDS[command]} is imported and not used"


def test_the_python_face_imports_nothing_heavy_until_it_is_used(settled: Path):
    assert imported(settled, "-c", "import tracker; tracker.__all__") == set()
    opened = imported(settled, "-c", "import tracker; tracker.open_store('tracker-store').heads()")
    assert opened <= {"polars", "numpy"}


def test_the_check_of_imports_can_fail(settled: Path):
    assert "scipy" in imported(settled, "-c", "import scipy.stats")


def stamp(store: Path) -> int:
    return (store / "analysis.json").stat().st_mtime_ns


def test_an_analysis_is_kept_until_its_rows_settings_or_code_differ(
    here: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
):
    store = write_store(here / "tracker-store", SHAPES[:2], (0, 4, 16, 64, 256, 1000), holes=False)
    assert run(["analyse"]) == 0
    first, report = stamp(store), (store / "analysis.json").read_bytes()

    def again(*request: str) -> bool:
        before = stamp(store)
        assert run(["analyse", *request]) == 0
        return stamp(store) != before

    assert not again()
    assert not again("store=../" + here.name + "/tracker-store")
    assert stamp(store) == first
    assert again("validate.settled=0.2"), "another limit"
    assert again("view.suspects=true"), "another choice"
    assert again(), "the first request again"
    assert (store / "analysis.json").read_bytes() == report
    write_store(store, SHAPES[:2], (2000,), holes=False)
    assert again(), "new rows"
    assert not again()
    monkeypatch.setattr(analysed, "CODE", ("analysis",))
    assert again(), "other code"
    (store / "analysis.json").write_text("{damaged")
    assert again(), "a damaged file"
    moved = shutil.copytree(store, here / "moved")
    before = stamp(moved)
    assert run(["analyse", "store=moved"]) == 0
    assert stamp(moved) == before, "a copied store keeps its analysis"


def test_a_second_sweep_says_the_same_and_takes_less_than_five_seconds_of_processor_time(settled: Path):
    before = os.times()
    done = tracker(settled, "sweep", *SMALL)
    after = os.times()
    assert done.returncode == 0
    assert "0 measured now, 0 not measured" in done.stdout
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    assert seconds < 5, f"{seconds:.1f} s"


def test_a_moved_store_keeps_its_audit_of_the_embedded_suite(
    swept: tuple[Path, str],  # noqa: F811
    here: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
):
    store = shutil.copytree(swept[0] / "tracker-store", here / "first")
    request = (*SMALL, "suite.models=[0.05m]")
    assert run(["audit", *request, "store=first"]) == 0
    assert capsys.readouterr().out.splitlines()[-2].endswith("weights match their names")
    names = [repo["repo"] for repo in json.loads((store / "audit.json").read_text())["repos"]]
    assert [re.sub(r"[0-9a-f]{8}", "*", name) for name in names] == ["nano/*-*/0.05m/seed-0"]

    def doubt(repo: str) -> None:
        finding = Finding(16, "same-weights", "step16: equals step 8", 8, None, "step16", None)
        entry = audit_file.audit_of(repo, audit_file.Evidence((), None), [finding])
        (store / "audit.json").write_text(json.dumps({"repos": [entry.as_json() | {"repo": repo}]}))

    for repo in (names[0], f"/an/old/place/{names[0]}"):
        doubt(repo)
        moved = store.rename(here / f"moved-{len(repo)}")
        assert run(["plan", *request, f"store={moved}"]) == 0
        assert "0.05m seed 0 step 16: suspect: same-weights" in capsys.readouterr().out
        assert run(["analyse", f"store={moved}"]) == 0
        assert "1 checkpoint found suspect by the audit" in capsys.readouterr().out
        store = moved.rename(here / "first")


@pytest.mark.slow
def test_the_address_stands_before_the_analysis_is_made_and_the_page_gets_it(
    here: Path,  # noqa: F811
):
    store = write_store(here / "tracker-store", SHAPES, (0, 4, 16, 64, 256, 1000), seeds=3, holes=False)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "tracker", "dashboard", "serve=true"]
    with subprocess.Popen(command, cwd=here, env=environment, stdout=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        line = served.stdout.readline()
        there = (store / "analysis.json").exists()
        address = line.split()[1]
        try:
            assert not there, "served only when everything was computed"
            with urllib.request.urlopen(address, timeout=20) as page:
                assert page.status == 200
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                with urllib.request.urlopen(f"{address}data", timeout=20) as answer:
                    if json.load(answer)["phases"]:
                        break
                time.sleep(0.3)
            else:
                pytest.fail("the page never got the analysis")
        finally:
            served.send_signal(signal.SIGINT)
            rest = served.communicate(timeout=20)[0]
    assert "Stopped serving" in rest
    assert served.returncode == 0


def test_a_refinement_that_has_nothing_left_to_narrow_is_done(
    swept: tuple[Path, str],  # noqa: F811
    here: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
):
    shutil.copytree(swept[0] / "tracker-store", here / "tracker-store")
    for command in ("plan", "sweep"):
        code = run([command, *SMALL, "steps=refine", "sink=none"])
        said = capsys.readouterr()
        assert code == 0, said.err
        assert "already lies between neighbouring checkpoints that exist; nothing to measure" in said.out
