"""What of one run was sent where: ``DIR/wandb/sent/[<entity>/]<project>/<run id>.json``.

Rows go by their names (``checkpoint/row``). Four sorts are told apart. *Confirmed*: a server has acknowledged
them. *Written*: they lie, flushed, in an offline run folder below ``DIR/wandb`` that ``wandb sync`` delivers.
*Unsure*: they were given to a run that was online and did not end well, so the server may have them or not:
only a publisher that is online can tell, by asking, and no file may deliver them. All others are not sent.
"""

import json
import os
import shutil
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tracker.store import safe_name
from tracker.wandb_sink.identity import RunIdentity
from tracker.wandb_sink.options import SinkOptions

OFFLINE = "offline"
"""Stands for the server where rows only go to disk."""


def ledger_folder(folder: Path, options: SinkOptions) -> Path:
    """Where the ledgers of one project lie; another project or entity is another folder."""
    names = [options.entity, options.project] if options.entity else [options.project]
    return folder.joinpath("wandb", "sent", *(safe_name(name) for name in names))


def ledger_path(folder: Path, options: SinkOptions, identity: RunIdentity) -> Path:
    """Where the ledger of one run lies."""
    return ledger_folder(folder, options) / f"{identity.id}.json"


@dataclass
class Ledger:
    """The rows of one run that were sent to one project, kept on disk by ``save``."""

    path: Path
    identity: RunIdentity
    confirmed: dict[str, list[str]] = field(default_factory=dict)
    """By server address: rows that it has acknowledged."""
    written: dict[str, list[str]] = field(default_factory=dict)
    """By run folder: rows that lie in it, flushed."""
    unsure: list[str] = field(default_factory=list)
    """Rows that a server may have or not."""
    open: str | None = None
    """The run folder being written, from before its first row until it is closed."""
    handed: list[str] = field(default_factory=list)
    """Rows given to the open run; noted before they are given, so none can arrive that is not noted."""
    summary: dict[str, str] = field(default_factory=dict)
    """By server address or ``OFFLINE``: digest of the summary that was sent last."""
    alerts: dict[str, list[str]] = field(default_factory=dict)
    """By server address or ``OFFLINE``: ids of the alerts that were sent."""
    artifact: dict[str, str] = field(default_factory=dict)
    """By server address: digest of the records in the artifact that was sent last."""

    @classmethod
    def load(cls, path: Path, identity: RunIdentity) -> "Ledger":
        """The ledger at ``path``; an empty one where there is none or it does not read back."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                path, identity,
                confirmed={str(name): list(keys) for name, keys in content["confirmed"].items()},
                written={str(name): list(keys) for name, keys in content["written"].items()},
                unsure=list(content["unsure"]),
                open=content["open"],
                handed=list(content["handed"]),
                summary=dict(content["summary"]),
                alerts={str(name): list(ids) for name, ids in content["alerts"].items()},
                artifact=dict(content["artifact"]),
            )  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls(path, identity)

    def save(self) -> None:
        """Replaces the file whole, so that a kill leaves the old one or the new one."""
        content: dict[str, Any] = {
            "run": asdict(self.identity) | {"id": self.identity.id},
            "confirmed": self.confirmed,
            "written": self.written,
            "unsure": self.unsure,
            "open": self.open,
            "handed": self.handed,
            "summary": self.summary,
            "alerts": self.alerts,
            "artifact": self.artifact,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(f".{os.getpid()}.partial")
        with open(partial, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path)

    def sent(self, server: str) -> set[str]:
        """Rows that need not be sent: to a server, what it confirmed; offline, whatever may be on any way."""
        if server != OFFLINE:
            return set(self.confirmed.get(server, ()))
        return {*self.unsure}.union(*self.confirmed.values(), *self.written.values())

    def alerted(self, server: str) -> set[str]:
        """Ids of the alerts that need not be sent: to a server, what it got; offline, what went anywhere."""
        if server != OFFLINE:
            return set(self.alerts.get(server, ()))
        return {each for ids in self.alerts.values() for each in ids}

    def begin(self, run_folder: str) -> None:
        """Notes that rows are about to go into ``run_folder``."""
        self.open, self.handed = run_folder, []
        self.save()

    def hand(self, rows: Iterable[str]) -> None:
        """Notes rows that are about to be given to the open run."""
        self.handed += rows
        self.save()

    def close(self, server: str, held: Collection[str], *, delivered: bool, wandb_folder: Path) -> None:
        """Notes that the open run folder is complete and, where ``delivered``, that the server has it all.

        Args:
            server: address of the server, or ``OFFLINE``.
            held: rows that the server was found to hold before the run was opened.
            delivered: False where the rows only lie on disk, or nobody knows.
            wandb_folder: where the run folders lie.
        """
        if delivered:
            self.confirmed[server] = sorted({*self.confirmed.get(server, ()), *held, *self.handed})
            self.unsure = sorted({*self.unsure} - {*self.confirmed[server]})
        elif server != OFFLINE:
            self._lose_sight(wandb_folder)
        elif self.open is not None and self.handed:
            self.written[self.open] = sorted(self.handed)
        self.open, self.handed = None, []
        self.save()

    def drop_unfinished(self, wandb_folder: Path) -> None:
        """Settles the run folder that a publisher left open when it died.

        How much of an offline one reached the disk is not known: it is removed and its rows are sent again,
        for keeping it would deliver rows twice. What an online one delivered is not known either, nor what
        ``wandb sync`` found in an offline one that it has meanwhile delivered.
        """
        if self.open is None:
            return
        folder = wandb_folder / Path(self.open).name
        if folder.name.startswith("offline-run-") and not any(folder.glob("*.wandb.synced")):
            shutil.rmtree(folder, ignore_errors=True)
        else:
            self._lose_sight(wandb_folder)
        self.open, self.handed = None, []

    def _lose_sight(self, wandb_folder: Path) -> None:
        """The rows of the open run may have arrived: from here on only a server can say.

        Its folder is marked as delivered, as ``wandb sync`` marks it: delivering the whole folder would
        repeat what had arrived, and the rows themselves are in the store.
        """
        self.unsure = sorted({*self.unsure, *self.handed})
        if self.open is not None:
            _mark_synced(wandb_folder / Path(self.open).name)

    def supersede_written(self, server: str, wandb_folder: Path) -> None:
        """Marks run folders whose rows ``server`` has all confirmed as synced, as ``wandb sync`` does.

        Without the mark a later ``wandb sync`` would deliver the same rows once more.
        """
        confirmed = set(self.confirmed.get(server, ()))
        for name in [name for name, rows in self.written.items() if confirmed.issuperset(rows)]:
            _mark_synced(wandb_folder / Path(name).name)
            del self.written[name]
        self.save()


def _mark_synced(folder: Path) -> None:
    for log in folder.glob("*.wandb"):
        log.with_suffix(".wandb.synced").touch()
