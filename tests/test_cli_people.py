"""The command line as people type it: slips are answered with what was meant and how to write it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import here, tracker  # noqa: F401  # here is a fixture
from saved_models import save
from synthetic_store import PROBE, SMALL, SMALL_STEPS, write_store

from tracker.analysis.comparison_report import ONE_MODEL
from tracker.cli import run
from tracker.cli.completion import proposals
from tracker.cli.overrides import readable_overrides

SOURCE = Path(__file__).parent.parent
FOLDER = ("suite=folder", "suite.path=.")


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """What a request is refused with: one line, and nothing is written."""
    assert run(arguments) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "Exception" not in error
    return error.strip()


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["swep"], "did you mean sweep?"),
        (["analyze"], "did you mean analyse?"),
        (["suite=pythia"], "stands where a command belongs: tracker sweep suite=pythia"),
        (["plan", "suite=pythai"], "did you mean pythia?"),
        (["plan", "models=[70m]"], "did you mean suite.models?"),
        (["plan", "n=64"], "did you mean probe.n?"),
        (["plan", "stor=x"], "did you mean store?"),
        (["plan", "suite.modles=[0.2m]"], "did you mean suite.models?"),
        (["plan", "suite=pythia", "suite.models=[71m]"], "did you mean 70m?"),
        (["plan", "pythia"], "did you mean suite=pythia?"),
        (["plan", "--models", "70m"], "write suite.models=70m"),
        (["plan", "--models=70m"], "write suite.models=70m"),
        (["plan", "--train-steps", "8"], "write suite.train_steps=8"),
        (["plan", "--store"], "write store=..."),
        (["plan", "-x"], "fields are not options"),
        (["plan", "device=gpu"], "did you mean cuda?"),
        (["sweep", "device=gpu"], "did you mean cuda?"),
        (["plan", "--suite", "pythia"], "write suite=pythia"),
        (["plan", "--engine=dask"], "write engine=dask"),
        (["plan suite=pythia"], "'plan suite=pythia' is one argument; write it without the quotes"),
        (["plan", "pythai"], "no field=value, as in suite.models=[70m,410m]; --help lists them"),
        (["plan", "steps.list=3"], "nearest: 2, 4"),
        (["plan", "steps.list=abc"], "expected an integer"),
        (["plan", "cache.max_gb=lots"], "cache.max_gb=lots: invalid value; expected a number"),
        (["plan", "steps.list=[3]"], "nearest: 2, 4"),
        (["plan", "steps.list=[3,9000]"], "nearest: 2, 4, 1000"),
        (["sweep", "sink.mod=offline"], "did you mean sink.mode?"),
        (["plan", "spectrum.window=han"], "did you mean hann?"),
    ],
)
def test_a_slip_is_answered_with_what_was_meant(
    arguments: list[str],
    meant: str,
    here: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
):
    assert meant in said(capsys, *arguments)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    "override",
    [
        r"suite.pattern=step(\d+)$",
        r"suite.pattern=checkpoint-(?P<step>\d+)",
        r"suite.pattern=^a|b*$",
        'suite.pattern=a"b=c',
        r"suite.pattern=it's=\d",
        "store=a=b",
        "store=runs (old)",
        "suite.path={x}",
    ],
)
def test_what_hydras_grammar_takes_for_its_own_is_answered_with_a_quoting_that_it_reads(
    override: str,
    here: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
):
    error = said(capsys, "plan", *FOLDER, override)
    assert error.startswith(
        f"tracker: {override}: has characters of Hydra's grammar in it; quote the value: "
    )
    written = subprocess.run(
        ["sh", "-c", f"printf %s {error.partition('quote the value: ')[2]}"], capture_output=True, text=True,
        check=True,
    ).stdout  # fmt: skip
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_override(written)
    assert parsed.value() == override.partition("=")[2]
    assert readable_overrides([written]) == [written]


def test_lists_that_a_shell_has_parted_and_values_with_commas_say_how_to_write_them(
    here: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
):
    assert "in quotes: 'suite.models=[0.05m, 0.2m]'" in said(capsys, "plan", "suite.models=[0.05m,", "0.2m]")
    assert "in quotes: 'steps.list=[1]'" in said(capsys, "plan", "steps.list=[1")
    error = said(capsys, "plan", "store=a,b")
    assert "write a list as store=[a,b], a text as 'store=\"a,b\"', and add --multirun" in error
    assert run(["plan", "suite.models=[0.05m, 0.2m]"]) == 0


def test_a_tilde_is_the_home_folder_in_values_and_lists_and_nowhere_else(
    here: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
):
    home = os.path.expanduser("~")
    for given, read in (
        ("store=~/a", f"store={home}/a"),
        ("spectrum.metrics=[~/a.py,~/b.py]", f"spectrum.metrics=[{home}/a.py,{home}/b.py]"),
        ("store=~", f"store={home}"),
        ("store='a~/b'", "store='a~/b'"),
        ("~cache", "~cache"),
    ):
        assert readable_overrides([given]) == [read]
    write_store(here / "mine", SMALL[:1], SMALL_STEPS, holes=False)
    for store in ("store=~/mine", "store='~/mine'", f"store={here}/mine"):
        assert run(["roles", store]) == 0
    assert {path.name for path in here.iterdir()} == {"mine"}


def test_the_version_is_ours_wherever_it_is_asked_for(capsys: pytest.CaptureFixture[str]):
    for arguments in (["--version"], ["-V"], ["sweep", "--version"], ["plan", "suite=pythia", "--version"]):
        assert run(arguments) == 0
        assert capsys.readouterr().out.startswith("tracker ")


@pytest.mark.parametrize("asked", [["help", "plan"], ["plan", "help"], ["--help", "plan"], ["plan", "-h"]])
def test_help_of_a_command_is_found_wherever_it_is_asked_for(
    asked: list[str], capsys: pytest.CaptureFixture[str]
):
    assert run(asked) == 0
    assert capsys.readouterr().out.startswith("tracker plan: show what a sweep would do")


def test_help_of_a_command_prints_the_configuration_with_its_comments_of_the_chosen_files(
    capsys: pytest.CaptureFixture[str],
):
    assert run(["sweep", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "dtype: float32         # of the weights: float32, float64, bfloat16, float16" in shown
    assert "mode: auto           # auto (online with a key" in shown
    assert "train_steps: 1000            # optimizer steps" in shown
    assert "hydra" not in shown.lower()
    assert run(["plan", "-h", "suite=pythia"]) == 0
    shown = capsys.readouterr().out
    assert "steps:    # steps=paper" in shown
    assert "repo_format: " in shown
    assert "train_steps" not in shown


COMPLETE = r"""
tracker() { "$PYTHON" -m tracker "$@"; }
eval "$(tracker -sc install=bash)"
complete -p tracker
for line in "tracker " "tracker da" "tracker sweep suite=pol" "tracker sweep probe.se" "tracker nope x"; do
  COMP_LINE="$line" COMP_POINT=${#line} _tracker_completion
  printf '%s|' "${COMPREPLY[@]}"; echo
done
"""


def test_tab_completes_commands_groups_and_fields_in_a_real_bash():
    environment = os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(SOURCE)}
    command = ["bash", "-c", COMPLETE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    bound, commands, one, suites, fields, none = done.stdout.splitlines()
    assert bound.endswith("-F _tracker_completion tracker")
    assert commands.split("|")[:3] == ["sweep ", "plan ", "audit "]
    assert one == "dashboard |"
    assert suites == "suite=polypythias|"
    assert fields == "probe.seed=|probe.sequences=|"
    assert none.strip("|") == ""
    assert proposals("tracker sweep suite.mod") == ["suite.models="]


def test_other_shells_and_wrong_ones(capsys: pytest.CaptureFixture[str]):
    assert run(["-sc", "install=zsh"]) == 0
    assert "bashcompinit" in capsys.readouterr().out
    assert run(["-sc", "uninstall=bash"]) == 0
    assert "complete -r tracker" in capsys.readouterr().out
    assert "with bash, zsh, fish" in said(capsys, "-sc", "install=csh")


def test_whoever_stops_reading_ends_a_command_quietly(tmp_path: Path):
    line = 'set -o pipefail; "$PYTHON" -m tracker plan suite=pythia steps=all cache.folder=c | head -1'
    environment = os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(SOURCE), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        ["bash", "-c", line], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.stdout.startswith("pythia: 770 checkpoints of 5 models")
    assert done.returncode in (0, 141)  # 0 where head was slower than the whole plan
    closed = subprocess.run(
        ["bash", "-c", '"$PYTHON" -m tracker plan 2>err | true; echo ${PIPESTATUS[0]} $(wc -c < err)'],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert closed.stdout.split() == ["141", "0"]


def test_reading_commands_take_the_requests_probe(
    here: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
):
    from dataclasses import replace

    import synthetic_store

    write_store(here / "tracker-store", SMALL[:1], (0, 16, 64), holes=False)
    assert run(["analyse"]) == 0  # one probe, whatever it is
    error = said(capsys, "analyse", "probe.n=64")
    assert error.startswith("tracker: probe=default-16x64-")
    assert f"choose from {PROBE.label} with view.probe=..." in error
    other = replace(PROBE, n=48)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic_store, "PROBE", other)
        write_store(here / "tracker-store", SMALL[:1], (0, 16, 64), holes=False)
    assert "several probes, which are never mixed; choose one" in said(capsys, "roles")
    assert run(["roles", f"view.probe={other.label}"]) == 0


def test_one_model_is_compared_with_the_paper_alone(
    here: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
):
    write_store(here / "tracker-store", SMALL[:1], SMALL_STEPS, holes=False)
    assert run(["compare"]) == 0
    printed = capsys.readouterr().out
    assert ONE_MODEL in " ".join(printed.split())
    assert "0 of 0" not in printed


def test_a_step_implies_that_models_are_compared_there(
    here: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
):
    write_store(here / "tracker-store", SMALL[:2], SMALL_STEPS, holes=False)
    for given, step in (("compare.step=64", 64), (f"compare.tokens={600 * 2048}", 512)):
        assert run(["compare", given]) == 0
        report = json.loads((here / "tracker-store" / "compare.json").read_text())
        assert {model["step"] for model in report["models"]} == {step}


@pytest.mark.parametrize(
    ("given", "environment", "offline"),
    [
        pytest.param((), {}, True, marks=pytest.mark.slow),
        pytest.param(("sink.mode=online",), {}, False, marks=pytest.mark.slow),
        pytest.param((), {"WANDB_MODE": "online"}, False, marks=pytest.mark.slow),
    ],
)
def test_the_embedded_suite_is_not_uploaded_unless_asked_and_the_first_line_says_where_results_go(
    given: tuple[str, ...], environment: dict[str, str], offline: bool, tmp_path: Path
):
    key = {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    request = (
        "suite.models=[0.05m]",
        "suite.train_steps=2",
        "probe.sequences=2",
        "probe.n=16",
        "steps.list=[0]",
    )
    done = tracker(tmp_path, "sweep", *request, "sink.init_timeout=2", *given, **key, **environment)
    assert done.returncode == 0, done.stderr
    place = "W&B: offline, tracker-store/wandb" if offline else "W&B: tracker"
    first = done.stdout.splitlines()[0]
    assert first.endswith(f"0 measured, 1 to measure, into tracker-store; {place}")
    assert ("W&B        failed" in done.stdout) != offline


@pytest.mark.parametrize("name", ["2024_11_20", "1e5", "007", "true", "1.50"])
def test_names_made_of_digits_stay_what_was_typed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    for step in (0, 8):
        save(tmp_path / name / f"step{step}", seed=step)
    assert run(["plan", "suite=folder", f"suite.path={name}", f"suite.model={name}", f"store={name}"]) == 0
    said = capsys.readouterr().out
    assert f"{name} seed 0" in said
    assert f"into {name}" in said
