"""What a dask worker does: some checkpoints of one model, in a process that stays warm."""

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tracker.checkpoints import CheckpointCache, Inspected
from tracker.engines.consistency import Known
from tracker.engines.prefetch import Prefetch
from tracker.engines.reservations import Reservations
from tracker.engines.worker import Worker
from tracker.engines.worker_spec import Placement, WorkerSpec
from tracker.errors import CheckpointError, RequestError
from tracker.records import Checkpoint, Outcome, PlannedUnit
from tracker.store import Store

_alone = threading.Lock()
"""A process measures one unit at a time, however many threads dask has given it."""
_warm: dict[str, Worker] = {}
"""The worker of the present sweep, by the sweep's name."""


@dataclass(frozen=True)
class Sweep:
    """What all stints of a sweep share."""

    worker_spec: WorkerSpec
    """With absolute paths; its store is one folder for all machines."""
    pulse: Path
    """The driver's, in the store: there as long as the sweep is on."""
    since: float
    """When the plan was made, by the store's clock."""
    device: str
    threads: int | None
    prefetch: int
    cache: Path
    cache_bytes: int | None
    timeout: float | None


@dataclass(frozen=True)
class UnitBatch:
    """Checkpoints of one model."""

    units: tuple[PlannedUnit, ...]
    known: Known
    inspected: Mapping[Checkpoint, Inspected | CheckpointError]
    """What the hub has said of them: no worker asks it again."""


@dataclass(frozen=True)
class UnitBatchReport:
    """What comes back: small, since results lie in the store."""

    outcomes: tuple[Outcome, ...]
    known: Known
    received: Counter[tuple[str, int]]
    """Per model and seed: bytes that came over the network, in ``seconds``."""
    seconds: float


def carry_out(
    sweep: Sweep, stint: UnitBatch, name: object, tell: Callable[[Outcome], None]
) -> UnitBatchReport:
    """Measures and records a stint's units in this process.

    Args:
        sweep, stint: what to do.
        name: of the dask worker; a number chooses one of several GPUs.
        tell: is called with each outcome as it is recorded.

    Raises:
        RequestError: the sweep cannot be carried out on this machine.
        StoreError: the store cannot be written.
    """
    with _alone:
        worker = _worker(sweep, name)
        first = stint.units[0].unit
        worker.learn(first, stint.known)
        outcomes: list[Outcome] = []
        with Reservations(Store(sweep.worker_spec.store), sweep.since) as reservations:
            cache = CheckpointCache(sweep.cache, sweep.cache_bytes)
            supply = Prefetch(
                stint.units, cache, depth=sweep.prefetch, inspected=stint.inspected, reservations=reservations
            )
            with supply:
                for delivery in supply:
                    with _deadline(sweep, worker.store, delivery.planned):
                        outcome = delivery.elsewhere or worker.run(delivery.planned, delivery.result)
                    supply.release(delivery)
                    outcomes.append(outcome)
                    tell(outcome)
                    if not sweep.pulse.exists():
                        break
        return UnitBatchReport(tuple(outcomes), worker.known(first), supply.received, supply.seconds)


def _worker(sweep: Sweep, name: object) -> Worker:
    """The process's warm worker for this sweep; an earlier sweep's is let go of.

    Raises:
        RequestError: no such device here, or the store is not the driver's.
    """
    key = str(sweep.pulse)
    if key not in _warm:
        if not sweep.pulse.exists():
            raise RequestError(
                f"store={sweep.worker_spec.store}: on {os.uname().nodename} this is not the folder that the "
                "sweep writes to, or the sweep has ended; give a folder that all machines share"
            )
        _warm.clear()
        _warm[key] = sweep.worker_spec.worker(Placement(_device(sweep.device, name), sweep.threads))
    return _warm[key]


def _device(device: str, name: object) -> str:
    """Dask workers that see several GPUs take the one of their own number."""
    import torch

    from tracker.engines.placement import chosen_device

    chosen, count = chosen_device(device), torch.cuda.device_count()
    if chosen == "cuda" and count > 1 and str(name).isdecimal():
        return f"cuda:{int(str(name)) % count}"
    return chosen


@contextmanager
def _deadline(sweep: Sweep, store: Store, planned: PlannedUnit) -> Iterator[None]:
    """Records a unit as failed and ends this process when its time is over; dask starts another."""

    def give_up() -> None:
        label = planned.unit.checkpoint.label
        told = f"{label}: took longer than engine.timeout={sweep.timeout:g} seconds; raise it"
        try:
            store.write_hole(planned.unit, "failed", told)
        finally:
            os._exit(1)

    if sweep.timeout is None:
        yield
        return
    timer = threading.Timer(sweep.timeout, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
