"""What every test shares: one torch thread, no network, and the real material where it stands."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real models and texts; tests that need it are skipped where it is not."""
    place = os.environ.get("TRACKER_TEST_DATA")
    if not place or not Path(place).is_dir():
        pytest.skip("TRACKER_TEST_DATA names no folder of real material")
    return Path(place)
