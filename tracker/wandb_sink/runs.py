"""The open W&B runs of one publisher: opened when a run has something to say, finished side by side.

Here is the boundary to W&B: whatever goes wrong in it becomes a note in the ledger and a sentence, and never
costs another run anything.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from tracker.errors import TrackerError
from tracker.wandb_sink import client
from tracker.wandb_sink.client import OpenRun
from tracker.wandb_sink.connection import ANSWER_SECONDS, OFFLINE, Connection, readable, run_bounded
from tracker.wandb_sink.findings import RunReport
from tracker.wandb_sink.identity import RunIdentity
from tracker.wandb_sink.ledger import UNCONFIRMED, Ledger
from tracker.wandb_sink.options import SinkOptions
from tracker.wandb_sink.published import Published
from tracker.wandb_sink.rows import Row, Scalar
from tracker.wandb_sink.stored import RunFiles

PATIENT_SECONDS = 300.0
"""How long a run may take to finish where no sweep waits for it, as long as the server answers."""
QUICK_BYTES = 5_000_000
"""How much of a store goes along as artifacts at the end of a sweep; `tracker stream` sends the rest."""
GIVE_UP_SECONDS = 2.0
"""How long finishing may take where the server does not answer: time to flush the log to disk."""


class OpenRuns:
    """Opens, feeds and finishes runs, and keeps their ledgers."""

    def __init__(self, folder: Path, options: SinkOptions, *, hurry: bool, sweep: str | None = None) -> None:
        """Nothing is opened yet.

        Args:
            folder: the store's folder.
            options: where to, and how much.
            hurry: whether a sweep waits for the end.
            sweep: id of the W&B sweep whose agent started this; it stands in each run's configuration.
        """
        if not hurry:
            options = replace(options, finish_timeout=max(options.finish_timeout, PATIENT_SECONDS))
        self._folder, self._options, self._sweep = folder, options, sweep
        self._artifact_bytes = QUICK_BYTES if hurry else None
        self.connection = Connection(options, client.server_address())
        self._ledgers: dict[RunIdentity, Ledger] = {}
        self._open: dict[RunIdentity, OpenRun] = {}
        self._service_hangs = False
        self._rows = 0
        self._urls: dict[RunIdentity, str | None] = {}
        self._postponed: set[str] = set()
        self._refused: dict[str, str] = {}

    def published(self) -> Published:
        """Report what was sent so far."""
        return Published(
            folder=self._folder,
            rows=self._rows,
            runs=len(self._urls),
            urls=tuple(sorted({url.split("/runs/")[0] for url in self._urls.values() if url})),
            failure=self.connection.failure,
            unconfirmed=sum(len(ledger.rows.get(UNCONFIRMED, ())) for ledger in self._ledgers.values()),
            postponed=len(self._postponed),
            refused=self._refused,
            rebuilt=tuple(sorted(each.path for each in self._ledgers.values() if each.rebuilt)),
        )

    def ledger(self, identity: RunIdentity) -> Ledger:
        """Return what of one run was sent where."""
        if identity not in self._ledgers:
            self._ledgers[identity] = Ledger.load(self._folder, self._options, identity)
            self._ledgers[identity].abandon()  # a run that is open here belongs to a publisher that died
        return self._ledgers[identity]

    def sent(self, identity: RunIdentity) -> set[str]:
        """Return the rows of one run that need not be sent, in the way that rows go now."""
        opened = self._open.get(identity)
        return self.ledger(identity).sent(opened.server if opened else self.connection.server)

    def log(self, identity: RunIdentity, row: Row) -> None:
        """Give a row to its run, which is opened where it is not; to disk where W&B fails.

        Raises:
            TrackerError: not even the disk takes it.
        """
        self._ensure_open(identity, row.facts)
        # Asked again: only now is it known which rows the server held before the run was opened.
        if row.name in self.sent(identity):
            return
        self.ledger(identity).hand_over(row.name)
        self._rows += 1
        try:
            self._open[identity].log(row)
        except Exception as error:
            self._service_died(identity, error)

    def finish(self, reports: Mapping[RunIdentity, RunReport]) -> None:
        """Finish runs, each with its summary, alerts and records.

        One that is not open is opened only where its report has something that W&B lacks: failed checkpoints,
        an analysis or records that are newer than what was sent.
        """
        self._close(reports)
        for identity, report in reports.items():
            if self._is_news(identity, report):
                self._ensure_open(identity, {})
                self._close({identity: report})

    def recover(self) -> None:
        """Go online again where a server that could not be reached now can."""
        if self.connection.recover():
            self._restart()

    def _ensure_open(self, identity: RunIdentity, facts: dict[str, Scalar]) -> None:
        """Open or resume a run where it is not open.

        Args:
            identity: the run.
            facts: what its checkpoint tables say of the model.
        """
        if identity in self._open:
            return
        if self._service_hangs:
            self._restart()
        config = _configuration(identity, facts) | ({"sweep": self._sweep} if self._sweep else {})
        if self.connection.mode == "online":
            self._open_online(identity, config)
        if identity in self._open:
            return
        try:
            self._open_at(OFFLINE, identity, config)
        except Exception as error:
            raise TrackerError(
                f"cannot write the W&B run of {identity.label} below {self._folder / 'wandb'}: "
                f"{readable(error)}; free the disk or use sink=none; the measurements are stored"
            ) from error

    def _open_online(self, identity: RunIdentity, config: dict[str, Scalar]) -> None:
        """Open a run and learn which rows its server holds; where that fails, the run is not open."""
        if not self.connection.check():
            self.connection.fail(ConnectionError(f"no answer within {ANSWER_SECONDS:g} s"))
            return
        try:
            opened = self._open_at(self.connection.server, identity, config)
            self.ledger(identity).confirm(opened.server, opened.list_held_rows())
        # Whatever the client raises (no network, refused key, malformed answer), the rows must not wait.
        except Exception as error:
            self.connection.check()
            self.connection.fail(error)
            # The failed attempt still occupies the run's id in W&B's service process.
            self._restart()

    def _open_at(self, server: str, identity: RunIdentity, config: dict[str, Scalar]) -> OpenRun:
        opened = client.open_run(self._folder, self._options, identity, config=config, server=server)
        self.ledger(identity).begin(opened.folder)
        self._open[identity] = opened
        self._urls[identity] = opened.url
        return opened

    def _service_died(self, identity: RunIdentity, error: Exception) -> None:
        """Go on with another service of W&B: what was given to the one that died may have arrived or not."""
        if self._open[identity].server == OFFLINE:
            raise TrackerError(
                f"cannot write the W&B runs below {self._folder / 'wandb'}: {error}; the measurements are "
                f"stored, `tracker stream store={self._folder}` sends them"
            ) from error
        self.connection.fail(error)
        for name in self._open:
            self.ledger(name).abandon()
        self._open.clear()
        self._restart()

    def _restart(self) -> None:
        """Close every run, and end W&B's service process with whatever hangs in it."""
        self._close(dict.fromkeys(self._open))
        client.stop_service()
        self._service_hangs = False

    def _close(self, reports: Mapping[RunIdentity, RunReport | None]) -> None:
        """Close those of the runs that are open, side by side and in bounded time."""
        closing = {name: self._open.pop(name) for name in [*reports] if name in self._open}
        news = {name: self._news(name, opened.server, reports[name]) for name, opened in closing.items()}
        seconds = self._options.finish_timeout
        if any(opened.server != OFFLINE for opened in closing.values()) and not self.connection.check():
            seconds = GIVE_UP_SECONDS
        tasks = [partial(opened.finish, news[name]) for name, opened in closing.items()]
        for (name, opened), failure in zip(closing.items(), run_bounded(tasks, seconds), strict=True):
            if failure is not None:
                self.connection.fail(failure)
                self._service_hangs = True
            self._settle(self.ledger(name), opened, news[name], delivered=failure is None)

    def _settle(self, ledger: Ledger, opened: OpenRun, report: RunReport | None, *, delivered: bool) -> None:
        """Note in the ledger what became of a run that was closed."""
        place = opened.server
        if report is not None:
            ledger.summary[place if delivered else OFFLINE] = report.digest
        if report is not None and delivered:
            ledger.alerts[place] = sorted({*ledger.alerts.get(place, ()), *(a.id for a in report.alerts)})
            if report.files is not None and opened.refusal is None:
                ledger.artifact[place] = report.files.digest
            elif report.files is not None and opened.refusal is not None:
                self._refused[report.files.name] = opened.refusal
        if delivered:
            ledger.close(place)
        else:
            ledger.abandon()

    def _news(self, identity: RunIdentity, server: str, report: RunReport | None) -> RunReport | None:
        """Reduce a report to what ``server`` lacks, as far as there is time for it."""
        if report is None:
            return None
        sent = self.ledger(identity).sent_alerts(server)
        files = report.files if self._is_artifact_due(identity, server, report.files) else None
        if files is not None and self._artifact_bytes is not None:
            self._artifact_bytes -= files.count_bytes()
        return replace(report, alerts=tuple(a for a in report.alerts if a.id not in sent), files=files)

    def _is_news(self, identity: RunIdentity, report: RunReport) -> bool:
        """Return whether a report says what was not sent, in the way that rows go now."""
        server, ledger = self.connection.server, self.ledger(identity)
        summaries = [*ledger.summary.values()] if server == OFFLINE else [ledger.summary.get(server)]
        return (
            report.digest not in summaries
            or not ledger.sent_alerts(server).issuperset(alert.id for alert in report.alerts)
            or self._is_artifact_due(identity, server, report.files)
        )

    def _is_artifact_due(self, identity: RunIdentity, server: str, files: RunFiles | None) -> bool:
        """Return whether a run's records are to be sent: the server lacks them, and there is time."""
        if files is None or server == OFFLINE or self.ledger(identity).artifact.get(server) == files.digest:
            return False
        if self._artifact_bytes is not None and files.count_bytes() > self._artifact_bytes:
            self._postponed.add(files.name)
            return False
        return True


def _configuration(identity: RunIdentity, facts: dict[str, Scalar]) -> dict[str, Scalar]:
    """Return the run's flat configuration, by which W&B groups and filters."""
    config: dict[str, Scalar] = {
        "suite": identity.suite, "family": identity.suite, "model": identity.model, "seed": identity.seed,
        "probe": identity.probe, "conventions": identity.conventions, **facts,
    }  # fmt: skip
    if "params_non_embedding" in facts:
        config["n_params"] = facts["params_non_embedding"]
    return config
