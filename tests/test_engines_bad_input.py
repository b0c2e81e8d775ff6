"""What cannot be measured fails alone, with its reason on record; the sweep goes on with the next unit."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    RwkvConfig,
    RwkvForCausalLM,
)

from tracker.checkpoints import discover_folder
from tracker.cli import run
from tracker.engines.inline import run_inline
from tracker.engines.worker import Worker
from tracker.errors import RequestError
from tracker.measurement.probe import probe_spec
from tracker.models.reuse import ReusedModel
from tracker.records import Conventions, Outcome, PlannedUnit, ProbeSource, Recorded, Unit
from tracker.store import Results, Store, open_store
from tracker.store.unlike import find_unlike

TENSOR = "gpt_neox.layers.1.mlp.dense_h_to_4h.weight"


def saved(folder: Path, real: Path, seed: int = 0, **sizes: int) -> Path:
    """A random GPT-NeoX with the real tokenizer of the 260K stories model, which has 512 ids."""
    fields = {"vocab_size": 512, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    fields |= {"intermediate_size": 64, "max_position_embeddings": 64}
    torch.manual_seed(seed)
    GPTNeoXForCausalLM(GPTNeoXConfig(**(fields | sizes))).save_pretrained(folder)
    tokenizer(folder, real)
    return folder


def tokenizer(folder: Path, real: Path) -> None:
    for file in (real / "stories260k").glob("*token*"):
        shutil.copy(file, folder)


def without_attention(folder: Path, real: Path) -> None:
    MambaForCausalLM(
        MambaConfig(vocab_size=512, hidden_size=32, num_hidden_layers=2, state_size=4)
    ).save_pretrained(folder)
    tokenizer(folder, real)


def recurrent(folder: Path, real: Path) -> None:
    RwkvForCausalLM(RwkvConfig(vocab_size=512, hidden_size=32, num_hidden_layers=2)).save_pretrained(folder)
    tokenizer(folder, real)


def with_nan(folder: Path, real: Path) -> None:
    file = saved(folder, real) / "model.safetensors"
    state = load_file(file)
    state[TENSOR][3, 3] = float("nan")
    save_file(state, file, {"format": "pt"})


def of_few_positions(folder: Path, real: Path) -> None:
    saved(folder, real, max_position_embeddings=16)


def of_small_vocabulary(folder: Path, real: Path) -> None:
    saved(folder, real, vocab_size=100)


def without_weights(folder: Path, real: Path) -> None:
    (saved(folder, real) / "model.safetensors").unlink()


def cut_short(folder: Path, real: Path) -> None:
    file = saved(folder, real) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def of_another_shape(folder: Path, real: Path) -> None:
    config = saved(folder, real) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"intermediate_size": 48}))


def without_tokenizer(folder: Path, real: Path) -> None:
    saved(folder, real)
    for file in folder.glob("*token*"):
        file.unlink()


BAD = {
    without_attention: "a model of type mamba has no attention heads, so there is nothing to measure",
    recurrent: "a model of type rwkv has no attention heads, so there is nothing to measure",
    with_nan: f"weights hold NaN or infinite values in {TENSOR}",
    of_few_positions: "probe.n=24 is longer than the model's 16 positions; lower probe.n",
    of_small_vocabulary: "is beyond the model's vocabulary of 100: the tokenizer is another model's",
    without_weights: "no weights in",
    cut_short: "the file is truncated or damaged",
    of_another_shape: "mismatched keys gpt_neox.layers.0.mlp.dense_",
    without_tokenizer: "no tokenizer in this folder; give probe.tokenizer=FOLDER or probe.ids=FILE",
}


def swept(root: Path, store: Path, stream: str = "auto") -> tuple[list[Outcome], Results]:
    probe = probe_spec(ProbeSource(), name="default", n=24, number=2)
    conventions = Conventions(block=8, theory_tokens=8)
    units = [Unit(each, probe, conventions) for each in discover_folder(root)]
    worker = Worker(Store(store), ProbeSource(), "cpu", stream=stream)
    return list(run_inline([PlannedUnit(unit, "to do") for unit in units], worker)), open_store(store)


@pytest.fixture(scope="module", params=["never", "always"])
def bad_between_good(
    request: pytest.FixtureRequest, real: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Outcome], Results]:
    folder = tmp_path_factory.mktemp("bad")
    saved(folder / "mine" / "step0", real, 1)
    for step, make in enumerate(BAD, start=1):
        make(folder / "mine" / f"step{step}", real)
    saved(folder / "mine" / "step99", real, 3)
    return swept(folder / "mine", folder / "store", request.param)


def test_the_sweep_goes_on_to_the_last(bad_between_good: tuple[list[Outcome], Results]):
    outcomes, results = bad_between_good
    wanted = ["ok", *["failed"] * len(BAD), "ok"]
    assert [outcome.status for outcome in outcomes] == wanted
    rows = results.checkpoints().sort("step")
    assert rows["status"].to_list() == wanted
    assert rows["spectral_entropy"].is_null().to_list() == [status == "failed" for status in wanted]


@pytest.mark.parametrize("make", BAD, ids=lambda make: make.__name__)
def test_a_bad_checkpoint_is_recorded_with_its_reason(bad_between_good: tuple[list[Outcome], Results], make):
    outcomes, results = bad_between_good
    step = 1 + list(BAD).index(make)
    reason = results.checkpoints().filter(step=step)["reason"].item()
    assert reason == outcomes[step].reason
    assert reason.startswith(f"mine seed 0 step {step}: ")
    assert BAD[make] in reason
    assert "\n" not in reason


def test_what_follows_a_bad_checkpoint_is_what_it_would_have_been_alone(tmp_path: Path, real: Path):
    root = tmp_path / "mine"
    saved(root / "step1", real, 1)
    with_nan(root / "step2", real)
    saved(root / "step3", real, 3)
    _, together = swept(root, tmp_path / "store")
    shutil.rmtree(root / "step1")
    shutil.rmtree(root / "step2")
    _, alone = swept(root, tmp_path / "other")
    mine, theirs = (
        results.heads().filter(step=3).drop("suite").sort("layer", "head") for results in (together, alone)
    )
    assert mine.equals(theirs)


def test_block_by_block_gives_the_same_tables_as_whole(tmp_path: Path, real: Path):
    root = tmp_path / "mine"
    for step in (1, 2):
        saved(root / f"step{step}", real, step)
    _, whole = swept(root, tmp_path / "whole", "never")
    _, blocks = swept(root, tmp_path / "blocks", "always")
    for table in ("heads", "layers", "sequences"):
        mine, theirs = (getattr(each, table)() for each in (blocks, whole))
        assert mine.height > 0
        assert mine.equals(theirs), table


@pytest.mark.parametrize("odd", [0, 2])
def test_a_checkpoint_of_another_architecture_is_named_and_its_siblings_count(
    odd: int, tmp_path: Path, real: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    for step in range(4):
        saved(tmp_path / "mine" / f"step{step}", real, step, num_hidden_layers=3 if step == odd else 2)
    request = ["sweep", "suite=folder", "suite.path=mine", "sink=none", "engine=inline", "probe.sequences=2",
               "probe.n=24"]  # fmt: skip
    for again in (False, True):
        assert run(request) == 1
        said = " ".join(capsys.readouterr().out.split())
        assert f"{0 if again else 4} measured now, 0 not measured" in said
        why = "its architecture (3 layers of 2 heads, width 32) is not that of the model's other checkpoints"
        assert said.count(f"{why} (2 layers of 2 heads, width 32)") == 1
    with pytest.warns(UserWarning, match=f"step-{odd}[.].*left out"):
        results = open_store("tracker-store")
    assert sorted(results.checkpoints()["step"]) == sorted({0, 1, 2, 3} - {odd})
    page = (tmp_path / "tracker-store" / "dashboard.html").read_text()
    assert '"status":"unlike"' in page


def test_a_checkpoint_that_fails_by_itself_tells_nothing_of_its_siblings(tmp_path: Path, real: Path):
    saved(tmp_path / "mine" / "step0", real, 0, num_hidden_layers=3)
    (tmp_path / "mine" / "step0" / "model.safetensors").write_bytes(b"no weights")
    for step in (1, 2):
        saved(tmp_path / "mine" / f"step{step}", real, step)
    outcomes, _ = swept(tmp_path / "mine", tmp_path / "store")
    assert [outcome.status for outcome in outcomes] == ["failed", "ok", "ok"]


def test_of_as_many_of_each_kind_the_later_are_the_model(tmp_path: Path):
    def record(step: int, width: int, ids: str | None = "a") -> tuple[Path, Recorded]:
        place = tmp_path / "checkpoints" / "s" / "m" / "seed-0" / f"step-{step}.k"
        return place, Recorded("k", "ok", None, None, 1.0, ids, "s", "m", 0, step, "p", "c", "r", "float32",
                               2, 2, width)  # fmt: skip

    found = find_unlike([record(0, 64), record(1, 64), record(2, 32), record(3, 32, None)])
    assert [each.as_hole()["step"] for each in found] == [0, 1]
    (other,) = find_unlike([record(0, 64), record(1, 64, "b"), record(2, 64, None), record(3, 64)])
    assert "its tokenizer turns the probe into other ids (b) than the model's other checkpoints (a)" in str(
        other
    )
    old = replace(record(0, 64)[1], n_layers=None)
    assert find_unlike([(tmp_path, old), record(1, 32)]) == []


def test_checkpoints_of_one_model_share_one_module(tmp_path: Path, real: Path):
    live = ReusedModel()
    first = live.load(saved(tmp_path / "step1", real, 1))
    assert live.load(saved(tmp_path / "step2", real, 2)) is first


def test_another_way_to_run_is_refused_before_anything_is_recorded(tmp_path: Path, real: Path):
    saved(tmp_path / "mine" / "step1", real)
    with pytest.raises(RequestError, match=r"engine.stream=sometimes: invalid value; expected one of auto, "):
        swept(tmp_path / "mine", tmp_path / "store", "sometimes")
    assert not list((tmp_path / "store").rglob("*.parquet"))
