"""Disks that are full or may not be written: said at the start, or what is measured stays and goes on."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from suite_material import finished, make_suite, records, start_sweep

import tracker as package

FOLDER = ("suite=folder", "suite.name=folder", "suite.path=hub/lab/pythia-some", "store=disk/store")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 600 kB."""
    make_suite(tmp_path, range(16))
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can be mounted by root alone")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def sweep(folder: Path, *overrides: str) -> "subprocess.Popen[str]":
    return start_sweep(folder, "http://127.0.0.1:9", *FOLDER, *overrides, repo="none")


@pytest.mark.slow
def test_a_store_that_may_not_be_written_is_refused_at_the_start(tmp_path: Path, disk: Path):
    remount(disk, "ro")
    said = finished(sweep(tmp_path, "engine.workers=2"), code=2)
    assert "store=disk/store: cannot be written: [Errno 30] Read-only file system" in said
    assert "measuring" not in said


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["engine=inline", "engine.workers=2", "engine=dask"])
def test_a_store_that_fills_up_keeps_what_is_measured_and_goes_on(tmp_path: Path, disk: Path, engine: str):
    said = finished(sweep(tmp_path, engine), code=2)
    assert "No space left on device" in said
    assert said.count("Traceback") == 0
    before = len(records(disk / "store"))
    assert 0 < before < 16
    remount(disk, "size=60m")
    again = finished(sweep(tmp_path, engine))
    assert f"{16 - before} measured now" in again
    assert package.open_store(disk / "store").checkpoints()["status"].to_list() == ["ok"] * 16
