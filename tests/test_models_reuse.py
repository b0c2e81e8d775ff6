"""The next checkpoint's weights go into the module that is there, bit for bit, or nothing is kept."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from saved_models import FORMS, save
from test_models_capture import llama, neox
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from tracker.errors import CheckpointError
from tracker.models import load_model
from tracker.models.reuse import ReusedModel


def resident() -> int:
    """Bytes of memory that this process takes now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS"))


def tied(seed: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=64, n_embd=32, n_layer=2, n_head=4)).eval()


def same(model: PreTrainedModel, path: Path, dtype: str = "float32") -> None:
    """The model is what a fresh load of the folder gives: every tensor, and what it computes."""
    fresh = load_model(path, dtype=dtype)
    mine, theirs = dict(model.named_parameters()), dict(fresh.named_parameters())
    assert mine.keys() == theirs.keys()
    for name, tensor in (*theirs.items(), *fresh.named_buffers()):
        assert torch.equal(model.get_parameter(name) if name in mine else model.get_buffer(name), tensor), (
            name
        )
    ids = torch.arange(40).reshape(2, 20)
    for each in (model, fresh):
        each.set_attn_implementation("eager")
    with torch.inference_mode():
        assert torch.equal(model(ids).logits, fresh(ids).logits)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_file_goes_into_the_module_that_is_there(tmp_path: Path, form: str, dtype: str):
    reused = ReusedModel()
    folders = [save(tmp_path / str(seed), form, seed) for seed in (0, 1)]
    first = reused.load(folders[0], dtype=dtype)
    second = reused.load(folders[1], dtype=dtype)
    assert second is first
    same(second, folders[1], dtype)


@pytest.mark.parametrize("make", [lambda seed: llama(), tied])
def test_other_families_and_tied_weights(tmp_path: Path, make):
    reused = ReusedModel()
    for seed in (0, 1):
        model = make(seed)
        with torch.no_grad():
            model.get_input_embeddings().weight.add_(seed)
        model.save_pretrained(tmp_path / str(seed))
    first = reused.load(tmp_path / "0")
    assert reused.load(tmp_path / "1") is first
    same(first, tmp_path / "1")
    head: Any = first.get_output_embeddings()
    assert (head.weight is first.get_input_embeddings().weight) == (make is tied)


def test_tensors_of_old_files_that_no_model_holds_any_more_do_not_matter(tmp_path: Path):
    folder = save(tmp_path / "old", "bin")
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    for layer in range(2):
        name = f"gpt_neox.layers.{layer}.attention"
        state[f"{name}.bias"] = torch.ones(1, 1, 64, 64, dtype=torch.bool)
        state[f"{name}.masked_bias"] = torch.tensor(-1e9)
        state[f"{name}.rotary_emb.inv_freq"] = torch.ones(2)
    torch.save(state, folder / "pytorch_model.bin")
    reused = ReusedModel()
    assert reused.load(folder) is reused.load(folder)
    same(reused.load(folder), folder)


def test_another_configuration_is_another_module(tmp_path: Path):
    reused = ReusedModel()
    neox().save_pretrained(tmp_path / "a")
    neox(rotary_pct=0.5).save_pretrained(tmp_path / "b")
    first = reused.load(tmp_path / "a")
    second = reused.load(tmp_path / "b")
    assert second is not first
    same(second, tmp_path / "b")
    assert reused.load(tmp_path / "b", dtype="float64") is not second


def test_fields_that_say_nothing_of_the_model_keep_the_module(tmp_path: Path):
    reused = ReusedModel()
    folder = save(tmp_path / "a")
    first = reused.load(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"transformers_version": "5.0", "torch_dtype": "float32", "_name_or_path": "x"}
    (folder / "config.json").write_text(json.dumps(config))
    assert reused.load(folder) is first


def spoil(folder: Path, change) -> None:
    path = folder / "pytorch_model.bin"
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)


NAME = "gpt_neox.layers.1.attention.dense.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop(NAME), f"missing keys {NAME}"),
        (lambda state: state[NAME][3].fill_(float("nan")), f"NaN or infinite values in {NAME}"),
        (lambda state: state.update({NAME: state[NAME][:7]}), f"mismatched keys {NAME}"),
    ],
)
def test_after_a_failure_nothing_stale_is_left(tmp_path: Path, change, message: str):
    reused = ReusedModel()
    good, bad = save(tmp_path / "good", "bin"), save(tmp_path / "bad", "bin", 1)
    first = reused.load(good)
    spoil(bad, change)
    with pytest.raises(CheckpointError, match=message) as mine:
        reused.load(bad)
    with pytest.raises(CheckpointError) as theirs:
        load_model(bad)
    assert str(mine.value) == str(theirs.value)
    assert reused.bytes == 0
    again = reused.load(good)
    assert again is not first
    same(again, good)


def test_a_tensor_of_unknown_name_makes_it_load_from_the_start(tmp_path: Path):
    reused = ReusedModel()
    good, odd = save(tmp_path / "good", "bin"), save(tmp_path / "odd", "bin", 1)
    spoil(odd, lambda state: state.update({"gpt_neox.surplus": torch.ones(2)}))
    first = reused.load(good)
    second = reused.load(odd)
    assert second is not first
    same(second, odd)


def test_the_files_may_go_once_their_weights_are_in_the_module(tmp_path: Path):
    reused = ReusedModel()
    model = reused.load(save(tmp_path / "a"))
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    weights = tmp_path / "a" / "model.safetensors"
    with open(weights, "r+b") as file:
        file.write(bytes(weights.stat().st_size))
    for name, tensor in model.named_parameters():
        assert torch.equal(tensor, before[name])
    shutil.rmtree(tmp_path / "a")


def test_two_hundred_checkpoints_leave_no_memory_behind(tmp_path: Path):
    reused = ReusedModel()
    sizes = {"hidden_size": 256, "intermediate_size": 1024, "vocab_size": 512}
    for seed in (0, 1):
        model = neox(**sizes)
        with torch.no_grad():
            model.get_input_embeddings().weight.add_(seed)
        model.save_pretrained(tmp_path / str(seed))
    expected = [load_model(tmp_path / str(seed)).get_input_embeddings().weight.clone() for seed in (0, 1)]
    first = reused.load(tmp_path / "0")
    for number in range(10):
        reused.load(tmp_path / str(number % 2))
    before = resident()
    for number in range(200):
        model = reused.load(tmp_path / str(number % 2))
        assert model is first
        assert torch.equal(model.get_input_embeddings().weight, expected[number % 2])
    # One model has 11 MB: a single copy kept would show, and 200 would be 2 GB.
    assert resident() - before < 5 << 20
