"""Batches in parallel on a processor, each in its own thread with its share of torch's threads.

torch splits every operation over its threads. Measuring takes very many operations on tiles that fit into a
cache, each so short that waking the other threads costs more than they save; whole batches share them better.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Found = TypeVar("Found")
MOST_THREADS = 8
"""More would wait for each other: only one at a time can give torch its next operation."""


def batch_threads(device: torch.device) -> int:
    """Return how many batches are measured at a time.

    One on a GPU, which runs one operation after the other anyway.
    """
    return min(torch.get_num_threads(), MOST_THREADS) if device.type == "cpu" else 1


def map_in_threads(work: Callable[[Item], Found], items: Sequence[Item], threads: int) -> Iterator[Found]:
    """Yield what ``work`` returns for each item, in the items' order.

    Until all is done torch has fewer threads for an operation, everywhere in the process.
    """
    threads = min(threads, len(items))
    if threads < 2:
        yield from map(work, items)
        return
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // threads))
    try:
        with ThreadPoolExecutor(threads) as pool:
            yield from pool.map(work, items)
    finally:
        torch.set_num_threads(before)
