"""Which of the rows that wait may go now, so that a run's history is in step order."""

import time
from collections.abc import Collection, Sequence
from typing import Protocol, TypeVar


class Waiting(Protocol):
    """What has a place in the order."""

    @property
    def row(self) -> str:
        """Name of the row."""
        ...

    @property
    def step(self) -> int:
        """Its step."""
        ...


Row = TypeVar("Row", bound=Waiting)


class StepOrder:
    """Holds rows back while an earlier step is still to come, each at most ``patience`` seconds.

    A row that was waited for in vain arrives later, behind rows of higher steps: W&B's own history is in
    the order of arrival, and ``checkpoint/step`` is the axis that sorts it.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._since: dict[str, float] = {}

    def ready(self, waiting: Sequence[Row], coming: Collection[int], now: float | None = None) -> list[Row]:
        """Those that may go: nothing earlier is to come, or their patience, or that of a later one, is over.

        Args:
            waiting: rows of one run that are stored and not sent, in step order.
            coming: steps of that run that are still to come.
            now: the time on the monotonic clock.
        """
        now = time.monotonic() if now is None else now
        earliest = min(coming, default=None)
        last = 0
        for place, row in enumerate(waiting, start=1):
            since = self._since.setdefault(row.row, now)
            if earliest is None or row.step < earliest or now - since >= self._patience:
                last = place
        return list(waiting[:last])
