"""What measuring asks of its process: that memory stays, and that a user's own arithmetic is kept out.

Imports no torch: ``share_buffers_of_products`` must be called before it is loaded.
"""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

ARENAS, TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -8, -1, -2, -3
"""Numbers of glibc's options, from malloc.h."""
MIB = 1 << 20


@lru_cache(maxsize=1)
def keep_freed_memory() -> bool:
    """Keep glibc from handing arrays of a few megabytes back to the system as soon as they are freed.

    Measuring makes and frees such arrays many thousand times, and the system clears every page of each anew.
    Blocks of 32 MiB and more still go back at once, and what is free beyond 64 MiB.

    Returns:
        whether the C library took the options; only glibc knows them.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    options = {ARENAS: 1, MMAP_THRESHOLD: 32 * MIB, TRIM_THRESHOLD: 64 * MIB, TOP_PAD: 1 * MIB}
    taken = [library.mallopt(option, value) for option, value in options.items()]
    return min(taken) == 1


def share_buffers_of_products() -> None:
    """Keep MKL from holding buffers for matrix products apart for every thread.

    They come to some 40 MB here, since every forward pass has a thread of its own; products then take their
    buffers from the C library, as everything else does. To be called before torch is imported, which reads
    it; processes started from here do the same.
    """
    os.environ.setdefault("MKL_DISABLE_FAST_MM", "1")


@contextmanager
def plain_arithmetic(device: "torch.device") -> Iterator[None]:
    """Measure alike inside a training loop's ``torch.autocast``, whatever its default device, uncompiled.

    Half-precision products would be recorded as attention, and differ from what a sweep measures; a compiled
    block would be compiled anew for every length of the probe.

    Args:
        device: of the model that is measured.
    """
    import torch

    with ExitStack() as stack:
        if "torch._dynamo" in sys.modules:  # loading it takes seconds, and nothing is compiled without it
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        if torch.is_autocast_enabled(device.type):
            stack.enter_context(torch.autocast(device.type, enabled=False))
        if torch.get_default_device().type != "cpu":  # entered, it would cost every operation some time
            stack.enter_context(torch.device("cpu"))
        yield
