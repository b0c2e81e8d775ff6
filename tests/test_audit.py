"""Audits of repositories and folders with planted faults: every one is named, and nothing else."""

import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from loopback_hub import Hub
from safetensors.torch import load_file, save_file
from saved_models import save
from synthetic_store import SMALL, synthetic_analysis, write_store
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from tracker.analysis import analyse
from tracker.checkpoints.audit import file as audit_file
from tracker.checkpoints.audit.findings import Evidence, Finding, Revision, findings, gaps
from tracker.checkpoints.audit.register import disagreements, reports, source_of
from tracker.checkpoints.tensors import check, declared_deviations
from tracker.cli import run
from tracker.errors import CheckpointError
from tracker.store import open_store
from tracker.views import dashboard_data, phase_figure

REPO = "EleutherAI/pythia-14m"
STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 1000, 2000, 3000, 4000, 6000, 7000, 8000, 9000)


def copy(root: Path, source: str, target: str, pattern: str = "*") -> None:
    for file in (root / source).glob(pattern):
        shutil.copy(file, root / target / file.name)


def plant(root: Path) -> set[tuple[int, str, object]]:
    """A repository like Pythia's with one fault of each kind; returns (step, fault, with)."""
    for seed, step in enumerate(STEPS):
        save(root / f"step{step}", "sharded bin" if step in (2000, 7000) else "safetensors", seed)
    save(root / "main", "safetensors", 99)
    copy(root, "step0", "step1")  # expected
    copy(root, "step4", "step64")
    copy(root, "main", "step128", "model.safetensors")
    copy(root, "step2000", "step7000", "pytorch_model-00001-of-00002.bin")
    (root / "step16" / "model.safetensors").unlink()
    return {
        (1, "expected-twin", 0),
        (4, "same-weights", 64),
        (64, "same-weights", 4),
        (128, "same-weights", "main"),
        (2000, "shared-shard", 7000),
        (7000, "shared-shard", 2000),
        (16, "no-weights", None),
        (9000, "last-not-main", "main"),
        (5000, "missing", None),
    }


def test_every_planted_fault_and_nothing_else_is_named_below_a_megabyte(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    planted = plant(hub.root / REPO)
    assert run(["audit", "suite=hub", f"suite.repo={REPO}"]) == 1
    said = capsys.readouterr().out
    (entry,) = json.loads((tmp_path / "tracker-store" / "audit.json").read_text())["repos"]
    found = {(each["step"], each["fault"], each["with"]) for each in entry["findings"]}
    assert found == planted
    assert len(entry["findings"]) == len(planted)
    assert entry["checked"] == list(STEPS)
    shards = {each["file"] for each in entry["findings"] if each["fault"] == "shared-shard"}
    assert shards == {"pytorch_model-00001-of-00002.bin"}
    known = {each["fault"]: each["known"] for each in entry["findings"]}
    assert known["expected-twin"] == "EleutherAI/pythia#83"
    assert known["same-weights"] is None
    assert hub.sent < 1_000_000
    assert hub.asked("/resolve/") == []
    for step, fault, _ in planted - {(1, "expected-twin", 0)}:
        assert any(
            fault in line and f"step{step}:" in line.replace("step ", "step").replace(" does", ": does")
            for line in said.splitlines()
        ), (step, fault)
    assert not (tmp_path / "cache").exists()


def test_a_sound_repository_has_no_finding(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for seed, step in enumerate((0, 1000, 2000, 3000)):
        save(hub.root / REPO / f"step{step}", seed=seed)
    shutil.copytree(hub.root / REPO / "step3000", hub.root / REPO / "main")
    assert run(["audit", "suite=pythia", "suite.models=[14m]", "steps.list=[0,1000]"]) == 0
    (entry,) = audit_file.read(tmp_path / "tracker-store").values()
    assert entry.findings == ()
    assert run(["audit", "suite=pythia", "suite.models=[14m]", "steps.list=[0,512]"]) == 1
    (entry,) = audit_file.read(tmp_path / "tracker-store").values()
    assert [(each.step, each.fault) for each in entry.findings] == [(512, "missing")]


def test_a_sweep_audits_first_marks_suspects_and_leaves_them_out_of_fits(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    import numpy as np

    for seed, step in enumerate((0, 1000, 2000, 3000)):
        save(hub.root / REPO / f"step{step}", seed=seed)
    shutil.copytree(hub.root / REPO / "step3000", hub.root / REPO / "main")
    copy(hub.root / REPO, "main", "step1000", "model.safetensors")
    np.save("ids.npy", np.random.default_rng(0).integers(0, 128, (2, 48)))
    probe = ("probe.ids=ids.npy", "probe.n=48", "probe.sequences=2", "sink=none")
    request = ("suite=pythia", "suite.models=[14m]", "steps.list=[0,1000,2000,3000]", *probe)
    assert run(["sweep", *request]) == 0
    said = capsys.readouterr().out
    assert "same-weights: step1000: holds the weights of main" in said
    left = json.loads((tmp_path / "tracker-store" / "analysis.json").read_text())["phases"][0]
    assert left["steps"] == [0, 2000, 3000]
    assert [each["step"] for each in left["left_out"]] == [1000]
    assert "suspect: same-weights, holds the weights of main" in left["left_out"][0]["reason"]
    assert open_store(tmp_path / "tracker-store").checkpoints()["status"].to_list() == ["ok"] * 4
    assert run(["analyse", "view.suspects=true"]) == 0
    used = json.loads((tmp_path / "tracker-store" / "analysis.json").read_text())["phases"][0]
    assert used["steps"] == [0, 1000, 2000, 3000]
    capsys.readouterr()
    assert run(["plan", *request]) == 0
    assert "14m seed 0 step 1000: suspect: same-weights" in capsys.readouterr().out


def test_a_branch_that_moved_since_its_audit_is_no_suspect():
    suspects = audit_file.Suspects({("o/n", "step1"): ("a" * 40, "suspect: same-weights")})
    assert suspects.why("o/n", "step1", "a" * 40) == "suspect: same-weights"
    assert suspects.why("o/n", "step1") == "suspect: same-weights"
    assert suspects.why("o/n", "step1", "b" * 40) is None


def test_audits_recorded_at_once_are_all_kept(tmp_path: Path):
    def add(number: int) -> None:
        audit_file.record(tmp_path, lambda before: [audit_file.RepoAudit(f"o/{number}", (len(before),), ())])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(40)))
    found = audit_file.read(tmp_path)
    assert sorted(found) == sorted(f"o/{number}" for number in range(40))
    assert sorted(audit.checked[0] for audit in found.values()) == list(range(40)), "one after the other"


@pytest.mark.parametrize(
    ("steps", "absent"),
    [
        ((0, 1, 2, 4, 8, 16, 1000, 2000, 3000, 5000, 6000, 7000), [4000]),
        ((100, 200, 300, 600, 700, 800), [400, 500]),
        ((0, 1, 2, 4, 16, 32, 64, 1000), [8]),
        ((0, 128, 512, 1000, 5000, 10000, 143000), []),
        ((*range(0, 5000, 500), *range(5000, 60000, 5000)), []),
        ((0, 1000, 2000, 4000, 8000, 16000), []),
        ((5,), []),
        ((), []),
    ],
)
def test_gaps_of_regular_schedules_only(steps: tuple[int, ...], absent: list[int]):
    assert gaps(steps) == absent


def test_pythias_own_schedule_has_no_gap():
    from tracker.checkpoints import PYTHIA_STEPS

    assert gaps(PYTHIA_STEPS) == []
    assert gaps(step for step in PYTHIA_STEPS if step not in (4000, 64)) == [64, 4000]


def at(step: int | None, weights: str, form: str = "model.safetensors", seed: int = 0) -> Revision:
    return Revision("main" if step is None else f"step{step}", None, {form: {form: weights}}, step, seed)


def told(*revisions: Revision, main: Revision | None = None, **more) -> list[tuple[int, str]]:
    return [(each.step, each.fault) for each in findings(Evidence(revisions, main, **more))]


def test_formats_are_never_compared_with_each_other():
    binary = "pytorch_model.bin"
    assert told(at(0, "a"), at(9, "b", binary), main=at(None, "c")) == []
    assert told(at(0, "a"), at(9, "b"), main=at(None, "c")) == [(9, "last-not-main")]


def test_main_need_not_equal_the_last_step_of_a_first_stage_or_of_one_seed_of_several():
    assert told(at(0, "a"), at(9, "b"), main=at(None, "c"), continued=True) == []
    assert told(at(0, "a"), at(9, "b", seed=1), main=at(None, "c")) == []
    assert told(at(0, "a"), at(9, "b"), main=at(None, "c"), existing={0: [0, 9, 10]}) == []


def test_the_register_is_read_and_compared():
    known = reports("EleutherAI/pythia-2.8b")
    assert [each.source for each in known] == [f"EleutherAI/pythia#{issue}" for issue in (83, 205, 205, 198)]
    main = at(None, "m")
    assert findings(Evidence((), existing={0: {1, 2}}, planned={0: {3}}))[0].fault == "missing"
    found = findings(Evidence([at(512, "m"), at(1000, "x"), at(54000, "y"), at(143000, "z")], main))
    assert [(each.step, each.fault) for each in found] == [(512, "same-weights"), (143000, "last-not-main")]
    assert [source_of(known, each) for each in found] == ["EleutherAI/pythia#205"] * 2
    open_ones = disagreements(known, found, [512, 1000, 54000, 143000])
    assert [(each.steps, each.hub) for each in open_ones] == [
        ([1000], "shows no such fault"),
        ([54000], "shows no such fault"),
    ]
    unseen = disagreements(reports("EleutherAI/pythia-160m-weight-seed1"), [], [0, 1000])
    assert unseen[-1].hub == "cannot be seen in file metadata"
    assert [each.steps for each in reports("allenai/OLMo-2-1124-7B")] == [
        ((101000, 101000), (175000, 175000), (300000, 300000))
    ]
    assert reports("somebody/else") == []


def folder_of_models(folder: Path, steps: tuple[int, ...]) -> None:
    for step in steps:
        torch.manual_seed(step)
        config = GPTNeoXConfig(vocab_size=128, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                               intermediate_size=64, max_position_embeddings=64)  # fmt: skip
        GPTNeoXForCausalLM(config).save_pretrained(folder / f"checkpoint-{step}")


def test_tensors_of_a_folder_are_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    mine = tmp_path / "mine"
    folder_of_models(mine, (0, 10, 20, 30, 40))
    name = "gpt_neox.layers.0.mlp.dense_h_to_4h.weight"
    for step, change in ((0, lambda t: t * 3), (10, lambda t: t * 0 + 0.5), (20, lambda t: t * float("nan"))):
        file = mine / f"checkpoint-{step}" / "model.safetensors"
        state = load_file(file)
        save_file({**state, name: change(state[name])}, file, {"format": "pt"})
    # The same tensors in another file: no hash of files shows it.
    state = load_file(mine / "checkpoint-30" / "model.safetensors")
    (mine / "checkpoint-40" / "model.safetensors").unlink()
    torch.save(state, mine / "checkpoint-40" / "pytorch_model.bin")
    assert run(["audit", "suite=folder", "suite.path=mine"]) == 1
    (entry,) = audit_file.read(tmp_path / "tracker-store").values()
    found = {each.step: each for each in entry.findings}
    assert {step: each.fault for step, each in found.items()} == {
        0: "unusual-start", 10: "bad-tensor", 20: "bad-tensor", 30: "same-weights", 40: "same-weights",
    }  # fmt: skip
    assert f"{name}: its standard deviation is" in found[0].sentence
    assert f"{name}: every value is 0.5" in found[10].sentence
    assert "2048 of 2048 values are NaN or infinite" in found[20].sentence


def test_zeros_and_another_start_than_declared_are_no_fault_of_step_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    folder_of_models(tmp_path / "mine", (0, 10))
    file = tmp_path / "mine" / "checkpoint-0" / "model.safetensors"
    state = load_file(file)
    zero = [
        name for name in state if "dense.weight" in name or "4h_to_h.weight" in name or "embed_out" in name
    ]
    assert len(zero) == 5
    started = {**state, **{name: torch.zeros_like(state[name]) for name in zero}}
    save_file(started, file, {"format": "pt"})
    assert run(["audit", "suite=folder", "suite.path=mine"]) == 0
    said = capsys.readouterr().out
    assert "2 checkpoints of" in said
    assert "unusual-start" not in said
    # As step 0 of a fine-tuning run: trained weights, and one matrix of zeros that is no output.
    tuned = {name: tensor if name in zero else tensor * 3 for name, tensor in started.items()}
    save_file(
        tuned | {"gpt_neox.embed_in.weight": state["gpt_neox.embed_in.weight"] * 0}, file, {"format": "pt"}
    )
    assert run(["audit", "suite=folder", "suite.path=mine"]) == 0
    assert "unusual-start: checkpoint-0: " in capsys.readouterr().out
    (entry,) = audit_file.read(tmp_path / "tracker-store").values()
    assert [each.fault for each in entry.findings] == ["unusual-start"]
    assert not audit_file.suspects(tmp_path / "tracker-store").reasons
    # Later, zeros are what no training leaves.
    later = tmp_path / "mine" / "checkpoint-10" / "model.safetensors"
    state = load_file(later)
    save_file({**state, zero[0]: torch.zeros_like(state[zero[0]])}, later, {"format": "pt"})
    assert run(["audit", "suite=folder", "suite.path=mine"]) == 1
    assert "every value is 0" in capsys.readouterr().out


def test_a_pickle_that_is_not_weights_is_never_executed(tmp_path: Path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    save(tmp_path / "m", "bin")
    torch.save({"weight": Trap()}, tmp_path / "m" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"m: .* does not read as weights"):
        check(tmp_path / "m", "m")
    assert not (tmp_path / "executed").exists()


def test_declared_initialisations():
    assert declared_deviations({"initializer_range": 0.02}) == (0.02,)
    pythia = {"model_type": "gpt_neox", "hidden_size": 512, "num_hidden_layers": 6, "initializer_range": 0.02}
    assert declared_deviations(pythia) == pytest.approx((0.02, 0.00577, 0.02795, 0.01473), rel=1e-3)
    assert declared_deviations({}) == ()


def doubted(folder: Path) -> Path:
    """A synthetic store whose audit doubts one of its checkpoints."""
    store = write_store(folder, holes=False)
    rows = open_store(store).checkpoints()
    row = rows.filter(model="0.8m", step=64).row(0, named=True)
    finding = Finding(64, "same-weights", "step64 (step 64): holds the weights of main", "main",
                      revision=row["revision"], commit=row["commit"], known="org/name#1")  # fmt: skip
    audit = audit_file.RepoAudit(row["repo"], (64,), (finding,))
    audit_file.record(store, lambda before: [audit])
    return store


def test_views_show_suspects_hollow(tmp_path: Path):
    results = open_store(doubted(tmp_path))
    data = dashboard_data(results, synthetic_analysis())
    run_of = {each["key"]: each for each in data["runs"]}
    reasons = dict(zip(run_of["nano/0.8m/0"]["steps"], run_of["nano/0.8m/0"]["suspects"], strict=True))
    told_of = "suspect: same-weights, holds the weights of main (reported in org/name#1)"
    assert {step for step, why in reasons.items() if why} == {64}
    assert reasons[64] == told_of
    assert data["audit"][0]["findings"][0]["fault"] == "same-weights"
    panel = phase_figure(results, None).axes[0]
    hollow = [line for line in panel.get_lines() if line.get_markerfacecolor() == "none"]
    assert [len(line.get_xdata()) for line in hollow] == [1]
    suspects = audit_file.suspects(tmp_path).among(results.checkpoints().iter_rows(named=True))
    phases = {
        each["model"]: each
        for each in analyse(results.checkpoints(), results.sequences(), suspects=suspects).to_dict()["phases"]
    }
    assert phases["0.8m"]["left_out"] == [{"step": 64, "reason": told_of}]
    assert 64 in phases["0.05m"]["steps"]
    assert len(SMALL) == len(phases)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (("suite=hub", "suite.repo=no/where"), "the repository does not exist"),
        (("suite=hub", "suite.repo=../../x"), "invalid repository name"),
        (("suite=folder", "suite.path=empty"), "no checkpoint there"),
        (("suite=pythia", "suite.models=[70m]"), "the repository does not exist"),
    ],
)
def test_what_cannot_be_audited_is_one_line_and_writes_nothing(
    hub: Hub, tmp_path: Path, request_: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
):
    save(hub.root / REPO / "step0")
    (tmp_path / "empty").mkdir()
    before = {path for path in tmp_path.rglob("*") if "hub" not in path.parts}
    capsys.readouterr()
    assert run(["audit", *request_]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert {path for path in tmp_path.rglob("*") if "hub" not in path.parts} == before


def test_a_private_repository_without_a_token_is_refused(hub: Hub, capsys: pytest.CaptureFixture[str]):
    save(hub.root / REPO / "step0")
    hub.private.add(REPO)
    assert run(["audit", "suite=hub", f"suite.repo={REPO}"]) == 2
    assert "is private and asked for without a valid token" in capsys.readouterr().err


def test_a_listing_that_fails_costs_its_repository_alone(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    other = REPO.replace("14m", "70m")
    for repo in (REPO, other):
        for seed, step in enumerate((0, 1000)):
            save(hub.root / repo / f"step{step}", seed=seed)
    wanted = ["audit", "suite=pythia", "suite.models=[14m,70m]", "steps.list=[0,1000]"]
    assert run(wanted) == 0
    earlier = audit_file.read(tmp_path / "tracker-store")
    save(hub.root / REPO / "step1000", seed=7)
    save(hub.root / other / "step1000", seed=7)
    hub.busy, hub.busy_path = [(404, 0)] * 9, f"{REPO}/revision/"
    capsys.readouterr()
    assert run(wanted) == 1
    said = capsys.readouterr().out
    assert f"not audited: 14m seed 0 step 0: {REPO} at step0: " in said
    assert "2 checkpoints of EleutherAI/pythia-70m: weights match their names" in said
    now = audit_file.read(tmp_path / "tracker-store")
    assert now.keys() == earlier.keys()
    changed = {name for name in now if now[name] != earlier[name]}
    assert len(changed) == 1
    assert other in changed.pop()


def test_commits_of_one_branch_are_checkpoints(hub: Hub, tmp_path: Path):
    from tracker.checkpoints import discover_hub

    for step in (1000, 2000):
        save(hub.root / REPO / f"c{step}", seed=step)
    save(hub.root / REPO / "main", seed=5)
    hub.titles[f"{REPO}@run-1"] = [
        ("Saving Learning Dynamics Data -- Step 2000", "main"),
        ("Saving HF Model -- Step 2000", "c2000"),
        ("Saving HF Model -- Step 1000", "c1000"),
    ]
    found = discover_hub(REPO, branch="run-1", pattern=r"Saving HF Model -- Step (?P<step>\d+)")
    assert [each.step for each in found] == [1000, 2000]
    assert [each.commit for each in found] == [
        hub.commit(hub.root / REPO / f"c{step}") for step in (1000, 2000)
    ]
    assert all(each.revision == each.commit for each in found)


def test_files_that_go_while_they_are_looked_into_are_no_finding(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A sweep with a bounded cache removes a checkpoint between the look at it and the look into it."""
    for seed, step in enumerate((0, 1000)):
        save(hub.root / REPO / f"step{step}", seed=seed)
    wanted = ("suite=pythia", "suite.models=[14m]", "steps.list=[0,1000]")
    run(["sweep", *wanted, "sink=none"])  # the files are there then, though they hold no tokenizer
    looked: list[Path] = []

    def gone(path: Path, *args: object, **kwargs: object) -> object:
        looked.append(path)
        shutil.rmtree(tmp_path / "cache")
        (tmp_path / "cache").mkdir()
        return check(path, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr("tracker.checkpoints.audit.inspect.check", gone)
    assert run(["audit", *wanted]) == 0
    assert len(looked) == 1  # the second was gone with the first
    (entry,) = audit_file.read(tmp_path / "tracker-store").values()
    assert entry.findings == ()
