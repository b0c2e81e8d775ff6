"""Where freed memory goes: arrays' stays with the process, for the next ones; matrix products' does not."""

import ctypes
import os
import sys
from functools import lru_cache

ARENAS, TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -8, -1, -2, -3
"""Numbers of glibc's options, from malloc.h."""
MIB = 1 << 20


@lru_cache(maxsize=1)
def keep_freed_memory() -> bool:
    """Keeps glibc from handing arrays of a few megabytes back to the system as soon as they are freed.

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
    """Keeps MKL from holding buffers for matrix products apart for every thread.

    They come to some 40 MB here, since every forward pass has a thread of its own; products then take their
    buffers from the C library, as everything else does. To be called before torch is imported, which reads
    it; processes started from here do the same.
    """
    os.environ.setdefault("MKL_DISABLE_FAST_MM", "1")
