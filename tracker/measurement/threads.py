"""Batches side by side on a processor, each in a lane of its own with its share of torch's threads.

torch splits every operation over its threads. Measuring takes very many operations on tiles that fit into a
cache, each so short that waking the other threads costs more than they save; whole batches share them better.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Found = TypeVar("Found")
MOST_LANES = 8
"""More would wait for each other: only one at a time can tell torch what to do next."""


def lanes_for(device: torch.device) -> int:
    """How many lanes there are: one on a GPU, which runs one operation after the other anyway."""
    return min(torch.get_num_threads(), MOST_LANES) if device.type == "cpu" else 1


def side_by_side(work: Callable[[Item], Found], items: Sequence[Item], lanes: int) -> Iterator[Found]:
    """What ``work`` finds of each item, in the items' order.

    Until all is done torch has fewer threads for an operation, everywhere in the process.
    """
    lanes = min(lanes, len(items))
    if lanes < 2:
        yield from map(work, items)
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // lanes))
    try:
        with ThreadPoolExecutor(lanes) as pool:
            yield from pool.map(work, items)
    finally:
        torch.set_num_threads(threads)
