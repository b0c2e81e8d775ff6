"""When a training is measured, and what share of its time that may take."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tracker.errors import unknown_value

ADVANCE = 0.5
"""Most of the whole run's share that early measurements may take before it is earned."""
UNCOUNTED = 1
"""Measurements, from the first on, that do not count against the share."""
REMEMBERED = 3
"""The next measurement is expected to cost the median of so many last ones."""


@dataclass(frozen=True)
class Schedule:
    """Every so many steps, and before that at 0, 1, 2, 4, 8 ..., where training moves fastest."""

    every: int
    early: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.every, bool) or not isinstance(self.every, int) or self.every < 1:
            raise unknown_value("every", self.every, "whole numbers from 1")

    def is_early(self, step: int) -> bool:
        """Return whether a step is due only because it is among the first."""
        return self.early and step < self.every and step & (step - 1) == 0

    def due(self, step: int) -> bool:
        """Return whether a step is to be measured.

        Example:
            >>> [step for step in range(301) if Schedule(every=100).due(step)]
            [0, 1, 2, 4, 8, 16, 32, 64, 100, 200, 300]
        """
        return step % self.every == 0 or self.is_early(step)


@dataclass
class Budget:
    """Time: measuring may take ``share`` of what training itself takes; None: as much as it wants.

    A measurement waits until the time trained so far has paid for it. Early ones may be paid in advance,
    out of up to half of what the whole run will earn, where its length is known. The first two are always
    taken: the first loads libraries and fills caches, so that it tells nothing of what the others cost, and
    is not counted.
    """

    share: float | None
    total_steps: int | None = None
    first_step: int = 0
    clock: Callable[[], float] = time.perf_counter
    costs: list[float] = field(default_factory=list)
    due: int = 0
    """Measurements asked for so far."""
    needed: float = 0.0
    """Largest share that a refused measurement would have wanted, had all before it been taken."""
    started: float = field(init=False)

    def __post_init__(self) -> None:
        if self.share is not None and not 0 < self.share <= 1:
            allowed = "shares of training time above 0, up to 1, or None for no bound"
            raise unknown_value("share", self.share, allowed)
        self.started = self.clock()

    @property
    def spent(self) -> float:
        """Seconds that measuring has taken."""
        return sum(self.costs)

    @property
    def counted(self) -> float:
        """Seconds that count against the share: all but the first measurement's."""
        return sum(self.costs[UNCOUNTED:])

    @property
    def expected(self) -> float:
        """Seconds that the next measurement is expected to take."""
        recent = sorted(self.costs[UNCOUNTED:][-REMEMBERED:])
        return recent[len(recent) // 2] if recent else 0.0

    @property
    def enough(self) -> float | None:
        """The share, rounded up to one digit, at which nothing would have been refused.

        None where nothing was, or where no share would do.
        """
        if not 0 < self.needed <= 1:
            return None
        digit = 10.0 ** math.floor(math.log10(self.needed))
        return min(1.0, round(math.ceil(self.needed / digit) * digit, 12))

    @property
    def trained(self) -> float:
        """Seconds that everything else has taken."""
        return max(0.0, self.clock() - self.started - self.spent)

    def refusal(self, step: int, *, early: bool) -> str | None:
        """Return why a measurement must not be taken now; None where it may.

        Args:
            step: finished optimizer steps.
            early: whether it may be paid in advance.
        """
        self.due += 1
        if len(self.costs) < UNCOUNTED + 1 or self.share is None:
            return None
        trained = self.trained
        paying = max(trained, ADVANCE * self._whole_run(step, trained)) if early else trained
        earned = self.share * paying
        if self.counted + self.expected <= earned:
            return None
        wanted = self.expected * (self.due - UNCOUNTED)
        self.needed = max(self.needed, wanted / paying if paying else math.inf)
        return (
            f"a measurement takes about {self.expected:.2g} s and {self.counted:.3g} s are spent; "
            f"{self.share:.3g} of the time trained is {earned:.3g} s"
        )

    def _whole_run(self, step: int, trained: float) -> float:
        """Seconds that the whole run is expected to train; 0 where its length is not known."""
        done = step - self.first_step
        if self.total_steps is None or done < 1:
            return 0.0
        return trained / done * max(self.total_steps - self.first_step, done)

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Count the time that the block takes as measuring."""
        began = self.clock()
        try:
            yield
        finally:
            self.costs.append(self.clock() - began)
