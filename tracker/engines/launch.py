"""Run the pending units of a request with the engine that it names."""

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracker.checkpoints import CheckpointCache, Inspected
from tracker.config import Config
from tracker.engines.placement import Placement, placements
from tracker.engines.prefetch import Prefetch, Transfer
from tracker.engines.reservations import Reservations
from tracker.engines.worker_spec import WorkerSpec
from tracker.errors import CheckpointError
from tracker.planning.resolve import ResolvedSweep
from tracker.records import Checkpoint, Outcome
from tracker.store import Store
from tracker.store.heartbeat import Heartbeat

if TYPE_CHECKING:
    from tracker.engines.scheduler import ClusterOptions


@dataclass(frozen=True)
class Run:
    """Pending units on their way."""

    outcomes: Generator[Outcome, None, None]
    """One per unit, as they are recorded."""
    transfer: Transfer
    """What has come over the network so far."""


def check_workers(config: Config) -> None:
    """Check that units can run where the request wants them, before any work begins.

    Raises:
        RequestError: no such device on this machine, or no scheduler that answers.
    """
    if config.engine.name == "dask":
        from tracker.engines.scheduler import check_reachable

        check_reachable(cluster_options(config))
        if config.engine.address is not None or config.engine.job is not None:
            return  # devices are on other machines, and each worker looks at its own
    placements(config.device, config.engine.workers, config.engine.threads)


@contextmanager
def launch(
    config: Config,
    resolved: ResolvedSweep,
    *,
    store: Store,
    heartbeat: Heartbeat,
    cache: CheckpointCache,
    inspected: Mapping[Checkpoint, Inspected | CheckpointError],
) -> Iterator[Run]:
    """Measure a request's pending units for the length of a block.

    Args:
        config: the request; its store has been prepared.
        resolved: its plan and probe, and what the store had recorded when it was made.
        store: the request's, kept in sight.
        heartbeat: of this sweep.
        cache: where checkpoints of the hub go.
        inspected: what the hub answered for the pending checkpoints.

    Raises:
        RequestError: the request cannot be carried out.
        StoreError: the store cannot be written.
    """
    pending = resolved.plan.pending
    spec = WorkerSpec(
        store=config.store,
        store_inode=store.inode,
        source=resolved.source,
        stream=config.engine.stream,
        metric_files=config.metric_files,
        options=config.options,
    )
    with Reservations(store, heartbeat) as reservations:
        if config.engine.name == "dask":
            run = _on_dask(config, resolved, spec, reservations, cache, inspected)
        else:
            supply = Prefetch(
                pending, cache, depth=config.engine.prefetch, inspected=inspected, reservations=reservations
            )
            run = Run(_on_this_machine(config, spec, supply), supply.transfer)
        try:
            yield run
        finally:
            run.outcomes.close()  # ends its processes before the reservations are given back


def _on_this_machine(config: Config, spec: WorkerSpec, supply: Prefetch) -> Generator[Outcome, None, None]:
    engine = config.engine
    places = placements(config.device, engine.workers, engine.threads)
    if runs_inline(config, places):
        from tracker.engines.inline import run_inline
        from tracker.engines.worker import Worker

        return run_inline(supply, Worker.from_spec(spec, places[0]))
    from tracker.engines.local import PoolOptions, run_local

    recycle = None if engine.recycle_gb is None else int(engine.recycle_gb * 1e9)
    return run_local(supply, spec, PoolOptions(places, engine.timeout, engine.retries, recycle))


def _on_dask(
    config: Config,
    resolved: ResolvedSweep,
    spec: WorkerSpec,
    reservations: Reservations,
    cache: CheckpointCache,
    inspected: Mapping[Checkpoint, Inspected | CheckpointError],
) -> Run:
    from tracker.engines.dask import run_dask
    from tracker.engines.unit_batch import SweepContext

    engine = config.engine
    context = SweepContext(
        worker_spec=spec.with_absolute_paths(),
        heartbeat=reservations.heartbeat.path.absolute(),
        cache=cache.folder.absolute(),
        cache_bytes=cache.max_bytes,
        head=cache.head,
        device=config.device,
        threads=engine.threads,
        prefetch=engine.prefetch,
        timeout=engine.timeout,
    )
    transfer = Transfer()
    outcomes = run_dask(resolved.plan.pending, context, cluster_options(config), inspected, transfer)
    return Run(outcomes, transfer)


def cluster_options(config: Config) -> "ClusterOptions":
    """Return where the dask workers of a request are, and what each is given."""
    from tracker.engines.scheduler import ClusterOptions

    engine = config.engine
    return ClusterOptions(
        address=engine.address,
        job=engine.job,
        workers=engine.workers or 1,
        min_workers=engine.min_workers,
        batch=engine.batch,
        resources=engine.resources or {},
        retries=engine.retries,
        wait=engine.wait,
    )


def runs_inline(config: Config, places: tuple[Placement, ...]) -> bool:
    """Return whether units run in this process.

    A process beside it would cost its start and gain nothing, except on a GPU, where an error of CUDA fails
    everything that comes after it in the same process.
    """
    engine = config.engine
    if engine.name == "inline":
        return True
    alone = len(places) == 1 and engine.workers is None and engine.timeout is None
    return alone and not places[0].device.startswith("cuda")
