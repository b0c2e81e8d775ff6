"""Every suite of the configuration is planned against a loopback hub that serves names of its form."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import close_session
from loopback_hub import Hub, loopback_hub, use_hub
from saved_models import save
from test_config import composed

from tracker import config as configuration
from tracker import open_store
from tracker.cli import run
from tracker.planning.resolve import resolve
from tracker.planning.schedule import wanted_steps
from tracker.records import Checkpoint

PROBE = ("probe.ids=ids.json", "probe.n=48", "probe.sequences=2", "sink=none")
NAMES = {
    "olmo2": (
        "allenai/OLMo-2-0425-1B",
        ["stage1-step0-tokens0B", "stage1-step1000-tokens3B", "step2000-tokens5B"],
        ["stage2-ingredient1-step1000-tokens3B", "stage2-ingredient2-step1000-tokens3B"],
    ),
    "olmo3": (
        "allenai/Olmo-3-1025-7B",
        ["stage1-step0", "stage1-step1000"],
        ["stage2-step1000", "stage3-step1000"],
    ),
    "olmo": ("allenai/OLMo-1B-0724-hf", ["step0-tokens0B", "step1000-tokens2B"], []),
    "olmoe": ("allenai/OLMoE-1B-7B-0924", ["step5000-tokens20B", "step10000-tokens41B"], []),
    "datadecide": (
        "allenai/DataDecide-dolma1_7-150M",
        ["step0-seed-default", "step35000-seed-default"],
        ["step0-seed-small-aux-2"],
    ),
    "smollm2": ("HuggingFaceTB/SmolLM2-135M-intermediate-checkpoints", ["step-240000", "step-480000"], []),
    "smollm3": (
        "HuggingFaceTB/SmolLM3-3B-checkpoints",
        ["stage1-step-40000", "stage1-step-80000"],
        ["stage2-step-3450000", "lc-4k-to-32k-step-4000"],
    ),
    "amber": ("LLM360/Amber", ["ckpt_000", "ckpt_001", "ckpt_358"], []),
    "k2": ("LLM360/K2", ["ckpt_001", "ckpt_357"], []),
    "apertus": ("swiss-ai/Apertus-8B-2509", ["step50000-tokens210B", "step100000-tokens420B"], []),
    "lucie": ("OpenLLM-France/Lucie-7B", ["step0005000", "step0010000"], ["extension_step0000250"]),
    "bloom": ("bigscience/bloom-560m-intermediate", ["global_step1000", "global_step10000"], []),
    "crfm-gpt2": ("stanford-crfm/alias-gpt2-small-x21", ["checkpoint-10", "checkpoint-400"], []),
    "ettin": ("jhu-clsp/ettin-decoder-17m", ["step4000", "step599525"], ["ext1000", "decay100"]),
    "fineweb-ablations": (
        "HuggingFaceFW/ablation-model-fineweb-v1",
        ["step-001000-2BT", "step-002000-4BT"],
        [],
    ),
}
"""Suite -> repository, revisions that are planned, and revisions of other stages or seeds."""
TAGGED = ("bloom", "crfm-gpt2", "ettin")
OTHERWISE = {"multiberts": 29, "tinyllama": 6}
"""Suites of one repository a checkpoint, with how many."""
REQUESTLESS = (
    "nano",
    "folder",
    "hub",
    "pico",
    "pythia",
    "pythia-deduped",
    "pythia-v0",
    "pythia-deduped-v0",
    "polypythias",
)
"""Suites that have tests of their own."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tracker"])
    Path("ids.json").write_text(json.dumps([[1] * 48] * 2), encoding="utf-8")
    with loopback_hub(tmp_path / "hub") as running:
        use_hub(monkeypatch, running, tmp_path / "home")
        yield running
    close_session()


def serve(hub: Hub, repo: str, *revisions: str) -> None:
    saved = hub.root.parent / "saved"
    if not saved.is_dir():
        save(saved, "safetensors", seed=1)
    for revision in ("main", *revisions):
        shutil.copytree(saved, hub.root / repo / revision, dirs_exist_ok=True)


def found(*overrides: str) -> tuple[list[Checkpoint], str]:
    """The checkpoints of a request, and all notes on them."""
    sweep = resolve(composed(*PROBE, *overrides))
    return [planned.unit.checkpoint for planned in sweep.plan.units], "\n".join(sweep.notes)


def test_every_suite_of_the_configuration_is_tried_here_or_elsewhere():
    there = {file.stem for file in (configuration.folder() / "suite").glob("*.yaml")}
    assert there == {*NAMES, *OTHERWISE, *REQUESTLESS}


@pytest.mark.parametrize("suite", NAMES)
def test_each_suite_is_planned_with_names_of_its_form(suite: str, hub: Hub, capsys):
    repo, planned, others = NAMES[suite]
    serve(hub, repo, *planned, *others)
    hub.tags = {(repo, name) for name in (*planned, *others)} if suite in TAGGED else set()
    checkpoints, notes = found(f"suite={suite}", "steps=all")
    assert sorted(each.revision for each in checkpoints) == sorted(planned)
    assert {each.location for each in checkpoints} == {repo}
    assert all(each.commit == hub.commit(hub.root / repo / each.revision) for each in checkpoints)
    assert "not read" not in notes
    assert run(["plan", f"suite={suite}", *PROBE, "steps=all"]) == 0
    assert f"{suite}: {len(planned)} checkpoints of 1 model" in capsys.readouterr().out


@pytest.mark.parametrize("suite", OTHERWISE)
def test_one_repository_a_checkpoint(suite: str, hub: Hub):
    checkpoints, _ = found(f"suite={suite}", "steps=all")
    assert len(checkpoints) == OTHERWISE[suite]
    assert len({each.location for each in checkpoints}) == len(checkpoints)
    assert {each.revision for each in checkpoints} == {"main"}
    assert hub.log == [], "their names say it all"


def test_what_the_names_of_repositories_say(hub: Hub):
    checkpoints, _ = found("suite=tinyllama", "steps=all")
    assert [(each.step, each.tokens_seen) for each in checkpoints][:3] == [
        (240_000, 503 * 10**9),
        (480_000, 10**12),
        (715_000, 15 * 10**11),
    ]
    seeds, _ = found("suite=multiberts", "suite.seeds=[0,3]", "steps.list=[20000]")
    assert [each.location for each in seeds] == [f"google/multiberts-seed_{seed}-step_20k" for seed in (0, 3)]


def test_a_repository_a_checkpoint_is_swept(hub: Hub, capsys):
    serve(hub, "lab/gpt-step_0k")
    serve(hub, "lab/gpt-step_20k")
    request = (
        *("suite=hub", "suite.repo=lab/gpt-step_{0,20,40}k", "suite.model=gpt", "engine=inline"),
        *(r"suite.pattern='gpt-step_(?P<step>\d+k)'", "cache.folder=cache"),
    )
    assert run(["plan", *request, *PROBE]) == 0
    assert "gpt seed 0 step 40000" in capsys.readouterr().out, "what the hub lacks is told"
    assert run(["sweep", *request, *PROBE]) == 1
    rows = open_store("tracker-store").checkpoints().sort("step")
    assert rows["status"].to_list() == ["ok", "ok", "failed"]
    assert rows["step"].to_list() == [0, 20_000, 40_000]


def test_stages_are_runs_of_their_own(hub: Hub):
    repo, pretraining, others = NAMES["olmo2"]
    serve(hub, repo, *pretraining, *others)
    _, notes = found("suite=olmo2", "steps=all")
    assert "stages that are not planned: stage2 (2); suite.stages=[pretraining,stage2] adds them" in notes
    both, notes = found("suite=olmo2", "steps=all", "suite.stages=[pretraining,stage2]")
    assert "not planned" not in notes
    assert [(each.model, each.seed, each.step) for each in both] == [
        ("1b", 0, 0), ("1b", 0, 1000), ("1b", 0, 2000), ("1b-stage2", 1, 1000), ("1b-stage2", 2, 1000),
    ]  # fmt: skip
    assert run(["plan", "suite=olmo2", "suite.stages=[stage9]", *PROBE]) == 2


def test_tokens_alone(hub: Hub):
    serve(hub, "lab/tokens", "593B", "train_00220B")
    request = ("suite=hub", "suite.repo=lab/tokens")
    checkpoints, notes = found(*request)
    assert [(each.step, each.tokens_seen) for each in checkpoints] == [
        (220_000, 220 * 10**9),
        (593_000, 593 * 10**9),
    ]
    assert "`step` counts millions of tokens" in notes
    checkpoints, notes = found(*request, "suite.tokens_per_step=4000000")
    assert (checkpoints[0].step, checkpoints[0].tokens_seen) == (55_000, 220 * 10**9)
    assert notes == ""


def test_what_is_not_understood_is_listed_with_the_pattern_to_write(hub: Hub, capsys):
    serve(hub, "lab/odd", "step1000", "run3-it000100", "v-final")
    assert run(["plan", "suite=hub", "suite.repo=lab/odd", *PROBE]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "lab/odd: not read as checkpoints: run3-it000100, v-final; a form of their own is given as" in said
    pattern = r"run\d+\-it(?P<step>\d+)"
    assert f"suite.pattern='{pattern}'" in said
    (one,), _ = found("suite=hub", "suite.repo=lab/odd", f"suite.pattern='{pattern}'")
    assert one.step == 100


def test_bad_names_are_a_line_each_and_the_rest_goes_on(hub: Hub, capsys):
    serve(hub, "lab/bad", "step1000", "step01000", "stage2-step1000", "1000x")
    hub.tags, hub.both = {("lab/bad", "step1000")}, True
    assert run(["plan", "suite=hub", "suite.repo=lab/bad", *PROBE]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for line in (
        "hub: 1 checkpoint of 1 model",
        "lab/bad: both a branch and a tag, of which the branch is read: step1000",
        "lab/bad: step01000 and step1000 are both bad seed 0 step 1000; step1000 is left out",
        "lab/bad: stages that are not planned: stage2 (1)",
        "lab/bad: not read as checkpoints: 1000x",
    ):
        assert line in said
    assert run(["plan", "suite=hub", "suite.repo=lab/bad", r"suite.pattern='step(\d+)'", *PROBE]) == 2
    assert "has no group named step or tokens" in capsys.readouterr().err


def test_one_repository_that_is_closed_costs_only_its_own_model(hub: Hub, capsys):
    repo, planned, _ = NAMES["olmo2"]
    serve(hub, repo, *planned)
    serve(hub, "allenai/OLMo-2-1124-7B", "stage1-step1000-tokens4B")
    hub.private.add("allenai/OLMo-2-1124-7B")
    assert run(["plan", "suite=olmo2", "suite.models=[1b,7b]", "steps=all", *PROBE]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "olmo2: 3 checkpoints of 1 model" in said
    assert "allenai/OLMo-2-1124-7B: the repository does not exist, or is private" in said


def test_a_gated_repository_is_planned_and_each_checkpoint_says_how_to_get_access(hub: Hub, capsys):
    repo, planned, _ = NAMES["apertus"]
    serve(hub, repo, *planned)
    hub.gated.add(repo)
    assert run(["sweep", "suite=apertus", "engine=inline", "cache.folder=cache", *PROBE]) == 1
    said = " ".join(capsys.readouterr().out.split())
    for step, revision in zip((50_000, 100_000), planned, strict=True):
        place = f"8b seed 0 step {step}: {repo} at {revision}: "
        how = "the repository is gated; accept its terms on the hub, then log in with `hf auth login`"
        assert re.search(rf"{re.escape(place)}\S+ {re.escape(how)}", said)


def test_steps_log_says_where_a_suite_starts_late(hub: Hub):
    repo, planned, _ = NAMES["smollm2"]
    serve(hub, repo, *planned)
    _, notes = found("suite=smollm2", "steps=log")
    assert "135m: its first checkpoint is step 240000; steps=log has nothing before it" in notes
    _, notes = found("suite=smollm2", "steps=all")
    assert notes == ""


def test_steps_log_takes_the_next_step_where_one_of_its_grid_is_lacking():
    log = configuration.Steps("log")
    every = range(40_000, 400_001, 40_000)
    assert wanted_steps(log, list(every)) == (40_000, 80_000, 160_000, 280_000, 400_000)
    assert wanted_steps(log, [0, 3, 5, 6, 1000]) == (0, 3, 5, 1000)


def test_a_step_twice_in_two_stages_is_told_for_each(hub: Hub, capsys):
    serve(hub, "lab/twice", "step1000", "stage1-step1000", "stage2-step1000", "stage2-step01000", "step2000")
    hub.tags = {("lab/twice", "stage1-step1000")}
    request = ("suite=hub", "suite.repo=lab/twice", "suite.stages=[pretraining,stage2]")
    checkpoints, notes = found(*request)
    assert [(each.model, each.step, each.revision) for each in checkpoints] == [
        ("twice", 1000, "stage1-step1000"),
        ("twice", 2000, "step2000"),
        ("twice-stage2", 1000, "stage2-step01000"),
    ]
    lines = [line for line in notes.splitlines() if " are both " in line]
    assert lines == [
        "lab/twice: stage2-step01000 and stage2-step1000 are both twice-stage2 seed 0 step 1000; "
        "stage2-step1000 is left out; to read it, set suite.pattern to a form that keeps them apart",
        "lab/twice: stage1-step1000 and step1000 are both twice seed 0 step 1000; step1000 is left out; to "
        "read it, set suite.pattern to a form that keeps them apart",
    ]


def test_a_model_that_needs_its_own_code_is_one_line_and_nothing_of_it_is_fetched_or_run(hub: Hub, capsys):
    serve(hub, "lab/own", "step1000", "step2000")
    place = hub.root / "lab/own" / "step1000"
    config = json.loads((place / "config.json").read_text())
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (place / "config.json").write_text(json.dumps(config | own))
    (place / "own.py").write_text("raise SystemExit('it was run')")
    request = ("suite=hub", "suite.repo=lab/own", "engine=inline", "cache.folder=cache")
    assert run(["sweep", *request, *PROBE]) == 1
    said = capsys.readouterr().out
    (line,) = [line for line in said.splitlines() if "own seed 0 step 1000: " in line and "own code" in line][
        :1
    ]
    assert line.endswith("the model needs its own code, which tracker does not run")
    assert open_store("tracker-store").checkpoints().sort("step")["status"].to_list() == ["failed", "ok"]
    assert hub.asked("own.py") == []
    assert run(["sweep", *request, *PROBE, "probe.loss=false"]) == 1
    assert hub.asked("own.py") == []


def test_one_model_of_a_hub_that_is_gated_costs_only_its_own_checkpoints(hub: Hub, capsys):
    serve(hub, "lab/open", "step1000")
    serve(hub, "lab/shut", "step1000")
    hub.gated.add("lab/shut")
    request = ("suite=hub", "suite.repo=null", "+suite.repos={a:lab/open,b:lab/shut}", "engine=inline")
    for loss in ("true", "false"):
        store = (f"store=store-{loss}", f"probe.loss={loss}", f"cache.folder=cache-{loss}")
        assert run(["sweep", *request, *PROBE, *store]) == 1
        said = " ".join(capsys.readouterr().out.split())
        how = "the repository is gated; accept its terms on the hub, then log in with `hf auth login`"
        assert re.search(rf"b seed 0 step 1000: lab/shut at step1000: (\S+ )?{re.escape(how)}", said)
        rows = open_store(f"store-{loss}").checkpoints().sort("model")
        assert rows["status"].to_list() == ["ok", "failed"]
