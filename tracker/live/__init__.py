"""Live training: measure a model while it is trained, and leave the training as it would be without."""

from tracker.live.budget import Budget, Schedule
from tracker.live.callback import TrackerCallback
from tracker.live.loop import watch
from tracker.live.monitor import TrainingMonitor
from tracker.live.options import ProbeOptions, WatchOptions

__all__ = [
    "Budget",
    "ProbeOptions",
    "Schedule",
    "TrackerCallback",
    "TrainingMonitor",
    "WatchOptions",
    "watch",
]
