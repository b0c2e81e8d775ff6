"""What every test shares: one torch thread, no network, and the real material where it stands."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from huggingface_hub import close_session
from loopback_hub import Hub, loopback_hub, use_hub

from tracker.metrics import registry

# The process that shares out the tests loads this file too, and they inherit its environment.
if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from views_browser import Visit

    from tracker.store import Results


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


# the dashboard in a browser


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """One Chromium for a file of tests."""
    from views_browser import chromium

    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> "Results":
    """The shared store of two seeds."""
    from views_browser import shared_store

    from tracker.store import open_store

    return open_store(shared_store(tmp_path_factory, seeds=2))


@pytest.fixture(scope="module")
def path(stored: "Results", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its dashboard."""
    from synthetic_store import synthetic_analysis

    from tracker.views import write_dashboard

    path = tmp_path_factory.mktemp("page") / "dashboard.html"
    return write_dashboard(stored, synthetic_analysis(seeds=2), path)


@pytest.fixture(scope="module")
def opened(browser: "Browser", path: Path) -> "Iterator[Visit]":
    """That page, opened once."""
    from views_browser import visiting

    with visiting(browser) as visit:
        visit.open(path)
        yield visit


@pytest.fixture
def visit(opened: "Visit") -> "Iterator[Visit]":
    """The page as it first opens; whatever a test does to it must not make it complain."""
    opened.follow()
    yield opened
    assert opened.complaints == []
