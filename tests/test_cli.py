"""The command line as a user meets it."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tracker import config
from tracker.cli import RENAMED, run, usage, with_current_names
from tracker.commands import COMMANDS

SOURCE = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, without any key or network of this machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    return tmp_path


REFUSALS = [
    (["frob"], "unknown command 'frob'; choose from sweep, plan, audit, weights, analyse, compare, roles"),
    (
        ["sweep", "suite=pythai"],
        "suite=pythai: invalid value; expected one of amber, apertus, bloom",
    ),
    (["sweep", "suit=nano"], "unknown field 'suit'; choose from cache, compare, device, dtype"),
    (["sweep", "suite.modles=[a]"], "unknown field 'suite.modles'; choose from batch, dense"),
    (["sweep", "+foo=1"], "unknown field 'foo'; choose from cache, compare, device"),
    (["sweep", "+suite.foo=1"], "unknown field 'suite.foo'; choose from batch, dense"),
    (["sweep", "+sink.foo=1"], "unknown field 'sink.foo'; choose from artifact, entity"),
    (["sweep", "suite.models=[70m]"], "suite.models=70m: invalid value; expected one of 0.01m, 0.025m"),
    (["sweep", "suite=pythia", "suite.models=[71m]"], "suite.models=71m: invalid value; expected one of 14m"),
    (
        ["sweep", "steps=fast"],
        "steps=fast: invalid value; expected one of all, log, paper, refine, window",
    ),
    (["sweep", "steps=window", "steps.low=9", "steps.high=3"], "steps=window needs steps.low <= steps.high"),
    (["sweep", "probe.n=abc"], "probe.n=abc: invalid value; expected an integer"),
    (["sweep", "shard=5/4"], "shard=5/4: invalid value; expected i/n with 1 <= i <= n"),
    (["sweep", "shard=0/4"], "shard=0/4: invalid value; expected i/n with 1 <= i <= n"),
    (["sweep", "suite=folder"], "suite.path is required; give suite.path=..."),
    (["sweep", "suite=folder", "suite.path=nowhere"], "suite.path=nowhere"),
    (["sweep", "engine=ray"], "engine=ray: invalid value; expected one of dask, inline"),
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
    (["sweep", "probe.sequences=0"], "probe.sequences=0: invalid value; expected 1 sequence or more"),
    (["sweep", "probe.n=512"], "probe.n=512: invalid value; expected at most the 128 positions of the suite"),
    (["sweep", "spectrum.n_fft=64"], "spectrum.n_fft=64: invalid value; expected at least probe.n=96"),
    (
        ["sweep", "spectrum.align=dilate", "probe.n=16"],
        "spectrum.align=dilate: invalid value; expected longer sequences",
    ),
    (["sweep", "engine.threads=-1"], "engine.threads=-1: invalid value; expected whole numbers from 1"),
    (["sweep", "view=null"], "view=None: invalid value; expected a group of fields"),
    (["sweep", "probe=null"], "Config group override must be a string or a list. Got NoneType"),
    (["sweep", "foo"], "foo is no field=value, as in suite.models=[70m,410m]"),
    (["analyse"], "holds no measurements; create some with `tracker sweep store=tracker-store`"),
    (["dashboard"], "holds no measurements"),
    (["validate", "what=breaks"], "holds no measurements"),
    (["drivers"], "this is a script now: python sweeps/studies/drivers.py, with the same overrides"),
    (["roles", "prune=true"], "this is a script now: python sweeps/studies/prune_heads.py"),
    (["sweep", "sink.init_timeout=abc"], "sink.init_timeout"),
    (["stream", "sink.histograms=maybe"], "sink.histograms"),
    (["validate", "what=heads"], "what=heads: invalid value; expected one of auto, experiments"),
    (["validate", "validate.runs=0"], "validate.runs=0: invalid value; expected whole numbers from 1"),
    (["validate", "validate.settled=inf"], "validate.settled=inf: invalid value; expected finite numbers"),
    (["stream"], "holds no measurements"),
    (["nano", "suite=pythia"], "tracker nano trains suite=nano, not suite=pythia"),
    (["plan", "forecast.speed=0.0"], "forecast.speed=0.0: invalid value; expected numbers above 0"),
    (["plan", "forecast.bandwidth=inf"], "forecast.bandwidth=inf: invalid value; expected numbers above 0"),
    (["plan", "--multirun", "suite.models=[a],[b]"], "suite.models=a: invalid value"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSALS, ids=[" ".join(a) for a, _ in REFUSALS])
def test_a_wrong_request_is_one_line_and_code_2_and_writes_nothing(
    arguments: list[str], message: str, empty_folder: Path, capsys: pytest.CaptureFixture[str]
):
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == (2 if "--multirun" in arguments else 1)
    assert list(empty_folder.iterdir()) == []


def test_every_command_stands_once_and_help_and_configuration_name_them_all(
    capsys: pytest.CaptureFixture[str],
):
    assert run([]) == 0
    assert capsys.readouterr().out == usage()
    for command in COMMANDS.values():
        assert f"  tracker {command.name} " in usage()
        assert callable(command.load())
    footer = yaml.safe_load((config.folder() / "config.yaml").read_text())["hydra"]["help"]["footer"]
    assert footer.startswith(f"Commands: {', '.join(COMMANDS)}. ")
    assert max(map(len, usage().splitlines())) <= 110


HELP = """
import sys
from tracker.cli import run
run([])
print([name for name in ("torch", "hydra", "polars", "rich") if name in sys.modules])
"""


def test_help_loads_no_command():
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    said = subprocess.run([sys.executable, "-c", HELP], env=environment, capture_output=True, check=True)
    assert said.stdout.splitlines()[-1] == b"[]"


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_field_under_its_old_name_is_taken_for_the_new_one_and_one_line_says_so(
    old: str, new: str, capsys: pytest.CaptureFixture[str]
):
    given = [
        f"{old}=8",
        f"+{old}=[1,2]",
        f"++{old}=8",
        f"~{old}",
        f"probe.n=8{old}",
        f"{old}x=1",
        "--multirun",
    ]
    assert with_current_names(given) == [
        f"{new}=8", f"+{new}=[1,2]", f"++{new}=8", f"~{new}", f"probe.n=8{old}", f"{old}x=1", "--multirun",
    ]  # fmt: skip
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"tracker: {old} is now called {new}; the old name will be removed"] * 4


@pytest.mark.parametrize(
    ("old", "rest"),
    [
        ("probe.number=4", []),
        ("engine.stint=8", ["engine=dask"]),
        ("engine.least=1", ["engine=dask"]),
        ("suite.dense=[16,64,8]", []),
    ],
)
def test_a_request_with_an_old_name_is_composed(
    old: str, rest: list[str], capsys: pytest.CaptureFixture[str]
):
    assert run(["plan", *rest, old]) == 0
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert "of 3 models" in said.out
    if old.startswith("probe"):
        assert run(["plan", "--multirun", "suite.models=[0.05m],[0.2m]", old]) == 0
        assert capsys.readouterr().err.count("is now called probe.sequences") == 1


def test_hydras_own_switches_work_and_write_nothing(empty_folder: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["sweep", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "suite=amber|apertus|bloom|crfm-gpt2|datadecide|ettin|fineweb-ablations|folder|hub" in shown
    assert run(["sweep", "--cfg", "job", "suite=pythia"]) == 0
    assert "repo_format: EleutherAI/pythia-{size}" in capsys.readouterr().out
    assert list(empty_folder.iterdir()) == []


def test_a_command_leaves_the_loggers_of_others_alone(capsys: pytest.CaptureFixture[str]):
    other = logging.getLogger("somebody.else")
    assert run(["plan", "suite.models=[0.05m]", "suite.train_steps=4"]) == 0
    assert "checkpoints" in capsys.readouterr().out
    assert not other.disabled


def test_the_default_steps_of_pythia_are_the_papers_and_can_be_overridden(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    request = ["plan", "suite=pythia", "cache.folder=cache"]
    assert run([*request, "suite.models=70m"]) == 0
    assert "pythia: 7 checkpoints of 1 model, 0 measured, 7 to measure" in capsys.readouterr().out
    assert run([*request, "suite.models=[70m]", "steps=all"]) == 0
    said = capsys.readouterr().out
    assert "pythia: 154 checkpoints of 1 model" in said
    assert "~25.6 GB" in said
    assert list(empty_folder.iterdir()) == []


def test_a_multirun_ends_with_its_worst_jobs_code(capsys: pytest.CaptureFixture[str]):
    assert run(["plan", "--multirun", "suite.models=[0.05m],[nope]"]) == 2
    said = capsys.readouterr()
    assert "suite.models=nope: invalid value" in said.err
    assert "nano: 16 checkpoints of 1 model" in said.out


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


def test_ctrl_c_is_heard_while_nothing_happens():
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", WAITING], env=environment, check=False)
    assert done.returncode == 130
