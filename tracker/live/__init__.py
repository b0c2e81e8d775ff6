"""Live training: measures a model while it is trained, and leaves the training as it would be without."""

from tracker.live.budget import Budget, Schedule
from tracker.live.callback import TrackerCallback
from tracker.live.loop import watch
from tracker.live.watch import TrainingWatch

__all__ = ["Budget", "Schedule", "TrackerCallback", "TrainingWatch", "watch"]
