"""What of one run was sent where: ``DIR/wandb/sent/[<entity>/]<project>/<run id>.json``.

Three sorts of rows are told apart. *Confirmed*: a server has acknowledged them. *Written*: they lie, flushed,
in a run folder below ``DIR/wandb`` that ``wandb sync`` delivers. Neither: they were in a run folder that was
still open when its publisher died, so nobody knows, and they count as not sent.
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tracker.sinks.identity import RunIdentity
from tracker.sinks.options import SinkOptions
from tracker.store import safe_name

OFFLINE = "offline"
"""Stands for the server where rows only go to disk."""


def ledger_path(folder: Path, options: SinkOptions, identity: RunIdentity) -> Path:
    """Where the ledger of one run lies; another project or entity is another ledger."""
    names = [options.entity, options.project] if options.entity else [options.project]
    return folder.joinpath("wandb", "sent", *(safe_name(name) for name in names), f"{identity.id}.json")


@dataclass
class Ledger:
    """The rows of one run that were sent to one project, kept on disk by ``save``."""

    path: Path
    identity: RunIdentity
    confirmed: dict[str, list[str]] = field(default_factory=dict)
    """By server address: keys of the records that it has acknowledged."""
    written: dict[str, list[str]] = field(default_factory=dict)
    """By run folder: keys of the records that lie in it, flushed."""
    open: str | None = None
    """The run folder being written, from before its first row until it is closed."""
    summary: dict[str, str] = field(default_factory=dict)
    """By server address or ``OFFLINE``: digest of the summary that was sent last."""

    alerts: dict[str, list[str]] = field(default_factory=dict)
    """By server address or ``OFFLINE``: ids of the alerts that were sent."""

    @classmethod
    def load(cls, path: Path, identity: RunIdentity) -> "Ledger":
        """The ledger at ``path``; an empty one where there is none or it does not read back."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                path, identity,
                confirmed={str(name): list(keys) for name, keys in content["confirmed"].items()},
                written={str(name): list(keys) for name, keys in content["written"].items()},
                open=content["open"],
                summary=dict(content["summary"]),
                alerts={str(name): list(ids) for name, ids in content.get("alerts", {}).items()},
            )  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls(path, identity)

    def save(self) -> None:
        """Replaces the file whole, so that a kill leaves the old one or the new one."""
        content: dict[str, Any] = {
            "run": asdict(self.identity) | {"id": self.identity.id},
            "confirmed": self.confirmed,
            "written": self.written,
            "open": self.open,
            "summary": self.summary,
            "alerts": self.alerts,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(f".{os.getpid()}.partial")
        with open(partial, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path)

    def sent(self, server: str) -> set[str]:
        """Keys that need not be sent: to a server, what it confirmed; offline, whatever is on any way."""
        if server != OFFLINE:
            return set(self.confirmed.get(server, ()))
        return {key for keys in (*self.confirmed.values(), *self.written.values()) for key in keys}

    def alerted(self, server: str) -> set[str]:
        """Ids of the alerts that need not be sent: to a server, what it got; offline, what went anywhere."""
        if server != OFFLINE:
            return set(self.alerts.get(server, ()))
        return {each for ids in self.alerts.values() for each in ids}

    def begin(self, run_folder: str) -> None:
        """Notes that rows are about to go into ``run_folder``."""
        self.open = run_folder
        self.save()

    def close(self, server: str, keys: list[str], *, delivered: bool) -> None:
        """Notes that the open run folder is complete and, where ``delivered``, that the server has it all.

        Args:
            server: address of the server, or ``OFFLINE``.
            keys: records whose rows are in it, or which the server was found to hold already.
            delivered: False where the rows only lie on disk.
        """
        if delivered:
            self.confirmed[server] = sorted({*self.confirmed.get(server, ()), *keys})
        elif self.open is not None and keys:
            self.written[self.open] = sorted(keys)
        self.open = None
        self.save()

    def drop_unfinished(self, wandb_folder: Path) -> None:
        """Removes the offline run folder of a publisher that died; its rows are sent again.

        How much of it reached the disk is not known, and keeping it would deliver rows twice. One that
        ``wandb sync`` has meanwhile delivered stays.
        """
        if self.open is None:
            return
        folder = wandb_folder / Path(self.open).name
        if folder.name.startswith("offline-run-") and not any(folder.glob("*.wandb.synced")):
            shutil.rmtree(folder, ignore_errors=True)
        self.open = None

    def supersede_written(self, server: str, wandb_folder: Path) -> None:
        """Marks run folders whose rows ``server`` has all confirmed as synced, as ``wandb sync`` does.

        Without the mark a later ``wandb sync`` would deliver the same rows once more.
        """
        confirmed = set(self.confirmed.get(server, ()))
        for name in [name for name, keys in self.written.items() if confirmed.issuperset(keys)]:
            for log in (wandb_folder / Path(name).name).glob("*.wandb"):
                log.with_suffix(".wandb.synced").touch()
            del self.written[name]
        self.save()
