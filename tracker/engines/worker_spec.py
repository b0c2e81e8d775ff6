"""What every worker of a sweep is made from; crosses to other processes and machines."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tracker.metrics.registry import load_metrics
from tracker.records import ProbeSource
from tracker.store import Store

if TYPE_CHECKING:
    from tracker.engines.worker import Worker

Model = tuple[str, str, int]
"""Suite, model and seed."""
FILES = ("text", "ids", "tokenizer")
"""Fields of a probe's source that name files of this machine."""


@dataclass(frozen=True)
class Placement:
    """Where one worker of several runs."""

    device: str
    threads: int | None = None
    """Of torch; None: its own choice."""
    memory: int | None = None
    """Bytes that its weights may take, where several share a memory; None: all that is free."""
    share: float = 1.0
    """Of its GPU, where several share one."""


@dataclass(frozen=True)
class WorkerSpec:
    """The store and the probe of a sweep, and what is known of its models from earlier ones."""

    store: Path
    source: ProbeSource
    stream: str = "auto"
    token_digests: Mapping[tuple[str, str, int, str], str] = field(default_factory=dict)
    shapes: Mapping[Model, tuple[int, int, int]] = field(default_factory=dict)
    metric_files: tuple[str, ...] = ()
    """Python files that register metrics of the user's own."""

    def worker(self, placement: Placement) -> "Worker":
        """A worker in this process; sets the number of torch's threads."""
        import torch

        from tracker.engines.worker import Worker

        load_metrics(self.metric_files)
        if placement.threads:
            torch.set_num_threads(placement.threads)
        memory = placement.memory
        if placement.share < 1:
            memory = int(torch.cuda.get_device_properties(placement.device).total_memory * placement.share)
        return Worker(
            Store(self.store),
            self.source,
            placement.device,
            dict(self.token_digests),
            self.stream,
            dict(self.shapes),
            memory,
        )

    def elsewhere(self) -> "WorkerSpec":
        """The same with paths that do not depend on the current folder."""
        paths = {
            name: str(Path(value).absolute())
            for name in FILES
            if (value := getattr(self.source, name)) is not None and Path(value).exists()
        }
        files = tuple(str(Path(file).absolute()) for file in self.metric_files)
        source = replace(self.source, **paths)
        return replace(self, store=self.store.absolute(), source=source, metric_files=files)
