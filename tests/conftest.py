"""What every test shares: one torch thread, no network, and the real material where it stands."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import close_session
from loopback_hub import Hub, loopback_hub, use_hub

from tracker.metrics import registry


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _custom_metrics_forgotten() -> Iterator[None]:
    """No test finds a metric that another has registered."""
    yield
    for identity in registry.registered_identities():
        registry.forget(identity.rpartition("-")[0])


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real models and texts; tests that need it are skipped where it is not."""
    place = os.environ.get("TRACKER_TEST_DATA")
    if not place or not Path(place).is_dir():
        pytest.skip("TRACKER_TEST_DATA names no folder of real material")
    return Path(place)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub for sweeps in this process, below ``tmp_path``, which is the current folder."""
    with loopback_hub(tmp_path / "hub") as running:
        use_hub(monkeypatch, running, tmp_path / "cache")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", list(sys.argv))
        yield running
    close_session()
