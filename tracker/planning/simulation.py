"""How long a plan takes with so many workers, and what limits it: the engine's own rules, played through.

One line fetches checkpoints in the order of the plan, some ahead of those that are asked for; each worker
asks for the next one when it is idle; the first checkpoint of a model goes alone. Everything else is
arithmetic on seconds and bytes that were recorded, or assumed.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

BUSY = 0.9
"""What is busy for at least this share of the time limits the sweep."""

Limit = Literal["measuring", "fetching", "both", "the last units"]


@dataclass(frozen=True)
class Job:
    """One unit: whose, what it takes to measure, and what has to be fetched for it."""

    model: str
    seconds: float
    bytes: float = 0.0


@dataclass(frozen=True)
class Machines:
    """What there is to work with."""

    workers: int = 1
    bandwidth: float = float("inf")
    """Bytes per second of all downloads together."""
    ahead: int = 2
    """Checkpoints fetched ahead (``engine.prefetch``)."""
    start: float = 6.0
    """Seconds from the start to the first unit: a worker's imports."""
    overhead: float = 0.03
    """Seconds that each unit takes beside its own."""


@dataclass(frozen=True)
class Course:
    """How a sweep would go."""

    seconds: float
    """From the start to the last record."""
    measuring: float
    """Share of the workers' time in which they measure, 0 to 1."""
    fetching: float
    """Share of the time in which something is fetched, 0 to 1."""

    @property
    def limit(self) -> Limit:
        """What would have to be faster, or more, for the sweep to end sooner."""
        if self.measuring >= BUSY and self.fetching >= BUSY:
            return "both"
        if self.fetching >= BUSY or self.fetching > self.measuring:
            return "fetching"
        return "measuring" if self.measuring >= BUSY else "the last units"


def play(jobs: Sequence[Job], machines: Machines) -> Course:
    """Plays a sweep through.

    Args:
        jobs: in the order of the plan.
        machines: what there is to work with.
    """
    idle = [machines.start] * machines.workers
    heapq.heapify(idle)
    asked: list[float] = []
    fetched = fetching = last = 0.0
    told: dict[str, float] = {}
    for place, job in enumerate(jobs):
        asked.append(heapq.heappop(idle))
        ahead = place - machines.ahead
        takes = job.bytes / machines.bandwidth
        fetched = max(fetched, asked[ahead] if ahead >= 0 else 0.0) + takes
        fetching += takes
        begins = max(asked[-1], fetched, told.get(job.model, 0.0))
        ends = begins + job.seconds + machines.overhead
        told.setdefault(job.model, ends)
        last = max(last, ends)
        heapq.heappush(idle, ends)
    measuring = sum(job.seconds for job in jobs)
    whole = max(last, 1e-9)
    return Course(last, measuring / (whole * machines.workers), fetching / whole)
