"""``tracker`` as tests run it, and one small store that was really trained and swept."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest

from tracker.atomic import locked

SMALL = ("suite.models=[0.05m,0.2m]", "suite.train_steps=64", "probe.sequences=8")
"""What the shared store is swept with: two small models, eight checkpoints of each."""


def tracker(
    folder: Path, *arguments: str, timeout: float = 250, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m tracker`` in ``folder``, without any key or network."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "HF_"))}
    source = str(Path(__file__).parent.parent)
    kept |= {"PYTHONPATH": source, "OMP_NUM_THREADS": "1", "HOME": str(folder), **environment}
    return subprocess.run(
        [sys.executable, "-m", "tracker", *arguments],
        cwd=folder,
        env=kept,
        text=True,
        capture_output=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which ``tracker sweep`` ran once for all tests and test processes, and what it said.

    Its store is ``tracker-store``; tests that change it copy it first.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "swept"
    with locked(folder.with_suffix(".lock")):
        if not (folder / ".said").is_file():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            done = tracker(folder, "sweep", *SMALL)
            assert done.returncode == 0, done.stdout + done.stderr
            (folder / ".said").write_text(done.stdout)
    return folder, (folder / ".said").read_text()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder for ``tracker.cli.run``, without any key of this machine."""
    for name in [*os.environ]:
        if name.startswith("WANDB"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    with chdir(tmp_path):
        yield tmp_path
