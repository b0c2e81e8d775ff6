"""The commands of ``tracker``: one module each, listed here and nowhere else."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from tracker.config import Config


@dataclass(frozen=True)
class Command:
    """One command: ``tracker NAME``, carried out by ``tracker.commands.NAME``."""

    name: str
    help: str
    """What it does, in one line."""

    def load(self) -> "Callable[[Config, Console], int]":
        """Import the command's module and return its ``run(config, console)``, which returns an exit code."""
        return import_module(f"tracker.commands.{self.name}").run


_LISTED = (
    Command("sweep", "measure every checkpoint not measured yet, stream to W&B, analyse, draw"),
    Command("plan", "show what a sweep would do: checkpoints, bytes, disk and time; touches nothing"),
    Command("audit", "verify that checkpoint weights match their names, by the hub's file hashes alone"),
    Command("weights", "measure the weights of checkpoints: no forward pass, no probe"),
    Command("analyse", "find phases of every model and thresholds over model size"),
    Command("compare", "compare models with each other and the paper, or two stores (compare.other=DIR)"),
    Command("roles", "classify what each head does and since which step"),
    Command("validate", "check metrics against ground truth, and stored results against the paper's claims"),
    Command("dashboard", "write one HTML file; figures=DIR writes figures too; serve=true follows a sweep"),
    Command("stream", "send to W&B what it does not have yet; workspace=true makes the W&B workspace"),
    Command("nano", "train the embedded suite, measure nothing"),
)
COMMANDS = {command.name: command for command in _LISTED}
