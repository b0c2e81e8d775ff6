"""The W&B sink: one publisher that reads the store. Importing this does not import wandb."""

from tracker.sinks.options import SinkOptions
from tracker.sinks.process import PublisherHandle, start_publisher
from tracker.sinks.promises import Promised, promised_by
from tracker.sinks.publisher import Published, publish
from tracker.sinks.workspace import require_server, save_workspace

__all__ = [
    "Promised",
    "Published",
    "PublisherHandle",
    "SinkOptions",
    "promised_by",
    "publish",
    "require_server",
    "save_workspace",
    "start_publisher",
]
