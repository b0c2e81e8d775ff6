"""The open W&B runs of one publisher: opened when a run has something to say, closed side by side.

Here is the boundary to W&B: whatever goes wrong in it becomes a note in the ledger and a sentence, and never
costs another run anything.
"""

import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracker.errors import TrackerError
from tracker.records import digest
from tracker.wandb_sink.access import without_secrets
from tracker.wandb_sink.alerts import alerts_for
from tracker.wandb_sink.artifact import StoredRun
from tracker.wandb_sink.identity import RunIdentity
from tracker.wandb_sink.ledger import OFFLINE, Ledger, ledger_path
from tracker.wandb_sink.options import SinkOptions
from tracker.wandb_sink.rows import Row

if TYPE_CHECKING:
    from tracker.wandb_sink.client import Client, OpenRun

PATIENT_SECONDS = 300.0
"""How long a run may take to close where nobody waits for a sweep, as long as the server answers."""
QUICK_BYTES = 5_000_000
"""How much of a store goes along as artifacts at the end of a sweep; what is larger, a replay sends."""
GIVE_UP_SECONDS = 2.0
"""How long closing may take where the server does not answer: time to flush the log to disk."""


class OpenRuns:
    """Opens, feeds and closes runs, and keeps their ledgers."""

    def __init__(self, folder: Path, options: SinkOptions, client: "Client", *, hurry: bool) -> None:
        self._folder = folder
        self._options = options
        self._room = QUICK_BYTES if hurry else None
        self._client = client
        self._ledgers: dict[RunIdentity, Ledger] = {}
        self._open: dict[RunIdentity, OpenRun] = {}
        self._service_hangs = False
        self.rows = 0
        """Rows that were given to W&B."""
        self.touched: dict[RunIdentity, str | None] = {}
        """The runs that were opened and their addresses, None for one that went to disk."""
        self.postponed: set[str] = set()
        """Artifacts that were too large to be sent at the end of a sweep."""
        self.refused: dict[str, str] = {}
        """Artifacts that the server did not take, and why."""

    def ledger(self, identity: RunIdentity) -> Ledger:
        """What of one run was sent where."""
        if identity not in self._ledgers:
            path = ledger_path(self._folder, self._options, identity)
            self._ledgers[identity] = Ledger.load(path, identity)
        return self._ledgers[identity]

    def sent(self, identity: RunIdentity) -> set[str]:
        """Rows of one run that need not be sent, in the way that rows go now."""
        opened = self._open.get(identity)
        if opened is None:
            return self.ledger(identity).sent(self._client.server)
        return {*self.ledger(identity).sent(opened.server), *self.ledger(identity).handed, *opened.held}

    def unsure(self) -> int:
        """How many rows a server may have or not."""
        return sum(len(ledger.unsure) for ledger in self._ledgers.values())

    def ensure_open(self, identity: RunIdentity, facts: dict[str, Any]) -> None:
        """Opens or resumes a run where it is not open; offline where W&B fails.

        Args:
            identity: the run.
            facts: what its checkpoint tables say of the model.

        Raises:
            TrackerError: not even the disk takes it.
        """
        if identity in self._open:
            return
        ledger = self.ledger(identity)
        ledger.drop_unfinished(self._folder / "wandb")
        if self._service_hangs:
            self.restart()
        opened = self._client.open(identity, _configuration(identity, facts))
        if opened is None:
            self.restart()
            opened = self._client.open(identity, _configuration(identity, facts))
        assert opened is not None  # offline it opens or raises
        ledger.begin(opened.folder)
        self._open[identity] = opened
        self.touched[identity] = opened.url

    def log(self, identity: RunIdentity, row: Row) -> None:
        """Gives a row to an open run. Where W&B's service breaks, every run is closed."""
        self.ledger(identity).hand([row.name])
        self.rows += 1
        try:
            self._open[identity].log(row)
        except Exception as error:
            self._broken(error)

    def _broken(self, error: Exception) -> None:
        """W&B's own service process died: what was given to it may have arrived or not."""
        if self._client.mode == "offline":
            raise TrackerError(
                f"cannot write the W&B runs below {self._folder / 'wandb'}: {error}; the measurements are "
                f"stored, `tracker stream store={self._folder}` sends them"
            ) from error
        self._client.fail(error)
        self._service_hangs = True
        for name, opened in self._open.items():
            self.ledger(name).close(
                opened.server, opened.held, delivered=False, wandb_folder=self._folder / "wandb"
            )
        self._open.clear()
        self.restart()

    def restart(self) -> None:
        """Closes every run and ends W&B's service process with whatever hangs in it."""
        self.close(list(self._open), lambda _: {})
        self._client.restart()
        self._service_hangs = False

    def recover(self) -> bool:
        """Goes online again where a server that could not be reached now can; whether it did."""
        if not self._client.back():
            return False
        self.restart()
        return True

    def close(self, identities: Iterable[RunIdentity], summary: Callable[[RunIdentity], dict[str, Any]],
              analysis: dict[str, Any] | None = None,
              records: Callable[[RunIdentity], StoredRun] | None = None) -> None:  # fmt: skip
        """Closes runs, each with its summary, its alerts and its records, side by side.

        Args:
            identities: the runs; those that are not open are left out.
            summary: what a run's summary says; empty leaves it as it is.
            analysis: content of ``analysis.json``, whose alerts are raised.
            records: a run's part of the store, for its artifact.
        """
        closing = [(name, self._open.pop(name)) for name in identities if name in self._open]
        if not closing:
            return
        words = {name: summary(name) for name, _ in closing}

        def finish(name: RunIdentity, opened: "OpenRun") -> None:
            self._finish(name, opened, words[name], analysis, records)

        failures = _all_at_once([partial(finish, *each) for each in closing], self._patience())
        for (name, opened), failure in zip(closing, failures, strict=True):
            self._settle(name, opened, failure, words[name])

    def _patience(self) -> float:
        if self._client.mode == "online" and not self._client.answers():
            return GIVE_UP_SECONDS
        return self._options.finish_timeout

    def _finish(self, identity: RunIdentity, opened: "OpenRun", words: dict[str, Any],
                analysis: dict[str, Any] | None,
                records: Callable[[RunIdentity], StoredRun] | None) -> None:  # fmt: skip
        """The last words of one run; runs in a thread of its own, and may hang there."""
        if words:
            opened.summarise(words)
        for alert in self.alerts_left(identity, analysis or {}, opened.server):
            opened.alert(alert)
        if records is not None:
            stored = records(identity)
            if self.artifact_left(identity, stored, opened.server):
                self._attach(opened, stored)
        opened.finish()

    def artifact_left(self, identity: RunIdentity, stored: StoredRun, server: str) -> bool:
        """Whether a run's records are to be sent: a server lacks them, and there is time for their size."""
        sent = self.ledger(identity).artifact.get(server)
        if not self._options.artifact or server == OFFLINE or sent == stored.digest:
            return False
        if self._room is not None and stored.bytes() > self._room:
            self.postponed.add(stored.name)
            return False
        return True

    def _attach(self, opened: "OpenRun", stored: StoredRun) -> None:
        """Sends a run's records; a server that refuses them costs no row."""
        if self._room is not None:
            self._room -= stored.bytes()
        try:
            opened.attach(stored)
        except Exception as error:
            self.refused[stored.name] = without_secrets(" ".join(str(error).split())[:200])

    def alerts_left(self, identity: RunIdentity, analysis: dict[str, Any], server: str) -> list[Any]:
        """Alerts of the analysis that were not sent to ``server`` yet."""
        sent = self.ledger(identity).alerted(server)
        return [alert for alert in alerts_for(identity, analysis) if alert.id not in sent]

    def _settle(self, identity: RunIdentity, opened: "OpenRun", failure: Exception | None,
                words: dict[str, Any]) -> None:  # fmt: skip
        ledger = self.ledger(identity)
        delivered = failure is None and opened.server != OFFLINE
        if words:
            ledger.summary[OFFLINE if failure else opened.server] = digest(words)
        if failure is not None:
            self._client.fail(failure)
            self._service_hangs = True
        else:
            ledger.alerts[opened.server] = sorted({*ledger.alerts.get(opened.server, ()), *opened.alerts})
        if delivered and opened.attached:
            ledger.artifact[opened.server] = opened.attached
        ledger.close(opened.server, opened.held, delivered=delivered, wandb_folder=self._folder / "wandb")
        if delivered:
            ledger.supersede_written(opened.server, self._folder / "wandb")


def _configuration(identity: RunIdentity, facts: dict[str, Any]) -> dict[str, Any]:
    """The run's flat configuration, by which W&B groups and filters."""
    config = {
        "suite": identity.suite, "family": identity.suite, "model": identity.model, "seed": identity.seed,
        "probe": identity.probe, "conventions": identity.conventions, **facts,
    }  # fmt: skip
    if "params_non_embedding" in facts:
        config["n_params"] = facts["params_non_embedding"]
    return config


def _all_at_once(tasks: list[Callable[[], None]], seconds: float) -> list[Exception | None]:
    """What each task failed with, None where it did not; one that takes longer is left to itself."""
    failures: dict[int, Exception | None] = {}

    def carry_out(number: int) -> None:
        try:
            tasks[number]()
            failures[number] = None
        # Whatever W&B raises is told, and must not cost the other runs.
        except Exception as error:
            failures[number] = error

    threads = [threading.Thread(target=carry_out, args=(n,), daemon=True) for n in range(len(tasks))]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = TimeoutError(f"did not take everything in {seconds:g} s")
    return [failures.get(number, late) for number in range(len(tasks))]
