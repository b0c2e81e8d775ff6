import json
import re
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from saved_models import FORMS, expected, load, save

from tracker import checkpoints
from tracker.checkpoints import Labels, discover_folder, passed_over
from tracker.errors import CheckpointError, MissingCheckpoint, RequestError
from tracker.records import Checkpoint

fails = partial(pytest.raises, CheckpointError)
refused = partial(pytest.raises, RequestError)
missing = partial(pytest.raises, MissingCheckpoint)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One model in every form; tests copy what they damage."""
    root = tmp_path_factory.mktemp("saved")
    return {form: save(root / form / "step7", form, seed=1) for form in FORMS}


@pytest.fixture
def copied(saved: dict[str, Path], tmp_path: Path):
    def copy(form: str) -> Path:
        return Path(shutil.copytree(saved[form], tmp_path / "run" / "step7"))

    return copy


def only(path: Path) -> Checkpoint:
    (checkpoint,) = discover_folder(path)
    return checkpoint


def steps(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
    return root


@pytest.mark.parametrize("form", FORMS)
def test_every_form_loads_equal(saved: dict[str, Path], form: str) -> None:
    fetched = checkpoints.fetch(only(saved[form].parent))
    assert fetched.path == saved[form]
    want = expected(1, shift=1.0 if form == "both" else 0.0)
    tensors = load(fetched.path)
    assert tensors.keys() == want.keys()
    assert all(torch.equal(tensors[name], want[name]) for name in want)


def test_steps_in_numeric_order_with_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps(tmp_path / "run", "step2", "step10", "checkpoint-5", "step20-tokens1B", "logs")
    found = discover_folder(tmp_path / "run", Labels("mine", seed=4))
    assert [(one.step, one.tokens_seen) for one in found] == [(2, None), (5, None), (10, None), (20, 10**9)]
    assert {(one.suite, one.model, one.seed, one.kind) for one in found} == {("mine", "run", 4, "folder")}
    assert found[0].location == str(tmp_path / "run")
    assert found[0].revision == "step2"
    assert found[0].exists is True
    monkeypatch.chdir(tmp_path)
    assert discover_folder("run/../run", Labels("mine", seed=4)) == found


def test_trainer_output_with_final_model_beside_gives_the_steps(tmp_path: Path) -> None:
    steps(tmp_path, "checkpoint-500", "checkpoint-1000")
    (tmp_path / "config.json").write_text("{}")
    assert [one.step for one in discover_folder(tmp_path, Labels(model="m"))] == [500, 1000]


def test_one_model_folder(tmp_path: Path) -> None:
    folder = steps(tmp_path, "stories") / "stories"
    (folder / "config.json").write_text("{}")
    one = only(folder)
    assert (one.model, one.step, one.seed) == ("stories", 0, 0)
    assert Path(one.location) / one.revision == folder
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 12}))
    assert only(folder).step == 12
    assert [c.step for c in discover_folder(folder, Labels(model="x"), step=3)] == [3]
    (folder / "trainer_state.json").write_text("[")
    with refused(match=r"trainer_state.json reports no global_step .*; set suite.step"):
        discover_folder(folder)
    assert [c.step for c in discover_folder(folder, step=3)] == [3]


def test_several_models_with_and_without_seeds(tmp_path: Path) -> None:
    steps(tmp_path, "large/step1", "small/seed-1/step1", "small/seed-0/step4", "small/seed-0/step1", "wandb")
    found = [(one.model, one.seed, one.step) for one in discover_folder(tmp_path, Labels(seed=9))]
    assert found == [("large", 9, 1), ("small", 0, 1), ("small", 0, 4), ("small", 1, 1)]
    assert [one.seed for one in discover_folder(tmp_path / "small")] == [0, 0, 1]
    with refused(match=r"suite.model=x: names one model, but .* \(large, small\)"):
        discover_folder(tmp_path, Labels(model="x"))


def test_own_pattern(tmp_path: Path) -> None:
    steps(tmp_path, "it3_s2", "step9")
    (one,) = discover_folder(tmp_path, pattern=r"it(?P<step>\d+)_s(?P<seed>\d+)")
    assert (one.step, one.seed) == (3, 2)


def test_requests_that_cannot_be_met(tmp_path: Path) -> None:
    with refused(match=r"suite.path=.*absent: no such folder"):
        discover_folder(tmp_path / "absent")
    steps(tmp_path / "a", "other", "things")
    message = r"no checkpoint there; looked for folders named step1000, .*config.json; found other, things$"
    with refused(match=message):
        discover_folder(tmp_path / "a")
    with refused(match=r"looked for folders matching x\(\?P<step>\\d\+\)"):
        discover_folder(tmp_path / "a", pattern=r"x(?P<step>\d+)")
    with refused(match="found nothing$"):
        discover_folder(tmp_path / "a" / "other")
    with refused(match="has no group named step"):
        discover_folder(tmp_path / "a", pattern="x")
    steps(tmp_path / "b", "step5", "step05")
    with refused(match="step05 and step5 in .* are both step 5 of b seed 0"):
        discover_folder(tmp_path / "b")
    steps(tmp_path / "c", "step5")
    with refused(match=r"suite.step=1: is for a folder that is one checkpoint.*\(step5\)"):
        discover_folder(tmp_path / "c", step=1)


def test_missing_folder(copied) -> None:
    folder = copied("safetensors")
    one = only(folder.parent)
    shutil.rmtree(folder)
    with missing(match="^run seed 0 step 7: there is no folder .*step7$"):
        checkpoints.fetch(one)


def damage(folder: Path, name: str, change) -> None:
    path = folder / name
    path.write_bytes(change(path.read_bytes()))


def renamed_shard(name: str):
    """An index that leads elsewhere."""

    def change(content: bytes) -> bytes:
        index = json.loads(content)
        index["weight_map"] = dict.fromkeys(index["weight_map"], name)
        return json.dumps(index).encode()

    return change


INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize(
    ("form", "name", "change", "message"),
    [
        ("safetensors", "model.safetensors", lambda b: b[:-1], "its header says .* truncated or damaged"),
        ("safetensors", "model.safetensors", lambda b: b[: len(b) // 50], "not a whole safetensors file"),
        ("safetensors", "model.safetensors", lambda b: b"", "not a whole safetensors file"),
        ("safetensors", "model.safetensors", lambda b: b[:8] + b"x" + b[9:], "not a whole safetensors file"),
        (
            "safetensors",
            "model.safetensors",
            lambda b: b"version https://git-lfs.github.com/spec/v1\n",
            "Git LFS pointer, not the weights; run `git lfs pull`",
        ),
        ("bin", "pytorch_model.bin", lambda b: b[:-100], "ends before its directory: the file is truncated"),
        ("bin", "pytorch_model.bin", lambda b: b"hello", "not a file that torch.save wrote"),
        ("sharded bin", "pytorch_model-00002-of-00002.bin", lambda b: b[:-9], "the file is truncated"),
        ("sharded safetensors", INDEX, lambda b: b"[]", "is not an index of weight shards"),
        ("sharded safetensors", INDEX, lambda b: b'{"weight_map": {}}', "names no shard"),
        ("sharded safetensors", INDEX, renamed_shard("../x.safetensors"), "'../x.safetensors', which is not"),
        ("sharded safetensors", INDEX, renamed_shard("/etc/passwd"), "'/etc/passwd', which is not a plain"),
        ("sharded safetensors", INDEX, renamed_shard(".."), "which is not a plain file name"),
        ("sharded safetensors", INDEX, renamed_shard("a\\b"), "which is not a plain file name"),
    ],
)
def test_faults_name_model_step_and_file(copied, form: str, name: str, change, message: str) -> None:
    folder = copied(form)
    one = only(folder.parent)
    checkpoints.fetch(one)
    damage(folder, name, change)
    with fails(match=f"^run seed 0 step 7: .*{re.escape(name)}.*{message}"):
        checkpoints.fetch(one)


def test_missing_files(copied) -> None:
    folder = copied("sharded safetensors")
    one = only(folder.parent)
    shard = sorted(folder.glob("*-of-*"))[1]
    shard.unlink()
    with fails(match=f"the weight file .*{shard.name} is missing"):
        checkpoints.fetch(one)
    for path in [*folder.glob("*-of-*"), folder / INDEX]:
        path.unlink()
    with fails(match=r"no weights in .*, found config.json, tokenizer.json$"):
        checkpoints.fetch(one)
    (folder / "config.json").unlink()
    with fails(match=r"step7 has no config.json"):
        checkpoints.fetch(one)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux for a file that fails to read")
def test_folder_that_cannot_be_read(copied) -> None:
    folder = copied("bin")
    one = only(folder.parent)
    (folder / "pytorch_model.bin").unlink()
    (folder / "pytorch_model.bin").symlink_to("/proc/self/mem")
    with fails(match="^run seed 0 step 7: .*step7 cannot be read: .*; check its perm"):
        checkpoints.fetch(one)


def test_fingerprint_follows_content_not_place(saved: dict[str, Path], copied) -> None:
    first = checkpoints.fetch(only(saved["safetensors"].parent)).commit
    folder = copied("safetensors")
    one = only(folder.parent)
    assert checkpoints.fetch(one).commit == first
    assert re.fullmatch("files-[0-9a-f]{12}", first or "")
    (folder / "notes.txt").write_text("not part of it")
    assert checkpoints.fetch(one).commit == first
    damage(folder, "model.safetensors", lambda content: content[:-1] + bytes([content[-1] ^ 1]))
    second = checkpoints.fetch(one).commit
    assert second != first
    damage(folder, "config.json", lambda content: content.replace(b"0.25", b"0.50"))
    assert checkpoints.fetch(one).commit not in (first, second)


def test_fingerprint_of_a_large_file_reads_its_ends(tmp_path: Path) -> None:
    from tracker.checkpoints.files import fingerprint

    (tmp_path / "config.json").write_text("{}")
    large = tmp_path / "model.safetensors"
    seen = set()
    for position in (0, 1 << 20, 5 << 19, (3 << 20) - 1):
        content = bytearray(3 << 20)
        content[position] = 1
        large.write_bytes(content)
        seen.add(fingerprint(tmp_path, [large]))
    # The first MiB and the last one count; the second position lies between them.
    assert len(seen) == 4


def test_models_beside_step_folders_that_were_not_read_are_named(tmp_path: Path):
    for name in ("step0", "step8", "final", "epoch-3"):
        save(tmp_path / "mine" / name)
    (tmp_path / "mine" / "runs").mkdir()
    found = discover_folder(tmp_path / "mine")
    assert [each.step for each in found] == [0, 8]
    (note,) = passed_over(found, tmp_path / "mine")
    assert "not read as checkpoints: epoch-3, final" in note
    assert r"suite.pattern='epoch\-(?P<step>\d+)'" in note
    assert passed_over(discover_folder(tmp_path / "mine" / "final"), tmp_path / "mine" / "final") == []
