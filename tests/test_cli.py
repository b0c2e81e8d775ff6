"""The command line as a user meets it, each call in a process of its own and an empty folder."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tracker.cli import USAGE, run
from tracker.commands.verbs import VERBS


def tracker(
    folder: Path, *arguments: str, timeout: float = 250, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs ``python -m tracker`` in ``folder``, without any key or network."""
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


REFUSALS = [
    (
        ["frob"],
        "frob: no such verb; there are sweep, plan, audit, analyse, compare, roles, drivers",
    ),
    (
        ["sweep", "suite=pythai"],
        "Could not find 'suite/pythai' Available options in 'suite': folder hub nano",
    ),
    (["sweep", "suit=nano"], "suit: no such field; there are cache, compare, device, dtype"),
    (["sweep", "suite.modles=[a]"], "suite.modles: no such field; there are batch, dense, encodings"),
    (["sweep", "+foo=1"], "foo=1: invalid value; expected no such field; there are cache, compare, device"),
    (["sweep", "suite.models=[70m]"], "suite.models=70m: invalid value; expected one of 0.05m, 0.2m, 0.8m"),
    (["sweep", "suite=pythia", "suite.models=[71m]"], "suite.models=71m: invalid value; expected one of 14m"),
    (
        ["sweep", "steps=fast"],
        "Could not find 'steps/fast' Available options in 'steps': all log paper refine window",
    ),
    (["sweep", "steps=window", "steps.low=9", "steps.high=3"], "steps=window needs steps.low <= steps.high"),
    (["sweep", "probe.n=abc"], "probe.n: Value 'abc' of type 'str' could not be converted to Integer"),
    (["sweep", "shard=5/4"], "shard=5/4: invalid value; expected i/n with 1 <= i <= n"),
    (["sweep", "shard=0/4"], "shard=0/4: invalid value; expected i/n with 1 <= i <= n"),
    (["sweep", "suite=folder"], "suite.path is not given; say suite.path=..."),
    (["sweep", "suite=folder", "suite.path=nowhere"], "suite.path=nowhere"),
    (["sweep", "engine=ray"], "Could not find 'engine/ray' Available options in 'engine': dask"),
    (["sweep", "sink.mode=loud"], "sink.mode=loud: invalid value; expected one of auto, online"),
    (["sweep", "spectrum.window=kaiser"], "spectrum.window=kaiser: invalid value; expected one of hann"),
    (["sweep", "spectrum.wavelet=db99"], "spectrum.wavelet=db99: invalid value; expected one of bior1.1"),
    (["sweep", "spectrum.alphas=[0.3]"], "spectrum.alphas=0.3: invalid value; expected one of 0.5, 0.25"),
    (["sweep", "spectrum.block=1"], "spectrum.block=1: invalid value; expected whole numbers from 4"),
    (["sweep", "dtype=int8"], "dtype=int8: invalid value; expected one of float32"),
    (["sweep", "device=tpu"], "device=tpu: invalid value; expected one of auto, cpu"),
    (["sweep", "remeasure=some"], "remeasure=some: invalid value; expected one of failed, missing"),
    (["sweep", "suite.seeds=0"], "suite.seeds=0: invalid value"),
    (["sweep", "suite.train_steps=-1"], "suite.train_steps=-1: invalid value"),
    (["sweep", "probe.number=0"], "probe.number=0: invalid value; expected 1 sequence or more"),
    (["sweep", "probe.n=512"], "probe.n=512: invalid value; expected at most the 128 positions of the suite"),
    (["sweep", "spectrum.n_fft=64"], "spectrum.n_fft=64: invalid value; expected at least probe.n=96"),
    (
        ["sweep", "spectrum.align=dilate", "probe.n=16"],
        "spectrum.align=dilate: invalid value; expected longer sequences",
    ),
    (["sweep", "engine.threads=-1"], "engine.threads=-1: invalid value; expected whole numbers from 1"),
    (["sweep", "view=null"], "view=None: invalid value; expected a group of fields"),
    (["sweep", "probe=null"], "Config group override must be a string or a list. Got NoneType"),
    (["sweep", "foo"], "Error parsing override 'foo' missing EQUAL"),
    (["analyse"], "holds no measurements; create some with `tracker sweep store=tracker-store`"),
    (["dashboard"], "holds no measurements"),
    (["validate", "what=breaks"], "holds no measurements"),
    (["validate", "what=heads"], "what=heads: invalid value; expected one of auto, experiments"),
    (["validate", "validate.runs=0"], "validate.runs=0: invalid value; expected whole numbers from 1"),
    (["validate", "validate.settled=inf"], "validate.settled=inf: invalid value; expected finite numbers"),
    (["stream"], "holds no measurements"),
    (["nano", "suite=pythia"], "tracker nano trains suite=nano, not suite=pythia"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSALS, ids=[" ".join(a) for a, _ in REFUSALS])
def test_a_wrong_request_is_one_line_and_code_2_and_writes_nothing(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]):
    assert run([]) == 0
    assert capsys.readouterr().out == USAGE
    for verb in VERBS:
        assert f"tracker {verb} " in USAGE


def test_hydras_own_switches_work_and_write_nothing(tmp_path: Path):
    shown = tracker(tmp_path, "sweep", "--help")
    assert shown.returncode == 0
    assert "suite: folder, hub, nano, olmo, pico, polypythias, pythia, pythia-deduped" in shown.stdout
    composed = tracker(tmp_path, "sweep", "--cfg", "job", "suite=pythia")
    assert composed.returncode == 0
    assert "repo_format: EleutherAI/pythia-{size}" in composed.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_verb_run_in_a_process_leaves_the_loggers_of_others_alone(capsys: pytest.CaptureFixture[str]):
    other = logging.getLogger("somebody.else")
    assert run(["plan", "suite.models=[0.05m]", "suite.train_steps=4"]) == 0
    assert "units" in capsys.readouterr().out
    assert not other.disabled


def test_the_default_steps_of_pythia_are_the_papers_and_can_be_overridden(tmp_path: Path):
    usual = tracker(tmp_path, "plan", "suite=pythia", "suite.models=70m")
    assert "pythia: 7 checkpoints of 1 model, 0 measured, 7 to measure" in usual.stdout
    everything = tracker(tmp_path, "plan", "suite=pythia", "suite.models=[70m]", "steps=all")
    assert "pythia: 154 checkpoints of 1 model" in everything.stdout
    assert "~25.6 GB" in everything.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_multirun_ends_with_its_worst_jobs_code(tmp_path: Path):
    done = tracker(tmp_path, "plan", "--multirun", "suite.models=[0.05m],[nope]")
    assert done.returncode == 2
    assert "suite.models=nope: invalid value" in done.stderr
    assert "nano: 16 checkpoints of 1 model" in done.stdout


def test_a_refused_multirun_leaves_nothing_behind(tmp_path: Path):
    done = tracker(tmp_path, "plan", "--multirun", "suite.models=[a],[b]")
    assert done.returncode == 2
    assert not (tmp_path / "tracker-store").exists()


WAITING = """
import os, queue, signal, sys, threading
from tracker.cli import run
assert run(["plan"]) == 0
threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start()
threading.Timer(30, os._exit, [1]).start()
try:
    queue.SimpleQueue().get()
except KeyboardInterrupt:
    os._exit(130)
"""


def test_ctrl_c_is_heard_while_nothing_happens(tmp_path: Path):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", WAITING], cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 130
