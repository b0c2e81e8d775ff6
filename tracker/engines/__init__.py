"""Engines run many units; each unit is idempotent, so any of them may be stopped at any time."""

from tracker.engines.inline import run_inline
from tracker.engines.prefetch import Delivery, Prefetch
from tracker.engines.worker import Worker, chosen_device

__all__ = ["Delivery", "Prefetch", "Worker", "chosen_device", "run_inline"]
