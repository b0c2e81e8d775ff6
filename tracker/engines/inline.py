"""The simplest engine: one unit after the other, in this process; the next checkpoints arrive meanwhile."""

from collections.abc import Generator, Sequence

from tracker.engines.prefetch import Prefetch
from tracker.engines.worker import Worker
from tracker.records import Outcome, PlannedUnit


def run_inline(units: Sequence[PlannedUnit] | Prefetch, worker: Worker) -> Generator[Outcome, None, None]:
    """Yields what became of each unit as it is recorded; a stop loses at most the unit in hand.

    Args:
        units: or what fetches them ahead; without it each is fetched when its turn has come.
        worker: measures and records.
    """
    with units if isinstance(units, Prefetch) else Prefetch(units) as supply:
        for delivery in supply:
            outcome = delivery.elsewhere or worker.run(delivery.planned, delivery.result)
            supply.release(delivery)
            yield outcome
