"""Peak memory of a call beyond what the process held before it."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import torch


def _status(field: str) -> int:
    """A field of /proc/self/status, bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def peak_beyond(work: Callable[[], object], device: str) -> tuple[int | None, object]:
    """Bytes at the peak of ``work`` less those held before it, and what it returns.

    On a CPU the kernel's high-water mark is reset first (Linux only; None elsewhere); on a GPU it is
    torch's allocator that counts.
    """
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before, result
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return None, work()
    before = _status("VmRSS")
    result = work()
    return _status("VmHWM") - before, result
