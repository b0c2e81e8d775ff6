"""The simplest engine: one unit after the other, in this process; the next checkpoints arrive meanwhile."""

from collections.abc import Generator, Sequence

from tracker.engines.prefetch import Prefetch
from tracker.engines.worker import Worker
from tracker.errors import TrackerError
from tracker.records import Outcome, PlannedUnit


def run_inline(units: Sequence[PlannedUnit] | Prefetch, worker: Worker) -> Generator[Outcome, None, None]:
    """Yield the outcome of each unit as it is recorded; a stop loses at most the unit in hand.

    Args:
        units: or what fetches them ahead; without it each is fetched when its turn has come.
        worker: measures and records.

    Raises:
        StoreError, RequestError: as of ``Worker.run``.
        TrackerError: CUDA failed, and would fail every later unit of this process.
    """
    with units if isinstance(units, Prefetch) else Prefetch(units) as supply:
        for fetched in supply:
            outcome = fetched.elsewhere or worker.run(fetched.planned, fetched.result)
            supply.release(fetched)
            yield outcome
            if worker.broken:
                raise TrackerError(
                    f"{outcome.reason}; CUDA works again only in a new process: progress saved; run the same "
                    "command with engine=local to resume, which replaces its worker"
                )
