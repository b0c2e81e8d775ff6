"""A dask scheduler: one that is running, one on this machine, or one whose workers Slurm starts."""

import logging
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from tracker.errors import RequestError

TEND_SECONDS = 5
"""How often lost jobs are looked for."""
INSTALL = "pip install 'training-tracker[cluster]' brings what engine=dask needs"


@dataclass(frozen=True)
class ClusterTerms:
    """Where dask workers are, and how many."""

    address: str | None = None
    """Of a scheduler that is running; None: a cluster of our own."""
    job: Mapping[str, Any] | None = None
    """Options of dask_jobqueue.SLURMCluster; None: worker processes on this machine."""
    workers: int = 1
    """At most."""
    least: int | None = None
    """Workers come and go with the work, never fewer than these; None: always ``workers``."""
    resources: Mapping[str, float] = field(default_factory=dict)
    """What a unit takes of its worker, as in ``{GPU: 1}``."""
    retries: int = 2
    wait: float = 10.0
    """Seconds in which a running scheduler has to answer."""


@contextmanager
def connected(terms: ClusterTerms) -> Iterator[Any]:
    """A client of the scheduler; a cluster of our own ends with the block.

    Raises:
        RequestError: dask is not installed, no scheduler answers, or none of its workers will do.
    """
    try:
        from dask import config as settings
        from distributed import Client
    except ImportError as error:
        raise RequestError(f"engine=dask: {error}; {INSTALL}") from error
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters of it is in our errors
    chosen = {
        "distributed.scheduler.allowed-failures": terms.retries,
        "distributed.deploy.lost-worker-timeout": f"{TEND_SECONDS} s",
        "distributed.comm.timeouts.connect": terms.wait,
        # They would look at themselves a hundred times a second, which slows what is measured.
        "distributed.worker.profile.enabled": False,
        "distributed.admin.system-monitor.gil.enabled": False,
        "distributed.admin.system-monitor.interval": "5 s",
        "distributed.admin.tick.interval": "1 s",
        "distributed.admin.tick.limit": "60 s",
    }
    with settings.set(chosen):
        cluster = None if terms.address else _own_cluster(terms)
        try:
            client = Client(cluster or terms.address, timeout=terms.wait, set_as_default=False)
        except (OSError, ValueError) as error:
            raise RequestError(
                f"engine.address={terms.address}: no scheduler answers there within {terms.wait:g} seconds "
                f"({_brief(error)}); start one with `dask scheduler`, or leave engine.address out"
            ) from error
        try:
            if terms.address:
                _check_workers(client, terms)
            with _tended(cluster):
                yield client
        finally:
            client.close(timeout=5)
            if cluster is not None:
                cluster.close(timeout=5)


def check_reachable(terms: ClusterTerms) -> None:
    """Refuses a scheduler that does not answer, before any work begins.

    Raises:
        RequestError: as ``connected``; of a cluster of our own only what has to be installed is looked at.
    """
    if terms.address is not None:
        with connected(terms):
            return
    try:
        import_module("distributed")
        if terms.job is not None:
            import_module("dask_jobqueue")
    except ImportError as error:
        raise RequestError(f"engine=dask: {error}; {INSTALL}") from error
    if terms.job is not None and shutil.which("sbatch") is None:
        raise RequestError("engine=slurm: there is no `sbatch` here; run this where jobs can be submitted")


@contextmanager
def _tended(cluster: Any) -> Iterator[None]:
    """Has dask submit a job again that was cancelled or died, which it does only when its number changes."""
    ended = threading.Event()

    def tend() -> None:
        while not ended.wait(TEND_SECONDS):
            cluster.loop.add_callback(lambda: cluster.scale(len(cluster.worker_spec)))

    keeper = threading.Thread(target=tend, name="jobs", daemon=True)
    if cluster is not None:
        keeper.start()
    try:
        yield
    finally:
        ended.set()
        if cluster is not None:
            keeper.join()


def _own_cluster(terms: ClusterTerms) -> Any:
    cluster = _slurm(terms) if terms.job is not None else _on_this_machine(terms)
    if terms.least is not None:
        cluster.adapt(minimum=terms.least, maximum=terms.workers)
    elif terms.job is not None:
        cluster.scale(terms.workers)
    return cluster


def _on_this_machine(terms: ClusterTerms) -> Any:
    from distributed import LocalCluster

    return LocalCluster(
        n_workers=terms.workers if terms.least is None else 0,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,  # pyright: ignore[reportArgumentType]
        resources=dict(terms.resources) or None,
        silence_logs=logging.CRITICAL,
    )


def _slurm(terms: ClusterTerms) -> Any:
    """One worker per job, one unit at a time: the job's processors are torch's threads."""
    try:
        from dask_jobqueue.slurm import SLURMCluster
    except ImportError as error:
        raise RequestError(f"engine=slurm: {error}; {INSTALL}") from error
    extra = [f"--resources {name}={amount:g}" for name, amount in terms.resources.items()]
    options = {"cores": 1, "processes": 1, "silence_logs": "critical"} | dict(terms.job or {})
    options["worker_extra_args"] = [*options.get("worker_extra_args", []), *" ".join(extra).split()]
    options["scheduler_options"] = {"dashboard_address": None} | dict(options.get("scheduler_options") or {})
    try:
        return SLURMCluster(**options)
    except (TypeError, ValueError, RuntimeError, OSError) as error:
        raise RequestError(f"engine.job: {_brief(error)}") from error


def _check_workers(client: Any, terms: ClusterTerms) -> None:
    """Whether the workers of a running scheduler can do the work.

    Raises:
        RequestError: there are none, they run several units at once, or lack what units ask for.
    """
    if terms.least is None:
        try:
            client.wait_for_workers(1, timeout=terms.wait)
        except TimeoutError as error:
            raise RequestError(
                f"engine.address={terms.address}: the scheduler has no workers; start some with `dask worker "
                f"{terms.address} --nthreads 1`, or say engine.least=0 where it will start them"
            ) from error
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    several = max((worker["nthreads"] for worker in workers), default=1)
    if several > 1:
        raise RequestError(
            f"engine.address={terms.address}: its workers run {several} tasks at once, and torch takes every "
            "thread there is; start them with --nthreads 1"
        )
    for name, amount in terms.resources.items():
        most = max((worker["resources"].get(name, 0) for worker in workers), default=amount)
        if most < amount:
            raise RequestError(
                f"engine.resources.{name}={amount:g}: no worker of {terms.address} has it; start them with "
                f"--resources {name}={amount:g}"
            )


def _brief(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
