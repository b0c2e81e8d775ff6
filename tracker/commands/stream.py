"""``tracker stream``: send to W&B what the store holds and W&B does not."""

from typing import TYPE_CHECKING

from rich.console import Console

from tracker.config import Config, checked
from tracker.console.output import DONE, SOME_FAILED, print_line
from tracker.store import require_store

if TYPE_CHECKING:
    from tracker.wandb_sink import SinkOptions


def run(config: Config, console: Console) -> int:
    """Send the rest of the store; with ``workspace=true`` make the project's workspace too."""
    from tracker.wandb_sink import publish, require_server, save_workspace

    options = sink_options(config)
    require_store(config.store)
    if config.workspace:
        require_server(options)
    published = publish(config.store, options)
    for sentence in published.sentences:
        print_line(console, sentence)
    if config.workspace:
        for sentence in save_workspace(config.store, options):
            print_line(console, sentence)
    return DONE if published.failure is None else SOME_FAILED


def sink_options(config: Config) -> "SinkOptions":
    """Return the sink of the request, checked.

    Raises:
        RequestError: a field that does not exist, or a value that is not allowed.
    """
    from tracker.wandb_sink import SinkOptions

    return checked(SinkOptions, "sink", config.sink).validate()
