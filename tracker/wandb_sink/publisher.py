"""The one publisher: reads the store and sends every measured checkpoint to W&B exactly once.

The store is the truth and W&B a view of it: what was sent is kept in a ledger, so a publisher can stop, die
or be replayed at any time and the next one goes on from there. Rows go out as they are stored, in any order:
``checkpoint/step`` is the axis that sorts them.
"""

import errno
import threading
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import Timeout

from tracker.atomic import locked
from tracker.errors import RequestError, TrackerError
from tracker.store import DamagedRecord, read_table
from tracker.wandb_sink.charts import HEAD_METRICS, HEADS, PHASES, head_table, phase_table
from tracker.wandb_sink.findings import Findings, RunReport, read_analysis, summarise_rows
from tracker.wandb_sink.identity import RunIdentity, without_foreign_names
from tracker.wandb_sink.options import SinkOptions
from tracker.wandb_sink.published import Published
from tracker.wandb_sink.rows import Row, read_row
from tracker.wandb_sink.stored import StoredRecord, StoredRecords

if TYPE_CHECKING:
    from tracker.wandb_sink.runs import OpenRuns

POLL_SECONDS = 0.5
"""How often the store's folder is looked at while following a sweep."""
LOCK_SECONDS = 20.0
"""How long to wait for another publisher that may just be ending."""


def publish(folder: Path, options: SinkOptions, *, follow: threading.Event | None = None) -> Published:
    """Send what the store holds and W&B does not.

    Args:
        folder: the store's folder; everything of W&B goes to ``wandb/`` in it.
        options: where to, and how much.
        follow: None sends what is there and returns. An event keeps the publisher reading new records,
            whoever stores them, until the event is set; then it sends the rest and returns.

    Returns:
        How much was sent, and sentences for the user. W&B's own failures are among those sentences: the
        rows are then on disk. With ``sink=none`` or ``mode=disabled`` nothing is done.

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
            _hold_lock(held, folder, follow)
            sweep = held.enter_context(without_foreign_names())
            # wandb is imported here: whoever only asks for the options must not wait for it.
            from tracker.wandb_sink.runs import OpenRuns

            runs = OpenRuns(folder, options, hurry=follow is not None, sweep=sweep)
            if runs.connection.mode == "disabled":
                return Published()
            publisher = _Publisher(folder, options, runs)
            if follow is None:
                publisher.replay()
            else:
                publisher.follow(follow)
            return replace(runs.published(), unreadable=tuple(sorted(publisher.left_out)))
    except OSError as error:
        raise TrackerError(
            f"cannot write below {folder / 'wandb'}: {error}; free or change store=DIR, then "
            f"`tracker stream store={folder}` sends what is missing"
        ) from error


def _hold_lock(held: ExitStack, folder: Path, follow: threading.Event | None) -> None:
    """Hold ``DIR/wandb/publisher.lock``: two publishers would send the same rows twice.

    While ``follow`` is not set there is no hurry, since whoever holds the lock sends the records meanwhile.
    """
    while True:
        ending = follow is None or follow.is_set()
        try:
            held.enter_context(
                locked(folder / "wandb" / "publisher.lock", LOCK_SECONDS if ending else POLL_SECONDS)
            )
            return
        except Timeout as error:
            if ending:
                raise TrackerError(
                    f"store={folder}: another publisher is sending it to W&B and sends every record; "
                    f"run `tracker stream store={folder}` when it has ended to make sure"
                ) from error


class _Publisher:
    """What one publisher knows of the store, and which of it still has to go."""

    def __init__(self, folder: Path, options: SinkOptions, runs: "OpenRuns") -> None:
        self._folder, self._options, self._runs = folder, options, runs
        self._stored = StoredRecords(folder)
        self._unreadable: set[Path] = set()

    @property
    def left_out(self) -> set[Path]:
        """Record folders that send no row, since their files are not those that were written."""
        return self._unreadable | self._stored.damaged

    def replay(self) -> None:
        """Send every run, one at a time."""
        for _ in range(2):  # a record that was being replaced at first is found by the second poll
            for identity in sorted(self._stored.poll()):
                self._send(identity)
                self._finish([identity])

    def follow(self, stop: threading.Event) -> None:
        """Send what is stored until ``stop`` is set, then the rest; runs stay open meanwhile."""
        stopping = False
        while not stopping:
            # Read before the poll, which then finds all that was stored before the stop.
            stopping = stop.is_set()
            self._runs.recover()
            self._stored.poll()
            for identity in sorted(self._stored.by_run):
                self._send(identity)
            if not stopping:
                stop.wait(POLL_SECONDS)
        self._finish(sorted(self._stored.by_run))

    def _send(self, identity: RunIdentity) -> None:
        """Send the rows of one run that were not sent yet, in step order."""
        for each in self._stored.measured(identity, without=self._runs.sent(identity)):
            if not self._folder.is_dir():  # nothing is made anew where the store was moved away
                raise FileNotFoundError(errno.ENOENT, "the store was deleted or moved", str(self._folder))
            row = self._read(each)
            if row is not None:
                self._runs.log(identity, row)

    def _read(self, stored: StoredRecord) -> Row | None:
        histograms, maps = self._options.histograms, self._options.maps
        try:
            row = read_row(stored.folder, histograms=histograms, maps=maps)
        except (OSError, DamagedRecord):
            # It may be in the middle of being replaced by a newer measurement, which the next poll finds.
            self._stored.forget(stored.folder)
            self._unreadable.add(stored.folder)
            return None
        self._unreadable.discard(stored.folder)
        return row

    def _finish(self, identities: Iterable[RunIdentity]) -> None:
        findings = Findings(read_analysis(self._folder))
        self._runs.finish({identity: self._report(identity, findings) for identity in identities})

    def _report(self, identity: RunIdentity, findings: Findings) -> RunReport:
        measured = self._stored.measured(identity)
        last, tables = None, {}
        if measured:
            with suppress(OSError, DamagedRecord):
                last = read_row(measured[-1].folder, histograms=False, maps=False)
                size = last.facts.get("params_non_embedding")
                if moves := findings.transitions(identity):
                    tables[PHASES.table] = phase_table(moves, identity.name, size)
                if self._options.maps:
                    heads = read_table(measured[-1].folder, "heads", ["layer", "head", *HEAD_METRICS])
                    tables[HEADS.table] = head_table(heads, identity.name, size, last.step)
        summary = summarise_rows(last, self._stored.holes(identity)) | findings.summary(identity)
        files = self._stored.files(identity) if self._options.artifact else None
        return RunReport(summary, findings.alerts(identity), files, tables)
