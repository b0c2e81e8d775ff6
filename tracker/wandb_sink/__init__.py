"""The W&B sink: one publisher that reads the store. Importing this does not import wandb."""

from tracker.wandb_sink.options import SinkOptions
from tracker.wandb_sink.process import PublisherHandle, start_publisher
from tracker.wandb_sink.published import Published
from tracker.wandb_sink.publisher import publish
from tracker.wandb_sink.workspace import require_server, save_workspace

__all__ = [
    "Published",
    "PublisherHandle",
    "SinkOptions",
    "publish",
    "require_server",
    "save_workspace",
    "start_publisher",
]
