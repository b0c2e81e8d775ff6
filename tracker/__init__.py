"""Track attention-head spectra across training checkpoints.

>>> import tracker
>>> callable(tracker.open_store) and callable(tracker.track)
True
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracker.api import analyse, compare, dashboard, figure_data, figures, measure_attention, track
    from tracker.live import TrackerCallback, watch
    from tracker.metrics.custom import metric, try_metric
    from tracker.store import open_store
    from tracker.wandb_sink import SinkOptions

__all__ = [
    "SinkOptions",
    "TrackerCallback",
    "analyse",
    "compare",
    "dashboard",
    "figure_data",
    "figures",
    "measure_attention",
    "metric",
    "open_store",
    "track",
    "try_metric",
    "watch",
]

_HOMES = {
    "SinkOptions": "tracker.wandb_sink",
    "TrackerCallback": "tracker.live",
    "analyse": "tracker.api",
    "compare": "tracker.api",
    "dashboard": "tracker.api",
    "figure_data": "tracker.api",
    "figures": "tracker.api",
    "measure_attention": "tracker.api",
    "metric": "tracker.metrics.custom",
    "open_store": "tracker.store",
    "track": "tracker.api",
    "try_metric": "tracker.metrics.custom",
    "watch": "tracker.live",
}


def __getattr__(name: str) -> Any:
    """Load a name of the Python interface when it is first used: ``tracker plan`` need not wait for torch."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name == "__version__":
        from tracker.records import tracker_version

        return tracker_version()
    raise AttributeError(f"module 'tracker' has no attribute {name!r}")


def __dir__() -> list[str]:
    """What is meant to be used; a notebook completes these names."""
    return [*__all__, "__version__"]
