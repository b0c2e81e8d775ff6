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
SILENT_SECONDS = 60
"""A worker of a cluster of our own that sends nothing for so long loses its batch to another."""
INSTALL = "install it with `pip install 'training-tracker[cluster]'`"


@dataclass(frozen=True)
class ClusterOptions:
    """Where dask workers are, how many, and what each is given."""

    address: str | None = None
    """Of a scheduler that is running; None: a cluster of our own."""
    job: Mapping[str, Any] | None = None
    """Options of dask_jobqueue.SLURMCluster; None: worker processes on this machine."""
    workers: int = 1
    """At most."""
    min_workers: int | None = None
    """Workers come and go with the work, never fewer than these; None: always ``workers``."""
    batch: int = 4
    """Checkpoints of one model that a worker is given at once."""
    resources: Mapping[str, float] = field(default_factory=dict)
    """What a unit takes of its worker, as in ``{GPU: 1}``."""
    retries: int = 2
    """How often a batch is tried again whose worker died."""
    wait: float = 10.0
    """Seconds in which a running scheduler has to answer."""


@contextmanager
def connected(options: ClusterOptions) -> Iterator[Any]:
    """Connect to the scheduler; a cluster of our own ends with the block.

    Raises:
        RequestError: dask is not installed, no scheduler answers, or none of its workers will do.
    """
    try:
        from dask import config as settings
        from distributed import Client
    except ImportError as error:
        raise RequestError(f"engine=dask: {error}; {INSTALL}") from error
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # our errors say what matters of it
    chosen = {
        "distributed.scheduler.allowed-failures": options.retries,
        "distributed.deploy.lost-worker-timeout": f"{TEND_SECONDS} s",
        "distributed.comm.timeouts.connect": options.wait,
        "distributed.scheduler.worker-ttl": f"{SILENT_SECONDS} s",
        # They would look at themselves a hundred times a second, which slows what is measured.
        "distributed.worker.profile.enabled": False,
        "distributed.admin.system-monitor.gil.enabled": False,
        "distributed.admin.system-monitor.interval": "5 s",
        "distributed.admin.tick.interval": "1 s",
        "distributed.admin.tick.limit": "60 s",
    }
    with settings.set(chosen):
        cluster = None if options.address else _own_cluster(options)
        try:
            client = Client(cluster or options.address, timeout=options.wait, set_as_default=False)
        except (OSError, ValueError) as error:
            raise RequestError(
                f"engine.address={options.address}: no scheduler answers there within {options.wait:g} "
                f"seconds ({_brief(error)}); start one with `dask scheduler`, or leave engine.address out"
            ) from error
        try:
            if options.address:
                _check_workers(client, options)
            with _tended(cluster):
                yield client
        finally:
            client.close(timeout=5)
            if cluster is not None:
                cluster.close(timeout=5)


def check_reachable(options: ClusterOptions) -> None:
    """Check that a scheduler answers, before any work begins.

    Raises:
        RequestError: as ``connected``; for a cluster of our own only whether it could be started.
    """
    if options.address is not None:
        with connected(options):
            return
    try:
        import_module("distributed")
        if options.job is not None:
            import_module("dask_jobqueue")
    except ImportError as error:
        raise RequestError(f"engine=dask: {error}; {INSTALL}") from error
    if options.job is not None and shutil.which("sbatch") is None:
        raise RequestError("engine=slurm: no `sbatch` on this machine; run this where jobs can be submitted")


@contextmanager
def _tended(cluster: Any) -> Iterator[None]:
    """Have dask resubmit jobs that were cancelled or died, which it does only when their number changes."""
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


def _own_cluster(options: ClusterOptions) -> Any:
    cluster = _slurm(options) if options.job is not None else _on_this_machine(options)
    if options.min_workers is not None:
        cluster.adapt(minimum=options.min_workers, maximum=options.workers)
    elif options.job is not None:
        cluster.scale(options.workers)
    return cluster


def _on_this_machine(options: ClusterOptions) -> Any:
    from distributed import LocalCluster

    return LocalCluster(
        n_workers=options.workers if options.min_workers is None else 0,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,  # pyright: ignore[reportArgumentType]
        resources=dict(options.resources) or None,
        silence_logs=logging.CRITICAL,
    )


def _slurm(options: ClusterOptions) -> Any:
    """One worker per job, one unit at a time: the job's processors are torch's threads."""
    try:
        from dask_jobqueue.slurm import SLURMCluster
    except ImportError as error:
        raise RequestError(f"engine=slurm: {error}; {INSTALL}") from error
    extra = [f"--resources {name}={amount:g}" for name, amount in options.resources.items()]
    job = {"cores": 1, "processes": 1, "silence_logs": "critical"} | dict(options.job or {})
    job["worker_extra_args"] = [*job.get("worker_extra_args", []), *" ".join(extra).split()]
    job["scheduler_options"] = {"dashboard_address": None} | dict(job.get("scheduler_options") or {})
    try:
        return SLURMCluster(**job)
    except (TypeError, ValueError, RuntimeError, OSError) as error:
        raise RequestError(f"engine.job: {_brief(error)}") from error


def _check_workers(client: Any, options: ClusterOptions) -> None:
    """Check that the workers of a running scheduler can do the work.

    Raises:
        RequestError: there are none, they run several units at once, or lack what units ask for.
    """
    if options.min_workers is None:
        try:
            client.wait_for_workers(1, timeout=options.wait)
        except TimeoutError as error:
            raise RequestError(
                f"engine.address={options.address}: the scheduler has no workers; start some with "
                f"`dask worker {options.address} --nthreads 1`, or set engine.min_workers=0 if it "
                "will start them"
            ) from error
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    several = max((worker["nthreads"] for worker in workers), default=1)
    if several > 1:
        raise RequestError(
            f"engine.address={options.address}: its workers run {several} tasks at once, and each would use "
            "every thread; start them with --nthreads 1"
        )
    for name, amount in options.resources.items():
        most = max((worker["resources"].get(name, 0) for worker in workers), default=amount)
        if most < amount:
            raise RequestError(
                f"engine.resources.{name}={amount:g}: no worker of {options.address} has it; start them with "
                f"--resources {name}={amount:g}"
            )


def _brief(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
