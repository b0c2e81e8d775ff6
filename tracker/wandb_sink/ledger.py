"""Which rows of one run were sent where: ``DIR/wandb/sent/[<entity>/]<project>/<run id>.json``.

Rows go by their names (``checkpoint/row``), under the place that they are at: the address of a server that
has confirmed them; an offline run folder below ``DIR/wandb``, which ``wandb sync`` delivers; or
``UNCONFIRMED``, where they were given to an online run that did not end well. Only the server knows whether
those arrived, so a publisher that is online asks it, and no file delivers them.
"""

import errno
import logging
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tracker.atomic import read_json, save_json
from tracker.records import digest
from tracker.store import safe_name
from tracker.wandb_sink.connection import OFFLINE
from tracker.wandb_sink.identity import RunIdentity
from tracker.wandb_sink.options import SinkOptions

logger = logging.getLogger(__name__)
UNCONFIRMED = "unconfirmed"
OFFLINE_FOLDERS = "offline-run-"
"""How W&B names the folders of offline runs."""


def ledger_folder(folder: Path, options: SinkOptions) -> Path:
    """Return the folder of the ledgers of one project; another project or entity has another folder."""
    names = [options.entity, options.project] if options.entity else [options.project]
    return folder.joinpath("wandb", "sent", *(safe_name(name) for name in names))


@dataclass
class Ledger:
    """The rows of one run that were sent to one project, saved at every change."""

    wandb_folder: Path
    """``DIR/wandb``, which holds the run folders."""
    path: Path
    identity: RunIdentity
    rows: dict[str, list[str]] = field(default_factory=dict)
    """By place: names of the rows that are there."""
    open: str = ""
    """The run folder being written; its rows are noted before they are handed over."""
    summary: dict[str, str] = field(default_factory=dict)
    """By server or ``OFFLINE``: digest of the summary that was sent last."""
    alerts: dict[str, list[str]] = field(default_factory=dict)
    """By server or ``OFFLINE``: ids of the alerts that were sent."""
    artifact: dict[str, str] = field(default_factory=dict)
    """By server: digest of the records in the artifact that was sent last."""
    rebuilt: bool = field(default=False, compare=False)
    """Whether the file was damaged or lost, and this was made again from the run's files."""

    @classmethod
    def load(cls, folder: Path, options: SinkOptions, identity: RunIdentity) -> "Ledger":
        """Read the ledger of one run; one that is damaged or lost is made again from the run's files."""
        path = ledger_folder(folder, options) / f"{identity.id}.json"
        try:
            content = read_json(path)
            if content.get("sum", _sum(content)) != _sum(content):
                raise ValueError(f"{path} is not what was written")
            rows = content["rows"] if "rows" in content else _rows_of_first_format(content)
            return cls(
                folder / "wandb", path, identity,
                rows={str(place): list(names) for place, names in rows.items()},
                open=content["open"] or "",
                summary=dict(content["summary"]),
                alerts={str(place): list(ids) for place, ids in content["alerts"].items()},
                artifact=dict(content["artifact"]),
            )  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls(folder / "wandb", path, identity)._rebuilt(options)

    def save(self) -> None:
        """Replace the file whole, so that a kill leaves the old one or the new one."""
        if not self.wandb_folder.parent.is_dir():  # nothing is made anew where the store was moved away
            raise FileNotFoundError(errno.ENOENT, "the store was deleted or moved", str(self.path))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        saved = ("rows", "open", "summary", "alerts", "artifact")
        content: dict[str, Any] = {name: getattr(self, name) for name in saved}
        content["run"] = asdict(self.identity) | {"id": self.identity.id}
        save_json(self.path, content | {"sum": _sum(content)})

    def _rebuilt(self, options: SinkOptions) -> "Ledger":
        """Take in what the run's folders hold; rows in those that wait for no delivery are unconfirmed.

        A folder that cannot be read gives no row, and its rows are sent again.
        """
        from tracker.wandb_sink.run_log import rows_in

        for folder in sorted(self.wandb_folder.glob(f"*run-*-{self.identity.id}*")):
            rows = rows_in(folder, options.project)
            waits = folder.name.startswith(OFFLINE_FOLDERS) and not any(folder.glob("*.wandb.synced"))
            place = folder.name if waits else UNCONFIRMED
            self._put(place, {*self.rows.get(place, ()), *rows})
        if self.rows:
            logger.warning("%s was damaged or lost and is made again from the runs beside it", self.path)
            self.rebuilt = True
            self.save()
        return self

    def sent(self, server: str) -> set[str]:
        """Return the rows that need not be sent: online, what the server confirmed or is being given;
        offline, whatever may be on any way."""
        places = self.rows if server == OFFLINE else (server, self.open)
        return {name for place in places for name in self.rows.get(place, ())}

    def sent_alerts(self, server: str) -> set[str]:
        """Return the ids of alerts that need not be sent, as for rows."""
        places = self.alerts if server == OFFLINE else (server,)
        return {each for place in places for each in self.alerts.get(place, ())}

    def begin(self, run_folder: str) -> None:
        """Note that rows are about to go into ``run_folder``."""
        self.open, self.rows[run_folder] = run_folder, []
        self.save()

    def hand_over(self, row: str) -> None:
        """Note a row that is about to be given to the open run."""
        self.rows[self.open].append(row)
        self.save()

    def confirm(self, server: str, rows: Iterable[str]) -> None:
        """Note that a server holds rows, and mark the files that need not deliver them any more."""
        confirmed = {*self.rows.get(server, ()), *rows}
        for place in [*self.rows]:
            if place == UNCONFIRMED:
                self._put(place, {*self.rows[place]} - confirmed)
            elif place.startswith(OFFLINE_FOLDERS) and confirmed.issuperset(self.rows[place]):
                self._mark_synced(place)
                del self.rows[place]
        self._put(server, confirmed)
        self.save()

    def close(self, server: str) -> None:
        """Note that the open run is finished: its server has its rows, or its offline folder is complete."""
        folder, self.open = self.open, ""
        if server != OFFLINE:
            self.confirm(server, self.rows.pop(folder, []))
        else:
            self._put(folder, {*self.rows.get(folder, ())})
            self.save()

    def abandon(self) -> None:
        """Settle a run that was left open: its publisher died, or did not get everything delivered.

        How much of an offline folder reached the disk is not known: it is removed and its rows are sent
        again, for keeping it would deliver rows twice. What an online run delivered is not known either, nor
        what ``wandb sync`` found in an offline folder that it has meanwhile delivered. Their rows are
        unconfirmed, and the folder is marked as delivered: ``wandb sync`` would repeat what had arrived.
        """
        if not self.open:
            return
        place, self.open = self.open, ""
        rows, folder = self.rows.pop(place, []), self._run_folder(place)
        if folder.name.startswith(OFFLINE_FOLDERS) and not any(folder.glob("*.wandb.synced")):
            shutil.rmtree(folder, ignore_errors=True)
        else:
            self._put(UNCONFIRMED, {*self.rows.get(UNCONFIRMED, ()), *rows})
            self._mark_synced(place)
        self.save()

    def _put(self, place: str, rows: set[str]) -> None:
        self.rows.pop(place, None)
        if rows:
            self.rows[place] = sorted(rows)

    def _run_folder(self, place: str) -> Path:
        return self.wandb_folder / Path(place).name

    def _mark_synced(self, place: str) -> None:
        """Mark a run folder as ``wandb sync`` does."""
        for log in self._run_folder(place).glob("*.wandb"):
            log.with_suffix(".wandb.synced").touch()


def _sum(content: dict[str, Any]) -> str:
    """Return the digest of a ledger's content, by which damage shows; earlier versions wrote none."""
    return digest({name: value for name, value in content.items() if name != "sum"}, 16)


def _rows_of_first_format(content: dict[str, Any]) -> dict[str, list[str]]:
    """Read the rows of a ledger that earlier versions wrote, with one field for each sort of place."""
    rows = content["confirmed"] | content["written"] | {UNCONFIRMED: content["unsure"]}
    return rows | ({content["open"]: content["handed"]} if content["open"] else {})
