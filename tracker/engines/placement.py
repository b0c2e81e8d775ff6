"""Which workers there are, and on which device each of them runs."""

from collections import Counter

import torch

from tracker.engines.worker_spec import Placement
from tracker.errors import RequestError, unknown_value
from tracker.planning.memory import free_memory


def chosen_device(name: str) -> str:
    """The torch device that ``device=`` means.

    Raises:
        RequestError: no such device on this machine.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    known = ["auto", "cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if name not in known and not (name == "cuda" and torch.cuda.is_available()):
        if name.startswith("cuda"):
            raise RequestError(f"device={name}: torch sees no such GPU here; allowed: {', '.join(known)}")
        raise unknown_value("device", name, known)
    return name


def placements(device: str, workers: int | None, threads: int | None) -> tuple[Placement, ...]:
    """Where the workers of this machine run.

    Args:
        device: ``auto`` and ``cuda`` mean every GPU there is, ``auto`` the processor where there is none.
        workers: how many; None: one per GPU, one on the processor.
        threads: of torch, for each; None: those that torch would take, divided.

    Returns:
        One per worker; several on one device share its memory.

    Raises:
        RequestError: no such device on this machine.
    """
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
