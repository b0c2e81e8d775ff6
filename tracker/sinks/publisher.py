"""The one publisher: reads the store and sends every measured checkpoint to W&B exactly once.

The store is the truth and W&B a view of it: what was sent is kept in a ledger, so a publisher can stop, die
or be replayed at any time and the next one goes on from there.
"""

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from tracker.errors import RequestError, TrackerError
from tracker.records import digest
from tracker.sinks.account import Published, account
from tracker.sinks.alerts import Alert, alerts_for
from tracker.sinks.arrivals import Arrival, Arrivals
from tracker.sinks.identity import RunIdentity
from tracker.sinks.ledger import OFFLINE, Ledger, ledger_path
from tracker.sinks.lock import publisher_lock
from tracker.sinks.options import SinkOptions
from tracker.sinks.rows import Row, read_row
from tracker.sinks.words import read_analysis, summary_of

if TYPE_CHECKING:
    from tracker.sinks.client import Client, OpenRun

POLL_SECONDS = 0.5
"""How often the store's folder is looked at while following a sweep."""


def publish(folder: Path, options: SinkOptions, *, follow: threading.Event | None = None) -> Published:
    """Sends what the store holds and W&B does not.

    Args:
        folder: the store's folder; everything of W&B goes to ``wandb/`` in it.
        options: where to, and how much.
        follow: None sends what is there and returns. An event keeps the publisher reading new records,
            whoever stores them, until the event is set; then it sends the rest and returns.

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
            f"store={folder}: holds no measurements; `tracker sweep store={folder}` makes them"
        )
    # wandb is imported here and not above: whoever only asks for the options must not wait for it.
    from tracker.sinks.client import Client

    try:
        with publisher_lock(folder, follow):
            client = Client(folder, options)
            if client.mode == "disabled":
                return Published()
            publisher = _Publisher(folder, options, client)
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
    """The state of one publisher: what the store holds, what was sent, which runs are open."""

    def __init__(self, folder: Path, options: SinkOptions, client: "Client") -> None:
        self.folder = folder
        self.options = options
        self.client = client
        self.arrivals = Arrivals(folder)
        self.records: dict[RunIdentity, dict[str, Arrival]] = {}
        self.ledgers: dict[RunIdentity, Ledger] = {}
        self.open_runs: dict[RunIdentity, OpenRun] = {}
        self.rows = 0
        self.touched: dict[RunIdentity, str | None] = {}
        self.undelivered: list[str] = []
        self.service_hangs = False
        self.unreadable: set[Path] = set()

    def replay(self) -> None:
        """Sends every run, one at a time."""
        for identity in sorted(self._take_in()):
            self._send(identity)
            if self.unreadable:
                # A record that was being replaced a moment ago reads back now.
                self._take_in()
                self._send(identity)
            self._finish([identity])
            self._refresh_summary(identity)

    def follow(self, stop: threading.Event) -> None:
        """Sends what arrives until ``stop`` is set, then the rest; runs stay open meanwhile."""
        while True:
            # Read before the poll: what was stored before the stop is then seen by that poll.
            stopping = stop.is_set()
            for identity in sorted(self._take_in()):
                self._send(identity)
            if stopping:
                break
            stop.wait(POLL_SECONDS)
        self._finish(list(self.open_runs))
        for identity in sorted(self.records):
            self._refresh_summary(identity)

    def _take_in(self) -> set[RunIdentity]:
        changed = set()
        for arrival in self.arrivals.poll():
            identity = RunIdentity.of(arrival.record)
            self.records.setdefault(identity, {})[arrival.record.key] = arrival
            changed.add(identity)
        return changed

    def _ledger(self, identity: RunIdentity) -> Ledger:
        if identity not in self.ledgers:
            path = ledger_path(self.folder, self.options, identity)
            self.ledgers[identity] = Ledger.load(path, identity)
        return self.ledgers[identity]

    def _pending(self, identity: RunIdentity) -> list[Arrival]:
        opened = self.open_runs.get(identity)
        sent = self._ledger(identity).sent(opened.server if opened else self.client.server)
        if opened:
            sent |= {*opened.keys, *opened.held}
        measured = [a for a in self.records[identity].values() if a.record.status == "ok"]
        return sorted((a for a in measured if a.record.key not in sent), key=lambda a: a.record.step)

    def _send(self, identity: RunIdentity) -> None:
        pending = self._pending(identity)
        if not pending:
            return
        if identity not in self.open_runs:
            first = self._read(pending[0])
            self._open(identity, first.facts if first else {})
            pending = self._pending(identity)
        for arrival in pending:
            row = self._read(arrival)
            if row is not None:
                self.open_runs[identity].log(row)
                self.rows += 1

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

    def _open(self, identity: RunIdentity, facts: dict[str, Any]) -> None:
        ledger = self._ledger(identity)
        ledger.drop_unfinished(self.folder / "wandb")
        config = {
            "suite": identity.suite, "family": identity.suite, "model": identity.model,
            "seed": identity.seed, "probe": identity.probe, "conventions": identity.conventions,
            **facts,
        }  # fmt: skip
        if "params_non_embedding" in facts:
            config["n_params"] = facts["params_non_embedding"]
        if self.service_hangs:
            self._restart()
        opened = self.client.open(identity, config)
        if opened is None:
            self._restart()
            opened = self.client.open(identity, config)
        assert opened is not None  # offline it opens or raises
        ledger.begin(opened.folder)
        self.open_runs[identity] = opened
        self.touched[identity] = opened.url

    def _restart(self) -> None:
        self._finish(list(self.open_runs))
        self.client.restart()
        self.service_hangs = False

    def _summary(self, identity: RunIdentity) -> dict[str, Any]:
        records = self.records[identity].values()
        measured = [arrival for arrival in records if arrival.record.status == "ok"]
        last = None
        if measured:
            newest = max(measured, key=lambda arrival: arrival.record.step)
            try:
                last = read_row(newest.place, histograms=False, maps=False)
            except (OSError, pl.exceptions.PolarsError):
                self.arrivals.forget(newest.place)
        holes = [arrival.record for arrival in records if arrival.record.status != "ok"]
        return summary_of(identity, last, holes, read_analysis(self.folder))

    def _alerts(self, identity: RunIdentity, server: str) -> list[Alert]:
        """Alerts of the analysis that were not sent to ``server`` yet."""
        sent = self._ledger(identity).alerted(server)
        return [alert for alert in alerts_for(identity, read_analysis(self.folder)) if alert.id not in sent]

    def _refresh_summary(self, identity: RunIdentity) -> None:
        """Opens a run only because its words changed: new holes or alerts, or another analysis."""
        sent, server = self._ledger(identity).summary, self.client.server
        known = sent.values() if server == OFFLINE else [sent.get(server)]
        if digest(self._summary(identity)) not in known or self._alerts(identity, server):
            self._open(identity, {})
            self._finish([identity])

    def _finish(self, identities: Iterable[RunIdentity]) -> None:
        """Closes runs side by side, since each may wait ``finish_timeout`` for a server that is gone."""
        closing = [(name, self.open_runs.pop(name)) for name in identities if name in self.open_runs]
        summaries = {name: self._summary(name) for name, _ in closing}
        for name, opened in closing:
            opened.summarise(summaries[name])
            for alert in self._alerts(name, opened.server):
                opened.alert(alert)
        with ThreadPoolExecutor(max_workers=max(1, len(closing))) as pool:
            failures = list(pool.map(_failure_of_finish, [opened for _, opened in closing]))
        for (name, opened), failure in zip(closing, failures, strict=True):
            self._settle(name, opened, failure, digest(summaries[name]))

    def _settle(self, identity: RunIdentity, opened: "OpenRun", failure: Exception | None,
                words: str) -> None:  # fmt: skip
        ledger = self._ledger(identity)
        delivered = failure is None and opened.server != OFFLINE
        mine = {arrival.record.key for arrival in self.records[identity].values()}
        server = OFFLINE if failure else opened.server
        ledger.summary[server] = words
        ledger.alerts[server] = sorted({*ledger.alerts.get(server, ()), *opened.alerts})
        if failure is not None:
            self.client.fail(failure)
            self.service_hangs = True
            self.undelivered.append(opened.folder)
        ledger.close(opened.server, [*opened.keys, *(opened.held & mine)], delivered=delivered)
        if delivered:
            ledger.supersede_written(opened.server, self.folder / "wandb")

    def published(self) -> Published:
        """The account of it all."""
        return account(self.folder, self.rows, self.touched, self.client.failure, self.undelivered,
                       self.unreadable)  # fmt: skip


def _failure_of_finish(opened: "OpenRun") -> Exception | None:
    try:
        opened.finish()
    # The boundary to W&B: whatever goes wrong in it is told, and must not cost the other runs.
    except Exception as error:
        return error
    return None
