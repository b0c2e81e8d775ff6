"""How many workers there are, and on which device each of them runs."""

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tracker.config import Config
from tracker.errors import RequestError, unknown_value
from tracker.planning.memory import free_memory

GPU_FILES = ("nvidia[0-9]*", "dxg", "kfd")
"""Below /dev where Linux has a GPU; without any of them nobody need wait for torch to count none."""


@dataclass(frozen=True)
class Placement:
    """Where one worker runs."""

    device: str
    threads: int | None = None
    """Of torch; None: torch's own choice."""
    memory: int | None = None
    """Bytes that its weights may take, where several share a memory; None: all that is free."""
    share: float = 1.0
    """Of its GPU, where several share one."""


def chosen_device(name: str) -> str:
    """Return the torch device that ``device=`` means.

    Raises:
        RequestError: no such device on this machine.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    known = ["auto", "cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if name not in known and not (name == "cuda" and torch.cuda.is_available()):
        if name.startswith("cuda"):
            raise RequestError(f"device={name}: torch sees no such GPU; choose from {', '.join(known)}")
        raise unknown_value("device", name, known)
    return name


def placements(device: str, workers: int | None, threads: int | None) -> tuple[Placement, ...]:
    """Return where the workers of this machine run, one placement each.

    Args:
        device: ``auto`` and ``cuda`` mean every GPU there is, ``auto`` the CPU where there is none.
        workers: how many; None: one per GPU, one on the CPU.
        threads: of torch, for each; None: torch's own number, divided.

    Raises:
        RequestError: no such device on this machine.
    """
    import torch

    first = chosen_device(device)
    devices = [first]
    if device in ("auto", "cuda") and first != "cpu":
        devices = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    count = workers or len(devices)
    each = threads or (max(1, torch.get_num_threads() // count) if count > 1 else None)
    if first == "cpu":
        return (Placement(first, each, free_memory() // count if count > 1 else None),) * count
    chosen = [devices[i % len(devices)] for i in range(count)]
    on_device = Counter(chosen)
    return tuple(Placement(name, each, share=1 / on_device[name]) for name in chosen)


def worker_count(config: Config) -> int:
    """Return how many workers a request will have, as far as it says; torch is imported only to count GPUs.

    Workers of a running dask scheduler are its own: for them this is ``engine.workers``.
    """
    engine = config.engine
    if engine.name == "inline":
        return 1
    if engine.workers is not None or engine.name == "dask" or config.device not in ("auto", "cuda"):
        return engine.workers or 1
    if sys.platform == "linux" and not any(any(Path("/dev").glob(name)) for name in GPU_FILES):
        return 1
    import torch

    return max(1, torch.cuda.device_count())
