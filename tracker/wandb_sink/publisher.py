"""The one publisher: reads the store and sends every measured checkpoint to W&B exactly once.

The store is the truth and W&B a view of it: what was sent is kept in a ledger, so a publisher can stop, die
or be replayed at any time and the next one goes on from there.
"""

import threading
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from tracker.errors import RequestError, TrackerError
from tracker.records import digest
from tracker.wandb_sink.account import Published, account
from tracker.wandb_sink.arrivals import Arrival, Arrivals
from tracker.wandb_sink.artifact import StoredRun, stored_run
from tracker.wandb_sink.identity import RunIdentity
from tracker.wandb_sink.ledger import OFFLINE
from tracker.wandb_sink.lock import publisher_lock
from tracker.wandb_sink.options import SinkOptions
from tracker.wandb_sink.order import StepOrder
from tracker.wandb_sink.promises import Promised, Promises, destination, promising
from tracker.wandb_sink.rows import Row, read_row
from tracker.wandb_sink.runs import PATIENT_SECONDS, OpenRuns
from tracker.wandb_sink.words import read_analysis, summary_of

if TYPE_CHECKING:
    from tracker.wandb_sink.client import Client

POLL_SECONDS = 0.5
"""How often the store's folder is looked at while following a sweep."""


def publish(folder: Path, options: SinkOptions, *, follow: threading.Event | None = None,
            promised: Iterable[Promised] = ()) -> Published:  # fmt: skip
    """Sends what the store holds and W&B does not.

    Args:
        folder: the store's folder; everything of W&B goes to ``wandb/`` in it.
        options: where to, and how much.
        follow: None sends what is there and returns. An event keeps the publisher reading new records,
            whoever stores them, until the event is set; then it sends the rest and returns.
        promised: what the sweep that is followed is going to store, so that rows go out in step order.

    Returns:
        How much was sent, and sentences for the user. W&B's own failures are among those sentences: the
        rows then lie on disk. With ``sink=none`` or ``mode=disabled`` nothing is done.

    Raises:
        RequestError: an option is not allowed, or there is no store to send.
        TrackerError: another publisher holds this store, or its folder cannot be written.
    """
    folder = Path(folder)
    options.validate()
    if not options.enabled:
        return Published()
    if follow is None and not (folder / "checkpoints").is_dir():
        raise RequestError(
            f"store={folder}: holds no measurements; create some with `tracker sweep store={folder}`"
        )
    try:
        with ExitStack() as held:
            promise = ""
            if follow is not None:
                promise = held.enter_context(promising(folder, options, promised, follow))
            # wandb is imported here: whoever only asks for the options must not wait for it.
            from tracker.wandb_sink.client import Client

            held.enter_context(publisher_lock(folder, follow))
            if follow is None:
                options = replace(options, finish_timeout=max(options.finish_timeout, PATIENT_SECONDS))
            client = Client(folder, options)
            if client.mode == "disabled":
                return Published()
            publisher = _Publisher(folder, options, client, promise, hurry=follow is not None)
            if follow is None:
                publisher.replay()
            else:
                publisher.follow(follow)
            return publisher.published()
    except OSError as error:
        raise TrackerError(
            f"cannot write below {folder / 'wandb'}: {error}; free or change store=DIR, then "
            f"`tracker stream store={folder}` sends what is missing"
        ) from error


class _Publisher:
    """What one publisher knows of the store, and which of it still has to go."""

    def __init__(self, folder: Path, options: SinkOptions, client: "Client", promise: str, *,
                 hurry: bool) -> None:  # fmt: skip
        self.folder = folder
        self.options = options
        self.client = client
        self.runs = OpenRuns(folder, options, client, hurry=hurry)
        self.arrivals = Arrivals(folder)
        self.order = StepOrder(options.order_wait)
        self.promises = Promises(folder)
        self.promise = promise
        self.records: dict[RunIdentity, dict[str, Arrival]] = {}
        self.unreadable: set[Path] = set()
        self.left = 0

    def replay(self) -> None:
        """Sends every run, one at a time and in step order."""
        for identity in sorted(self._take_in()):
            self._send(identity, self._pending(identity))
            if self.unreadable:
                # A record that was being replaced a moment ago reads back now.
                self._take_in()
                self._send(identity, self._pending(identity))
            self._close([identity])
            self._refresh_summary(identity)

    def follow(self, stop: threading.Event) -> None:
        """Sends what arrives until ``stop`` is set, then the rest; runs stay open meanwhile."""
        while True:
            # Read before the poll: what was stored before the stop is then seen by that poll.
            stopping = stop.is_set()
            self.runs.recover()
            self.promises.look()
            self._take_in()
            self._send_ready(stopping)
            if stopping:
                break
            stop.wait(POLL_SECONDS)
        self._close(list(self.records))
        for identity in sorted(self.records):
            self._refresh_summary(identity)

    def _send_ready(self, stopping: bool) -> None:
        """Sends every row that need not wait for an earlier one.

        When its own sweep has ended, only another with the same destination is worth waiting for, since
        its publisher goes on from here.
        """
        mine = {"without": self.promise, "only": destination(self.options)} if stopping else {}
        coming = self.promises.coming(self.records, **mine)
        self.left = 0
        for identity in sorted(self.records):
            pending = self._pending(identity)
            ready = self.order.ready(pending, coming.get(identity, ()))
            self._send(identity, ready)
            self.left += len(pending) - len(ready)

    def _take_in(self) -> set[RunIdentity]:
        changed = set()
        for arrival in self.arrivals.poll():
            identity = RunIdentity.of(arrival.record)
            self.records.setdefault(identity, {})[arrival.record.key] = arrival
            changed.add(identity)
        return changed

    def _pending(self, identity: RunIdentity) -> list[Arrival]:
        """Measured checkpoints that have not been sent, in step order."""
        sent = self.runs.sent(identity)
        waiting = [each for each in self.records[identity].values() if each.row and each.row not in sent]
        return sorted(waiting, key=lambda arrival: arrival.step)

    def _send(self, identity: RunIdentity, arrivals: list[Arrival]) -> None:
        rows = (row for row in map(self._read, arrivals) if row is not None)
        for row in rows:
            self.runs.ensure_open(identity, row.facts)
            # Asked again: only now is it known what a server held before the run was opened.
            if row.name not in self.runs.sent(identity):
                self.runs.log(identity, row)

    def _read(self, arrival: Arrival) -> Row | None:
        try:
            row = read_row(arrival.place, histograms=self.options.histograms, maps=self.options.maps)
        except (OSError, pl.exceptions.PolarsError):
            # It may be in the middle of being replaced by a newer measurement, which the next poll finds.
            self.arrivals.forget(arrival.place)
            self.unreadable.add(arrival.place)
            return None
        self.unreadable.discard(arrival.place)
        return row

    def _summary(self, identity: RunIdentity) -> dict[str, Any]:
        records = self.records[identity].values()
        measured = [arrival for arrival in records if arrival.row]
        last = None
        if measured:
            newest = max(measured, key=lambda arrival: arrival.step)
            try:
                last = read_row(newest.place, histograms=False, maps=False)
            except (OSError, pl.exceptions.PolarsError):
                self.arrivals.forget(newest.place)
        holes = [arrival.record for arrival in records if not arrival.row]
        return summary_of(identity, last, holes, read_analysis(self.folder))

    def _stored(self, identity: RunIdentity) -> StoredRun:
        return stored_run(self.folder, identity, self.records[identity].values())

    def _close(self, identities: Iterable[RunIdentity]) -> None:
        self.runs.close(identities, self._summary, read_analysis(self.folder), self._stored)

    def _refresh_summary(self, identity: RunIdentity) -> None:
        """Opens a run only for what is not a row: new holes or alerts, another analysis, records not sent."""
        sent, server = self.runs.ledger(identity).summary, self.client.server
        known = sent.values() if server == OFFLINE else [sent.get(server)]
        analysis = read_analysis(self.folder)
        if (
            digest(self._summary(identity)) not in known
            or self.runs.alerts_left(identity, analysis, server)
            or self.runs.artifact_left(identity, self._stored(identity), server)
        ):
            self.runs.ensure_open(identity, {})
            self._close([identity])

    def published(self) -> Published:
        """The account of it all."""
        return account(self.folder, self.runs.rows, self.runs.touched, self.client.failure,
                       unsure=self.runs.unsure(), left=self.left, unreadable=self.unreadable,
                       refused=self.runs.refused, postponed=len(self.runs.postponed))  # fmt: skip
