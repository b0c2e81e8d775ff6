"""Where checkpoints stand on the log-step axis, and which of them are averaged before anything is compared.

T: checkpoints; B: bins of checkpoints.
"""

from dataclasses import dataclass

import numpy as np

BIN = 1 / 8
"""Octaves: in long runs checkpoints closer than this are averaged, or late ones drown the early ones."""
LONG = 36
"""Checkpoints from which on a run is long; in short ones every checkpoint stands for itself."""


@dataclass(frozen=True)
class Axis:
    """Checkpoints in octaves of training, and their bins."""

    steps: np.ndarray
    """(T,) training steps, rising."""
    pool: np.ndarray
    """(B, T) each row averages the checkpoints of one bin."""
    first: np.ndarray
    """(B,) number of the first checkpoint of each bin."""
    last: np.ndarray
    """(B,) number of the last checkpoint of each bin."""
    places: np.ndarray
    """(B,) mean log2(step + 1) of each bin."""

    @property
    def bins(self) -> int:
        """How many bins there are."""
        return len(self.places)

    @property
    def key(self) -> bytes:
        """What identifies the checkpoints."""
        return self.steps.tobytes()

    def bracket(self, low: int, high: int) -> tuple[int, int]:
        """Return the measured steps that bound what lies between bin ``low`` and bin ``high``."""
        return int(self.steps[self.first[low]]), int(self.steps[self.last[high]])


def axis_of(steps: np.ndarray) -> Axis:
    """Place checkpoints on the log-step axis.

    Args:
        steps: (T,) training steps, rising.
    """
    positions = np.log2(steps + 1.0)
    width = BIN if len(steps) >= LONG else 0.0
    starts, edge = [], -np.inf
    for number, position in enumerate(positions):
        if position - edge >= width:
            starts.append(number)
            edge = position
    first = np.array(starts)
    last = np.array([*first[1:], len(steps)]) - 1
    number = np.arange(len(steps))
    inside = (number >= first[:, None]) & (number <= last[:, None])
    pool = inside / inside.sum(axis=1, keepdims=True)
    return Axis(steps, pool, first, last, pool @ positions)
