"""tracker: watches transformers grow up, checkpoint by checkpoint.

>>> import tracker
>>> callable(tracker.open_store) and callable(tracker.track)
True
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracker.notebook import track
    from tracker.store import open_store

__all__ = ["open_store", "track"]


def __getattr__(name: str) -> Any:
    """Names of the Python face, loaded when first used: ``tracker plan`` need not wait for torch."""
    if name == "open_store":
        from tracker.store import open_store

        return open_store
    if name == "track":
        from tracker.notebook import track

        return track
    raise AttributeError(f"module 'tracker' has no attribute {name!r}")
