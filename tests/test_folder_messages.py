"""What people save: read where it can be, else refused in one line that says what to do."""

import json
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from saved_models import save

import tracker
from tracker.checkpoints.files import whole
from tracker.checkpoints.folder import discover
from tracker.errors import CheckpointError, RequestError
from tracker.measurement.probe import load_tokenizer, read_text
from tracker.models.loading import load_model
from tracker.models.streaming import stream_model
from tracker.records import ProbeSource

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path / "step-1")


def renamed(folder: Path, rename: Any) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file({rename(name): tensor for name, tensor in tensors.items()}, folder / WEIGHTS, {"format": "pt"})


def pickled(folder: Path, content: Any) -> None:
    (folder / WEIGHTS).unlink()
    torch.save(content, folder / "pytorch_model.bin")


def configured(folder: Path, **fields: Any) -> None:
    config = json.loads((folder / "config.json").read_text()) | fields
    (folder / "config.json").write_text(json.dumps(config))


def heads(model: Any) -> pl.DataFrame:
    """What is measured of a model, without its name."""
    return tracker.track(model, torch.arange(40).view(2, 20)).heads.drop("model")


def same(folder: Path, load: Any) -> bool:
    """Whether a folder measures as the model that was saved there before it was spoilt."""
    return heads(load(folder)).equals(heads(load_model(save(folder.with_name("whole")))))


@pytest.mark.parametrize("load", [load_model, stream_model])
@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: f"_fsdp_wrapped_module.{name}".replace(
            "layers.0.", "layers.0._checkpoint_wrapped_module."
        ),
        lambda name: f"module.module.{name}",
    ],
)
def test_names_that_wrappers_changed_are_read(folder: Path, rename: Any, load: Any):
    renamed(folder, rename)
    assert same(folder, load)


@pytest.mark.parametrize("load", [load_model, stream_model])
@pytest.mark.parametrize("nest", ["model", "state_dict", "model_state_dict", "module"])
def test_weights_beside_an_optimizer_are_read(folder: Path, nest: str, load: Any):
    state = {f"module.{name}": tensor for name, tensor in load_file(folder / WEIGHTS).items()}
    pickled(folder, {nest: state, "optimizer": {"lr": 0.1}, "step": 3})
    assert same(folder, load)


class Net(torch.nn.Module):
    pass


def placeholders(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file({name: torch.empty(0) for name in tensors}, folder / WEIGHTS, {"format": "pt"})


FAULTS: dict[str, tuple[Any, str]] = {
    "placeholders": (placeholders, r"shape \[0\], a placeholder of DeepSpeed ZeRO-3; run zero_to_fp32.py"),
    "more rows": (
        lambda folder: configured(folder, vocab_size=136),
        r"mismatched keys .*embed_in.weight \(\[128, 32\] in the files, \[136, 32\] by config.json\)",
    ),
    "a module": (
        lambda folder: pickled(folder, Net()),
        r"pickled module or other .* save its state_d",
    ),
    "a list": (lambda folder: pickled(folder, [1, 2]), "holds a list, not tensors by name"),
    "remote code": (
        lambda folder: configured(folder, model_type="own", auto_map={"AutoConfig": "own.Config"}),
        "the model needs its own code, which tracker does not run$",
    ),
    "a million layers": (
        lambda folder: configured(folder, num_hidden_layers=1_000_000),
        "says num_hidden_layers=1000000, but the weight files hold 28 tensors",
    ),
    "a wide model": (lambda folder: configured(folder, hidden_size=10**9), "says hidden_size=1000000000"),
    "a long model": (
        lambda folder: configured(folder, max_position_embeddings=10**12),
        "no model of that length",
    ),
    "a list of fields": (
        lambda folder: (folder / "config.json").write_text("[]"),
        "is a list, not an object",
    ),
}


@pytest.mark.parametrize("load", [load_model, stream_model])
@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_read_says_what_to_do(folder: Path, fault: str, load: Any):
    spoil, message = FAULTS[fault]
    spoil(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert "https" not in str(caught.value)


def test_an_adapter_alone_names_its_model(folder: Path):
    (folder / WEIGHTS).unlink()
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "EleutherAI/pythia-70m"}')
    (folder / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="an adapter of EleutherAI/pythia-70m; merge it first"):
        whole(folder, "m")
    with pytest.raises(RequestError, match="an adapter of EleutherAI/pythia-70m; merge it first"):
        discover(folder)


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_a_link_to_nothing_names_its_target(folder: Path, name: str):
    (folder / name).unlink()
    os.symlink("/gone/blobs/abc", folder / name)
    with pytest.raises(CheckpointError, match=f"{name} is a link to /gone/blobs/abc, which is gone"):
        whole(folder, "m")


def test_a_head_of_its_own_is_streamed_where_the_configuration_ties_it(folder: Path):
    configured(folder, tie_word_embeddings=True)
    ids = torch.arange(40).view(2, 20)
    found, streamed = (tracker.track(load(folder), ids) for load in (load_model, stream_model))
    assert streamed.heads.drop("model").equals(found.heads.drop("model"))
    own = tracker.track(load_model(save(folder.with_name("untied"))), ids).summary["loss"].item()
    assert found.summary["loss"].item() == streamed.summary["loss"].item() == own


def test_a_tokenizer_that_needs_sentencepiece_says_so(tmp_path: Path):
    pytest.importorskip("transformers")
    (tmp_path / "tokenizer.model").write_bytes(b"\x0a\x0bnot a model")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    with pytest.raises(CheckpointError, match=r"install sentencepiece|no tokenizer loads"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "x"}\n{"body": "y", "id": 1}\n', "line 2 has body, id; set probe.field"),
        ("a.jsonl", '{"text": 3}\n', "line 1 holds a int there"),
        ("a.json", '{"text": "x"}', "holds no array of documents"),
        ("a.json", '[{"text": "x"}, 4]', "document 2 is no object; set probe.field"),
        ("a.json", "[" * 200_000, "cannot be read"),
    ],
)
def test_documents_without_a_text_name_line_and_fields(tmp_path: Path, name: str, content: str, message: str):
    (tmp_path / name).write_text(content)
    with pytest.raises(RequestError, match=message):
        read_text(ProbeSource(text=str(tmp_path / name)))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"text": "one"}\n{"text": null}\n\n{"text": "two"}\n'),
        ("a.json", '[{"text": "one"}, {"text": null}, {"text": "two"}]'),
        ("a.json", '["one", "two"]'),
    ],
)
def test_documents_are_joined_and_null_ones_skipped(tmp_path: Path, name: str, content: str):
    (tmp_path / name).write_text(content)
    assert read_text(ProbeSource(text=str(tmp_path / name))) == "one\n\ntwo"
