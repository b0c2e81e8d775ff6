"""Engines run many units; each unit is idempotent, so any of them may be stopped at any time."""

from tracker.engines.inline import run_inline
from tracker.engines.local import Terms, run_local
from tracker.engines.placement import chosen_device, placements
from tracker.engines.prefetch import FetchedCheckpoint, Prefetch
from tracker.engines.reservations import Reservations
from tracker.engines.worker import Worker
from tracker.engines.worker_spec import Placement, WorkerSpec

__all__ = [
    "FetchedCheckpoint",
    "Placement",
    "Prefetch",
    "Reservations",
    "Terms",
    "Worker",
    "WorkerSpec",
    "chosen_device",
    "placements",
    "run_inline",
    "run_local",
]
