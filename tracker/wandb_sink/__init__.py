"""The W&B sink: one publisher that reads the store. Importing this does not import wandb."""

from tracker.wandb_sink.options import SinkOptions
from tracker.wandb_sink.process import PublisherHandle, start_publisher
from tracker.wandb_sink.promises import Promised, promised_by
from tracker.wandb_sink.publisher import Published, publish
from tracker.wandb_sink.workspace import require_server, save_workspace

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
