"""What a dask worker does: some checkpoints of one model, in a process that stays warm."""

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tracker.checkpoints import CheckpointCache, Inspected
from tracker.engines.deadline import Deadlines, limited, too_long
from tracker.engines.placement import Placement, chosen_device
from tracker.engines.prefetch import Prefetch, Transfer
from tracker.engines.reservations import Reservations
from tracker.engines.worker import Worker
from tracker.engines.worker_spec import WorkerSpec
from tracker.errors import CheckpointError, RequestError
from tracker.records import Checkpoint, Outcome, PlannedUnit
from tracker.store import Store
from tracker.store.heartbeat import Heartbeat

_alone = threading.Lock()
"""A process measures one unit at a time, however many threads dask has given it."""
_warm: dict[str, Worker] = {}
"""The worker of the present sweep, by the path of the sweep's heartbeat."""


@dataclass(frozen=True)
class SweepContext:
    """What all batches of a sweep share."""

    worker_spec: WorkerSpec
    """With absolute paths; its store is one folder for all machines."""
    heartbeat: Path
    """The driver's, in the store: there as long as the sweep is on."""
    cache: Path
    cache_bytes: int | None = None
    """Bound of the cache; None: none."""
    head: bool = True
    """Whether unembeddings are needed."""
    device: str = "auto"
    threads: int | None = None
    """Of torch."""
    prefetch: int = 0
    """Checkpoints that a worker fetches ahead."""
    timeout: float | None = None
    """Seconds that a unit may take; None: by what others of its model took (``Deadlines``)."""


@dataclass(frozen=True)
class UnitBatch:
    """Checkpoints of one model."""

    units: tuple[PlannedUnit, ...]
    inspected: Mapping[Checkpoint, Inspected | CheckpointError]
    """What the hub answered for them: no worker asks it again."""


@dataclass(frozen=True)
class UnitBatchReport:
    """What comes back: small, since results lie in the store."""

    outcomes: tuple[Outcome, ...]
    transfer: Transfer


def carry_out(
    context: SweepContext, batch: UnitBatch, name: object, report: Callable[[Outcome], None]
) -> UnitBatchReport:
    """Measure and record the units of a batch in this process.

    A unit whose time is over, or in which CUDA failed, ends the process once it is recorded: dask starts
    another, which goes on with the batch.

    Args:
        context, batch: what to do.
        name: of the dask worker; a number chooses one of several GPUs.
        report: is called with each outcome as it is recorded.

    Raises:
        RequestError: the sweep cannot be carried out on this machine.
        StoreError: the store cannot be written.
    """
    with _alone:
        worker, store = (
            _worker(context, name),
            Store(context.worker_spec.store, context.worker_spec.store_inode),
        )
        outcomes, deadlines = list[Outcome](), Deadlines(store, context.timeout)
        with (
            Heartbeat(store.folder) as heartbeat,
            Reservations(store, heartbeat) as reservations,
            Prefetch(
                batch.units,
                CheckpointCache(context.cache, context.cache_bytes, head=context.head),
                depth=context.prefetch,
                inspected=batch.inspected,
                reservations=reservations,
            ) as supply,
        ):
            for fetched in supply:
                limit = partial(deadlines.seconds, fetched.planned, fetched.result)
                with limited(limit, partial(_end, context.timeout, store, fetched.planned)):
                    outcome = fetched.elsewhere or worker.run(fetched.planned, fetched.result)
                deadlines.note(outcome)
                supply.release(fetched)
                outcomes.append(outcome)
                report(outcome)
                if worker.broken:
                    os._exit(1)
                if not context.heartbeat.exists():
                    break
        return UnitBatchReport(tuple(outcomes), supply.transfer)


def _worker(context: SweepContext, name: object) -> Worker:
    """Return the process's warm worker for this sweep; an earlier sweep's is let go of.

    Raises:
        RequestError: no such device here, or the store is not the driver's.
    """
    key = str(context.heartbeat)
    if key not in _warm:
        if not context.heartbeat.exists():
            raise RequestError(
                f"store={context.worker_spec.store}: on {os.uname().nodename} this is not the folder that "
                "the sweep writes to, or the sweep has ended; use a folder that all machines share"
            )
        _warm.clear()
        placement = Placement(_device(context.device, name), context.threads)
        _warm[key] = Worker.from_spec(context.worker_spec, placement)
    return _warm[key]


def _device(device: str, name: object) -> str:
    """Dask workers that see several GPUs take the one of their own number."""
    import torch

    chosen, count = chosen_device(device), torch.cuda.device_count()
    if chosen == "cuda" and count > 1 and str(name).isdecimal():
        return f"cuda:{int(str(name)) % count}"
    return chosen


def _end(timeout: float | None, store: Store, planned: PlannedUnit) -> None:
    """End this process, whose unit's time is over: another takes the unit, or it is recorded as failed."""
    try:
        if timeout is not None:
            late = f"{planned.unit.checkpoint.label}: {too_long(timeout, timeout)}"
            store.write_hole(planned.unit, "failed", late)
    finally:
        os._exit(1)
