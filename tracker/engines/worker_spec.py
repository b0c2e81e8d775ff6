"""What every worker of a sweep is made from; it crosses to other processes and machines."""

from dataclasses import dataclass, replace
from pathlib import Path

from tracker.records import ProbeSource

FILES = ("text", "ids", "tokenizer")
"""Fields of a probe's source that name files of this machine."""


@dataclass(frozen=True)
class WorkerSpec:
    """The store and the probe of a sweep."""

    store: Path
    source: ProbeSource
    stream: str = "auto"
    store_inode: int | None = None
    """Of the store's folder as the sweep found it (``tracker.store.Store.inode``)."""
    metric_files: tuple[str, ...] = ()
    """Python files that register custom metrics."""
    options: frozenset[str] = frozenset()
    """Fields of ``spectrum`` that are true: further measures (``weights``, ``states``)."""

    def with_absolute_paths(self) -> "WorkerSpec":
        """Return the same with paths that do not depend on the current folder."""
        paths = {
            name: str(Path(value).absolute())
            for name in FILES
            if (value := getattr(self.source, name)) is not None and Path(value).exists()
        }
        files = tuple(str(Path(file).absolute()) for file in self.metric_files)
        source = replace(self.source, **paths)
        return replace(self, store=self.store.absolute(), source=source, metric_files=files)
