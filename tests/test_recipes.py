"""Every recipe in sweeps/ goes through the shell that it is for, and is composed and planned by tracker."""

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from huggingface_hub import close_session

from tracker.cli import run

SWEEPS = Path(__file__).parent.parent / "sweeps"
RECIPES = sorted(
    str(path.relative_to(SWEEPS))
    for path in [*SWEEPS.iterdir(), *(SWEEPS / "studies").glob("*.sh")] if path.is_file()
)  # fmt: skip
NOTE = """#!{python}
import json, os, sys
with open(os.environ["NOTED"], "a") as file:
    file.write(json.dumps(sys.argv[1:]) + chr(10))
"""
"""Stands for ``tracker`` on the path: it notes what a recipe calls it with."""


def opening(recipe: str) -> str:
    """The comment at the recipe's head, as one line."""
    lines = (SWEEPS / recipe).read_text().splitlines()
    return " ".join(line.lstrip("# ") for line in lines if line.startswith("#") and "#SBATCH" not in line)


def requests(recipe: str, folder: Path) -> list[list[str]]:
    """Every command line of tracker that a recipe runs, with the command ``plan``."""
    if recipe.endswith(".yaml"):
        return grid(yaml.safe_load((SWEEPS / recipe).read_text()))
    (folder / "bin").mkdir()
    (folder / "bin" / "tracker").write_text(NOTE.format(python=sys.executable))
    (folder / "bin" / "tracker").chmod(0o755)
    environment = os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "COMMAND": "plan"}
    environment |= {"NOTED": str(folder / "noted"), "SLURM_ARRAY_TASK_ID": "1"}
    environment |= {"SLURM_ARRAY_TASK_COUNT": "16", "SLURM_CPUS_PER_TASK": "4"}
    subprocess.run(["sh", SWEEPS / recipe], env=environment, check=True)
    return [json.loads(line) for line in (folder / "noted").read_text().splitlines()]


def grid(sweep: dict) -> list[list[str]]:
    """What ``wandb agent`` makes of a grid: ``${args_no_hyphens}`` becomes name=value, each an argument."""
    names = list(sweep["parameters"])
    found = []
    for values in itertools.product(*(sweep["parameters"][name]["values"] for name in names)):
        given = [f"{name}={value}" for name, value in zip(names, values, strict=True)]
        command = [each for part in sweep["command"] for each in
                   (given if part == "${args_no_hyphens}" else [part])]  # fmt: skip
        assert command[:2] == ["tracker", "sweep"]
        found.append(["plan", *command[2:]])
    return found


def figures(said: str) -> list[str]:
    """What a recipe has to say of a plan: checkpoints, bytes, disk, time and hours."""
    wanted = (r"(\d+ checkpoints?) of", r"to fetch: (~\S+ \S?B)", r"peak disk: (~\S+ \S?B)",
              r"expected time: (~\S+ \w+)", r"(\S+) worker hours")  # fmt: skip
    return [str(match[1]) for pattern in wanted if (match := re.search(pattern, said))]


def test_some_jobs_of_an_array_alone_keep_their_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SHARDS", "20")
    (call,) = requests("slurm-array.sbatch", tmp_path)
    assert "shard=1/20" in call


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_opens_with_its_command_and_says_what_tracker_plan_computes(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    head = opening(recipe)
    assert f"sweeps/{recipe}" in head
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.chdir(tmp_path)
    calls = requests(recipe, tmp_path)
    assert calls
    lacking = []
    for call in calls:
        store = ["store=empty"] if not any(each.startswith("store=") for each in call) else []
        assert run([*call, *store, f"cache.folder={tmp_path / 'cache'}"]) == 0, capsys.readouterr().err
        said = capsys.readouterr().out.split("\npythia: ")[-1]
        found = figures(said if "--multirun" not in call else said[said.rindex("checkpoints of") - 9 :])
        assert len(found) == (5 if "to fetch" in said else 1), said
        lacking.append([each for each in found if each not in head])
    close_session()
    if recipe.endswith(".yaml"):
        lacking = lacking[-1:]
    assert not any(lacking), f"{recipe} does not say {lacking}"
