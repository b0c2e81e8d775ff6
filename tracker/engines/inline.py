"""The simplest engine: one unit after the other, in this process."""

from collections.abc import Iterable, Iterator

from tracker.engines.worker import Worker
from tracker.records import Outcome, PlannedUnit


def run_inline(units: Iterable[PlannedUnit], worker: Worker) -> Iterator[Outcome]:
    """Yields what became of each unit as it is recorded; a stop loses at most the unit in hand."""
    for planned in units:
        yield worker.run(planned)
