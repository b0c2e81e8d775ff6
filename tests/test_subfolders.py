"""Steps as folders of one revision, alone and on a hub that has every other form beside them."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import close_session
from loopback_hub import Hub, loopback_hub, use_hub
from saved_models import expected, load, save
from test_config import composed
from test_parts import HEAD
from test_parts import save as save_larger

from tracker import open_store
from tracker.checkpoints import CheckpointCache, discover_hub, files, headers, inspect
from tracker.cli import run
from tracker.errors import CheckpointError, MissingCheckpoint
from tracker.planning.resolve import resolve
from tracker.records import Checkpoint

REPO = "lab/below"
PROBE = ("probe.ids=ids.json", "probe.n=48", "probe.sequences=2", "sink=none")
REQUEST = ("suite=hub", f"suite.repo={REPO}", *PROBE, "cache.folder=cache")
ABOVE = ("config.json", "tokenizer.json")
FOLDERS = ("checkpoints/step_1000", "checkpoints/step_2000", "step3000")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tracker"])
    Path("ids.json").write_text(json.dumps([[1] * 48] * 2), encoding="utf-8")
    with loopback_hub(tmp_path / "hub") as running:
        use_hub(monkeypatch, running, tmp_path / "home")
        yield running
    close_session()


@pytest.fixture
def repo(hub: Hub) -> Path:
    """The branch main of a repository: two steps whose configuration and tokenizer lie at the top, a third
    that has its own, an optimizer beside each, and a folder that is no step."""
    main = hub.root / REPO / "main"
    for seed, folder in enumerate(FOLDERS, start=1):
        save(main / folder, "sharded safetensors" if seed == 2 else "safetensors", seed=seed)
        (main / folder / "optimizer.pt").write_bytes(b"x" * 100_000)
    for name in ABOVE:
        shutil.copy(main / FOLDERS[0] / name, main / name)
        for folder in FOLDERS[:2]:
            (main / folder / name).unlink()
    (main / "onnx").mkdir()
    (main / "onnx" / "model.onnx").write_bytes(b"x")
    return main


def served(hub: Hub) -> set[str]:
    return {line.path.rpartition("/main/")[2] for line in hub.log if "/content/" in line.path}


def test_each_is_found_and_only_its_files_are_fetched(hub: Hub, repo: Path) -> None:
    found = discover_hub(REPO)
    assert [(each.step, each.revision) for each in found] == [
        (1000, "main:checkpoints/step_1000"),
        (2000, "main:checkpoints/step_2000"),
        (3000, "main:step3000"),
    ]
    cache = CheckpointCache(Path("cache").absolute())
    for seed, checkpoint in enumerate(found, start=1):
        assert checkpoint.commit == hub.commit(repo)
        hub.log.clear()
        fetched = cache.fetch(checkpoint).fetched
        assert all(name.startswith(checkpoint.subfolder) for name in served(hub))
        assert not any("optimizer" in name for name in served(hub))
        tensors, want = load(fetched.path), expected(seed)
        assert all(torch.equal(tensors[name], want[name]) for name in want)
        assert (fetched.path / "tokenizer.json").is_file()
        hub.log.clear()
        assert cache.fetch(checkpoint).fetched.path == fetched.path
        assert hub.log == [], "a pinned one that is there costs no request"
    assert not list(cache.folder.glob("models--*/snapshots/*/checkpoints/*/config.json")), (
        "as it is on the hub"
    )


def test_they_are_planned_measured_and_audited(hub: Hub, repo: Path, capsys) -> None:
    assert run(["plan", *REQUEST]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "hub: 3 checkpoints of 1 model, 0 measured, 3 to measure" in said
    assert "onnx" not in said
    assert run(["sweep", *REQUEST, "engine=inline"]) == 0
    rows = open_store("tracker-store").checkpoints().sort("step")
    assert rows["step"].to_list() == [1000, 2000, 3000]
    assert rows["revision"].to_list() == [f"main:{folder}" for folder in FOLDERS]
    assert rows["loss"].n_unique() == 3
    capsys.readouterr()
    assert run(["audit", *REQUEST]) == 0
    assert f"3 checkpoints of {REPO}: weights match their names" in " ".join(capsys.readouterr().out.split())
    shutil.copy(repo / "step3000" / "model.safetensors", repo / FOLDERS[0] / "model.safetensors")
    assert run(["audit", *REQUEST]) == 1
    assert "holds the weights of step 3000" in " ".join(capsys.readouterr().out.split())
    assert run(["plan", *REQUEST]) == 0
    assert "3 measured, 0 to measure" in " ".join(capsys.readouterr().out.split())


def test_a_bounded_cache_removes_one_and_leaves_what_others_need(hub: Hub, repo: Path) -> None:
    cache = CheckpointCache(Path("cache").absolute(), max_bytes=10_000_000)
    first, second, third = (cache.fetch(each) for each in discover_hub(REPO))
    cache.release(first, measured=True)
    assert not (first.fetched.path / "model.safetensors").exists()
    assert torch.equal(load(second.fetched.path)["lm_head.weight"], expected(2)["lm_head.weight"])
    cache.release(third, measured=True)
    again = cache.fetch(discover_hub(REPO)[0])
    cache.release(second, measured=True)
    assert torch.equal(load(again.fetched.path)["lm_head.weight"], expected(1)["lm_head.weight"])
    cache.release(again, measured=True)
    left = {path.name for path in cache.folder.rglob("*") if path.is_file() or path.is_symlink()}
    assert left <= {"lock", "CACHEDIR.TAG"}


def test_without_a_network_they_are_found_in_the_cache(hub: Hub, repo: Path, capsys) -> None:
    assert run(["sweep", *REQUEST, "engine=inline"]) == 0
    capsys.readouterr()
    hub.busy = [(503, 0)] * 100
    assert run(["sweep", *REQUEST, "engine=inline", "store=again"]) == 0
    assert open_store("again").checkpoints()["step"].sort().to_list() == [1000, 2000, 3000]


def test_a_part_of_one_is_fetched_without_the_loss(hub: Hub) -> None:
    main = hub.root / REPO / "main"
    weights = save_larger(main / "step7", seed=1) / "model.safetensors"
    shutil.move(main / "step7" / "config.json", main / "config.json")
    cache = CheckpointCache(Path("cache").absolute(), head=False)
    fetched = cache.fetch(discover_hub(REPO)[0]).fetched
    assert headers.read_header(fetched.path / "model.safetensors").absent == {"embed_out.weight": (8192, 64)}
    assert sum(line.sent for line in hub.log if "/content/" in line.path) < weights.stat().st_size - HEAD
    assert (fetched.path / "config.json").is_file()


def test_what_is_no_checkpoint_any_more_is_one_line(hub: Hub, repo: Path) -> None:
    gone = Checkpoint("hub", "below", 0, 9, "hub", REPO, "main:step9")
    with pytest.raises(
        MissingCheckpoint, match=r"^below seed 0 step 9: lab/below at main:step9: the branch has"
    ):
        inspect(gone)
    (repo / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"at main:checkpoints/step_1000: has no config\.json"):
        inspect(discover_hub(REPO)[0])
    assert files.folders_with_weights(["../step1/model.safetensors", "a/../b/model.safetensors"]) == []


def copies(hub: Hub, saved: Path, place: str) -> None:
    shutil.copytree(saved, hub.root / place, dirs_exist_ok=True)


def test_every_form_at_once(hub: Hub, tmp_path: Path, capsys) -> None:
    """A hub with branches, tags, repositories a step and folders, and one repository that has all of them."""
    saved = save(tmp_path / "saved", seed=1)
    for place in (
        "lab/branches/main", "lab/branches/step1000", "lab/branches/step2000", "lab/branches/stage2-step1000",
        "lab/tags/main", "lab/tags/step1000", "lab/step_1000/main", "lab/step_2000/main",
        "lab/folders/main/step1000", "lab/folders/main/step2000",
        "lab/all/main/step3000", "lab/all/main/step1000", "lab/all/step1000", "lab/all/step2000",
        "lab/all/stage2-step500", "lab/all/main/run7-it400", "lab/all/main/onnx",
    ):  # fmt: skip
        copies(hub, saved, place)
    hub.tags = {("lab/tags", "step1000"), ("lab/all", "step2000")}
    repos = {
        "b": "lab/branches",
        "t": "lab/tags",
        "r": "'lab/step_{1000,2000}'",
        "f": "lab/folders",
        "a": "lab/all",
    }
    given = ",".join(f"{model}:{repo}" for model, repo in repos.items())
    request = ("suite=hub", "suite.repo=null", f"+suite.repos={{{given}}}", *PROBE, "cache.folder=cache")
    sweep = resolve(composed(*request))
    planned = [each.unit.checkpoint for each in sweep.plan.units]
    assert sorted((each.model, each.step, each.revision) for each in planned) == [
        ("a", 1000, "step1000"), ("a", 2000, "step2000"), ("a", 3000, "main:step3000"),
        ("b", 1000, "step1000"), ("b", 2000, "step2000"),
        ("f", 1000, "main:step1000"), ("f", 2000, "main:step2000"),
        ("r", 1000, "main"), ("r", 2000, "main"), ("t", 1000, "step1000"),
    ]  # fmt: skip
    notes = "\n".join(sweep.notes)
    assert (
        "lab/all: step1000 and main:step1000 are both a seed 0 step 1000; main:step1000 is left out" in notes
    )
    assert "lab/all: not read as checkpoints: main:run7-it400" in notes
    assert r"suite.pattern='run\d+\-it(?P<step>\d+)'" in notes
    assert "onnx" not in notes
    for repo in ("lab/branches", "lab/all"):
        assert f"{repo}: stages that are not planned: stage2 (1)" in notes
    both = resolve(composed(*request, "suite.stages=[pretraining,stage2]", "suite.models=[a,b]")).plan.units
    stages = {(each.unit.checkpoint.model, each.unit.checkpoint.step) for each in both}
    assert {("a-stage2", 500), ("b-stage2", 1000), ("a", 1000)} <= stages
    assert run(["sweep", *request, "engine=inline"]) == 0
    rows = open_store("tracker-store").checkpoints()
    assert (rows["status"] == "ok").all()
    assert len(rows) == 10
    assert "stage2" not in "".join(rows["model"])
