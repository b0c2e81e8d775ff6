"""Which engine carries out a request, with which workers, and what they are told."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tracker.checkpoints import Inspected
from tracker.config import Config
from tracker.errors import CheckpointError, RequestError
from tracker.planning.resolve import ResolvedSweep, checkpoint_cache, suite_name
from tracker.records import Checkpoint, Outcome
from tracker.store import Results, Store, open_store

if TYPE_CHECKING:
    from tracker.engines import WorkerSpec
    from tracker.engines.scheduler import ClusterTerms


@dataclass(frozen=True)
class Run:
    """Pending units on their way."""

    outcomes: Iterable[Outcome]
    """One per unit, as they are recorded."""
    received: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Per model and seed: bytes that have come over the network so far."""
    seconds: Callable[[], float] = lambda: 0.0
    """In which they came."""


def check_workers(config: Config) -> None:
    """Where units are to run must be there before any work begins.

    Raises:
        RequestError: no such device on this machine, or no scheduler that answers.
    """
    if config.engine.name == "dask":
        from tracker.engines.scheduler import check_reachable

        check_reachable(cluster_terms(config))
        if config.engine.address is not None or config.engine.job is not None:
            return  # devices are on other machines, and each worker looks at its own
    from tracker.engines import placements

    placements(config.device, config.engine.workers, config.engine.threads)


@contextmanager
def measuring(
    config: Config,
    surveyed: ResolvedSweep,
    store: Store,
    inspected: Mapping[Checkpoint, Inspected | CheckpointError],
) -> Iterator[Run]:
    """Measures a request's pending units for the length of a block.

    Args:
        config: the request.
        surveyed: it worked out.
        store: where records go; it has been prepared.
        inspected: what the hub said of the pending checkpoints.

    Raises:
        RequestError: the request cannot be carried out.
        StoreError: the store cannot be written.
    """
    from tracker.engines import Prefetch, Reservations, Terms, WorkerSpec, placements, run_inline, run_local

    engine = config.engine
    worker_spec = WorkerSpec(
        config.store,
        surveyed.source,
        engine.stream,
        token_digests(surveyed),
        _shapes(config, surveyed),
        config.metric_files,
    )
    if engine.name == "dask":
        with _on_cluster(config, surveyed, worker_spec, inspected) as run:
            yield run
        return
    places = placements(config.device, engine.workers, engine.threads)
    with Reservations(store) as reservations:
        supply = Prefetch(
            surveyed.plan.pending,
            checkpoint_cache(config),
            depth=engine.prefetch,
            inspected=inspected,
            reservations=reservations,
        )
        if alone(config, len(places)):
            outcomes = run_inline(supply, worker_spec.worker(places[0]))
        else:
            recycle = None if engine.recycle_gb is None else int(engine.recycle_gb * 1e9)
            terms = Terms(places, engine.timeout, engine.retries, recycle)
            outcomes = run_local(supply, worker_spec, terms, reservations.since)
        try:
            yield Run(outcomes, supply.received, lambda: supply.seconds)
        finally:
            outcomes.close()  # ends its processes before the reservations are given back


@contextmanager
def _on_cluster(
    config: Config,
    surveyed: ResolvedSweep,
    worker_spec: "WorkerSpec",
    inspected: Mapping[Checkpoint, Inspected | CheckpointError],
) -> Iterator[Run]:
    from tracker.engines import Reservations
    from tracker.engines.dask import Transfer, run_dask
    from tracker.engines.unit_batch import Sweep

    engine, cache, transfer = config.engine, checkpoint_cache(config), Transfer()
    everywhere = worker_spec.elsewhere()
    with Reservations(Store(everywhere.store)) as reservations:
        sweep = Sweep(
            everywhere, reservations.pulse, reservations.since, config.device, engine.threads,
            engine.prefetch, cache.folder.absolute(), cache.max_bytes, engine.timeout,
        )  # fmt: skip
        outcomes = run_dask(
            surveyed.plan.pending, sweep, cluster_terms(config), engine.stint, inspected, transfer
        )
        try:
            yield Run(outcomes, transfer.received, lambda: transfer.seconds)
        finally:
            outcomes.close()


def cluster_terms(config: Config) -> "ClusterTerms":
    """Where the dask workers of a request are."""
    from tracker.engines.scheduler import ClusterTerms

    engine = config.engine
    return ClusterTerms(
        engine.address, engine.job, engine.workers or 1, engine.least, engine.resources or {},
        engine.retries, engine.wait,
    )  # fmt: skip


def alone(config: Config, places: int) -> bool:
    """Whether units run in this process: a process beside it would cost its start and gain nothing."""
    engine = config.engine
    return engine.name == "inline" or (places == 1 and engine.workers is None and engine.timeout is None)


def token_digests(surveyed: ResolvedSweep) -> dict[tuple[str, str, int, str], str]:
    """Per model and probe the digest of the token ids that its recorded checkpoints were measured on,
    those left out that are about to be measured again."""
    again = {planned.unit.id for planned in surveyed.plan.pending}
    return {
        (record.suite, record.model, record.seed, record.probe): record.token_digest
        for record in surveyed.ledger.values()
        if record.status == "ok" and record.token_digest is not None and record.id not in again
    }


def _shapes(config: Config, surveyed: ResolvedSweep) -> dict[tuple[str, str, int], tuple[int, int, int]]:
    """Per model and seed the layers, heads per layer and width of its measured checkpoints."""
    try:
        results = sweep_results(config, surveyed)
    except RequestError:  # nothing is recorded yet of this probe
        return {}
    columns = ["suite", "model", "seed", "n_layers", "n_heads", "d_model"]
    measured = results.checkpoints([*columns, "status"]).filter(status="ok")
    return {row[:3]: row[3:] for row in measured.select(columns).iter_rows()}


def sweep_results(config: Config, surveyed: ResolvedSweep) -> Results:
    """What the store holds of a request's suite, probe and conventions."""
    unit = surveyed.plan.units[0].unit
    return open_store(
        config.store,
        probe=unit.probe.label,
        conventions=unit.conventions.label,
        suite=suite_name(config),
        known=surveyed.ledger,
    )
