"""What a checkpoint, a hub or a wrapper holds ends in a clear error, and no secret is shown."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from live_material import nano_model

from tracker.checkpoints.answers import Subject
from tracker.checkpoints.files import whole
from tracker.checkpoints.listing import Inspected, RemoteFile, with_digests
from tracker.errors import CheckpointError, redact
from tracker.models.loading import failures_reported
from tracker.models.unwrap import unwrap

ABOUT = Subject("owner/name", "main", "suite.repo")


class PanicException(BaseException):
    """As pyo3 raises it: not an Exception."""


@pytest.mark.parametrize("kind", [PanicException, RecursionError, MemoryError])
def test_whatever_loading_raises_is_a_failure_of_the_checkpoint(kind):
    with pytest.raises(CheckpointError, match=kind.__name__), failures_reported(Path("folder")):
        raise kind("broken")


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_interruptions_pass(kind):
    with pytest.raises(kind), failures_reported(Path("folder")):
        raise kind


@pytest.mark.parametrize("digest", ["../../../../x", "a" * 39, "A" * 40, "/etc/x", "a" * 41])
def test_a_hash_that_is_none_never_becomes_a_path(digest):
    with pytest.raises(CheckpointError, match="nothing was fetched"):
        with_digests(Inspected("a" * 40, (RemoteFile("config.json", 1, None, digest),)), ABOUT)


@pytest.mark.parametrize("name", ["../config.json", "/config.json", "a/../../config.json"])
def test_a_file_outside_the_repository_is_refused(name):
    with pytest.raises(CheckpointError, match="nothing was fetched"):
        with_digests(Inspected("a" * 40, (RemoteFile(name, 1, None, "a" * 40),)), ABOUT)


def test_secrets_are_cut_from_messages(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    text = "Bearer abc.def and hf_abcdefghijklmnopqrst and 0123456789abcdef"
    assert redact(text) == "Bearer [redacted] and [redacted] and [redacted]"
    assert str(CheckpointError(text)) == redact(text)


def test_an_adapter_is_unwrapped():
    model = nano_model()
    assert unwrap(SimpleNamespace(module=None, get_base_model=lambda: model)) is model


def test_a_header_or_an_index_nested_without_end_is_a_failure_of_the_checkpoint(tmp_path):
    nested = b"[" * 200_000 + b"]" * 200_000
    (tmp_path / "config.json").write_text("{}")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(len(nested).to_bytes(8, "little") + nested)
    with pytest.raises(CheckpointError):
        whole(tmp_path, "model")
    weights.unlink()
    (tmp_path / "model.safetensors.index.json").write_bytes(nested)
    with pytest.raises(CheckpointError):
        whole(tmp_path, "model")
