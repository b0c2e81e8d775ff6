"""The Slurm recipes on a real Slurm of one node. Needs root and Debian's slurm-wlm and munge."""

import random
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_hub import Hub, loopback_hub
from slurm_material import Slurm, can_run, running_slurm
from suite_material import make_suite, records, tables

import tracker as package

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not can_run(), reason="no slurm-wlm, or not root")]
SWEEPS = Path(__file__).parent.parent / "sweeps"
REPO = "EleutherAI/pythia-14m"
STEPS = [0, *(2**power for power in range(10)), *range(1000, 20_000, 1000)]
SMALL = ("suite.models=[14m]", "probe.ids=ids.npy", "probe.n=48", "probe.sequences=100", "sink=none")


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Slurm, Hub]]:
    """A Slurm whose jobs find ``tracker`` on their path, and a hub with log steps of a small Pythia."""
    make_suite(tmp_path, STEPS, REPO, sequences=100)
    command = tmp_path / "bin" / "tracker"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m tracker "$@"\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    with loopback_hub(tmp_path / "hub") as hub, running_slurm(tmp_path / "slurm", cores=8) as slurm:
        slurm.environment.update(
            PYTHONPATH=str(SWEEPS.parent), HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "cache"),
            OMP_NUM_THREADS="1", PATH=f"{command.parent}:{slurm.environment['PATH']}", HOME=str(tmp_path),
        )  # fmt: skip
        yield slurm, hub


def alone(folder: Path, slurm: Slurm, *overrides: str) -> None:
    """The same suite by one process, to compare with."""
    request = ("suite=pythia", *SMALL, *overrides, "store=alone", "engine=inline", "engine.threads=1")
    slurm.run("tracker", "sweep", *request, cwd=folder)


def test_the_job_array_measures_every_checkpoint_once(tmp_path: Path, cluster: tuple[Slurm, Hub]):
    slurm, _ = cluster
    given = (*SMALL, "store=shared", "steps.list=[0,1,2,4,8,16,32,64,128,256,512,1000]", "engine.threads=1")
    recipe = str(SWEEPS / "slurm-array.sbatch")
    slurm.run(
        "sbatch", "--wait", "--array=1-4", "--cpus-per-task=2", "--mem=900M", recipe, *given, cwd=tmp_path
    )
    said = [path.read_text() for path in sorted(tmp_path.glob("slurm-*.out"))]
    assert len(said) == 4
    counts = [
        int(line.split()[0]) for each in said for line in each.splitlines() if line.endswith(" measured")
    ]
    assert sum(counts) == 12, said
    alone(tmp_path, slurm, "steps.list=[0,1,2,4,8,16,32,64,128,256,512,1000]")
    mine, theirs = tables(tmp_path / "shared"), tables(tmp_path / "alone")
    assert all(mine[name].equals(theirs[name]) for name in mine)


def test_dask_on_slurm_outlives_jobs_that_are_cancelled(tmp_path: Path, cluster: tuple[Slurm, Hub]):
    slurm, _ = cluster
    given = (
        *SMALL, "store=shared", "engine.workers=2", "engine.min_workers=2",
        "engine.threads=1", "engine.job.job_cpu=1", "engine.job.memory=900MB", "engine.job.interface=lo",
        "engine.job.job_extra_directives=[]", "engine.resources=null", "engine.batch=2", "engine.retries=8",
        f"steps.list={STEPS}".replace(" ", ""),
    )  # fmt: skip
    chance, cancelled, store = random.Random(0), list[str](), tmp_path / "shared"
    process = start(slurm, tmp_path, "sh", str(SWEEPS / "dask-slurm.sh"), *given)
    while process.poll() is None and len(cancelled) < 2:
        time.sleep(1)
        if 3 * (1 + len(cancelled)) <= len(records(store)) < 27 and (jobs := slurm.jobs()):
            cancelled.append(chance.choice(jobs))
            slurm.run("scancel", cancelled[-1])
    said, _ = process.communicate(timeout=250)
    assert process.returncode == 0, said
    print(f"cancelled jobs {cancelled}; {said.splitlines()[-1]}")
    assert len(cancelled) == 2
    alone(tmp_path, slurm, given[-1])
    mine, theirs = tables(store), tables(tmp_path / "alone")
    assert mine["checkpoints"].height == 30
    assert set(mine["checkpoints"]["status"]) == {"ok"}
    assert all(mine[name].equals(theirs[name]) for name in mine)
    time.sleep(3)
    assert slurm.jobs() == [], "its jobs end with it"
    assert package.open_store(store).checkpoints()["step"].n_unique() == 30


def start(slurm: Slurm, folder: Path, *command: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command, env=slurm.environment | {"COMMAND": "sweep"}, cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
