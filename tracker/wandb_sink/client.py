"""The only module that imports wandb: opens runs, logs rows, and goes on offline when W&B fails."""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tracker.errors import TrackerError
from tracker.wandb_sink.access import has_key, resolve_mode, without_secrets
from tracker.wandb_sink.alerts import Alert
from tracker.wandb_sink.artifact import TYPE, StoredRun
from tracker.wandb_sink.identity import RunIdentity
from tracker.wandb_sink.ledger import OFFLINE
from tracker.wandb_sink.options import SinkOptions
from tracker.wandb_sink.reach import PROBE_SECONDS, reachable
from tracker.wandb_sink.rows import KEY, ROW, STEP, STEP_PLUS_ONE, TOKENS, Row

# Read when wandb is imported and when its service starts: no crash reports, nothing on the console.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
import wandb

logger = logging.getLogger(__name__)
FLUSH_SECONDS = 1.0
"""How often W&B's own log is flushed, and rows are transmitted; its default is 15 for both."""
RETRY_SECONDS = 20.0
"""How often a server that did not answer is asked again."""
RESTART_SECONDS = 5.0
"""How long W&B's service process may take to end; one that hangs is left behind."""
ANSWER_SECONDS = 20
"""How long the server may take to say which rows it holds."""
SETTLE_SECONDS = 5.0
"""How long to wait where it counts more rows than it lists, as it does just after they came."""


def online(options: SinkOptions) -> bool:
    """Whether rows would go to a server that there is a key for."""
    return resolve_mode(options, _server_address()) == "online" and has_key(_server_address())


def default_entity() -> str:
    """The user or team that the key belongs to.

    Raises:
        Exception: whatever W&B's client raises where it cannot tell.
    """
    entity = wandb.Api(timeout=ANSWER_SECONDS).default_entity
    if not entity:
        raise PermissionError("the key belongs to no user or team; give sink.entity")
    return entity


def _server_address() -> str:
    return str(wandb.setup(wandb.Settings(silent=True)).settings.base_url)


class OpenRun:
    """One live W&B run."""

    def __init__(self, run: Any, server: str) -> None:
        self._run = run
        self.server = server
        """Address of the server, or ``OFFLINE``."""
        self.folder = Path(run.settings.sync_dir).name
        self.alerts: list[str] = []
        """Ids of the alerts that it was given."""
        self.attached = ""
        """Digest of the records in the artifact that it was given; empty where it was given none."""
        self.held: set[str] = set()
        """Rows that the server held before this run was opened."""
        self.url: str | None = run.url if server != OFFLINE else None

    def log(self, row: Row) -> None:
        """Hands one row over; returns at once, whatever the network does."""
        payload: dict[str, Any] = dict(row.scalars)
        for metric, counts_and_edges in row.histograms.items():
            payload[f"heads/{metric}"] = wandb.Histogram(np_histogram=counts_and_edges)
        for metric, (picture, caption) in row.maps.items():
            payload[f"maps/{metric}"] = wandb.Image(picture, caption=caption)
        self._run.log(payload)

    def summarise(self, words: dict[str, Any]) -> None:
        """Sets the run's summary."""
        self._run.summary.update(words)

    def alert(self, alert: Alert) -> None:
        """Raises an alert, which W&B forwards as its user has chosen."""
        self._run.alert(alert.title, alert.text, level=alert.level)
        self.alerts.append(alert.id)

    def attach(self, stored: StoredRun) -> None:
        """Sends the run's records as an artifact; W&B makes a new version where anything is new in it."""
        artifact = wandb.Artifact(stored.name, type=TYPE)
        for folder, name in stored.folders:
            # The files of a record never change, so they are sent from where they lie.
            artifact.add_dir(str(folder), name=name, policy="immutable", skip_cache=True)
        self._run.log_artifact(artifact)
        self.attached = stored.digest

    def finish(self) -> None:
        """Ends the run once its rows are delivered, or offline once they are flushed to disk.

        Raises:
            TimeoutError: the server did not take everything in ``finish_timeout`` seconds.
        """
        self._run.finish()

    def ask_what_is_held(self) -> None:
        """Fills ``held``: the rows that the server has already, asked over W&B's public interface."""
        path = f"{self._run.entity}/{self._run.project}/{self._run.id}"
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            rows = list(_rows_held(path)) if self._run.starting_step > 0 else []
            if len(rows) >= self._run.starting_step or time.monotonic() > deadline:
                self.held = {row[ROW] for row in rows}
                return
            time.sleep(0.5)


def _rows_held(path: str) -> Iterable[dict[str, Any]]:
    return wandb.Api(timeout=ANSWER_SECONDS).run(path).scan_history(keys=[ROW], use_cache=False)


class Client:
    """Opens runs for one store and one project. After a failure everything goes to disk, until a server
    that had not answered does."""

    def __init__(self, folder: Path, options: SinkOptions) -> None:
        self._folder = folder
        self._options = options
        self._base_url = _server_address()
        self.mode = resolve_mode(options, self._base_url)
        self.failure: str | None = None
        """Why W&B is not used now, in words; None while it is."""
        self._lost_at: float | None = None
        """When a server was last found not to answer, on the monotonic clock; None where it answered."""
        if self.mode == "online" and not has_key(self._base_url):
            # Asked here, since the client would ask at the terminal and wait for an answer.
            self.fail(PermissionError("there is no key for it; `wandb login` stores one"))

    @property
    def server(self) -> str:
        """Where rows go now: the server's address, or ``OFFLINE``."""
        return self._base_url if self.mode == "online" else OFFLINE

    def open(self, identity: RunIdentity, config: dict[str, Any]) -> OpenRun | None:
        """Opens or resumes a run; None if W&B failed just now and the mode has become offline.

        Whoever gets None closes its open runs, calls ``restart`` and opens again: the failed attempt still
        occupies the run's id in W&B's service process.

        Raises:
            TrackerError: not even the disk takes it.
        """
        if self.mode == "online":
            try:
                if not self.answers():
                    self.fail(ConnectionError(f"no answer within {PROBE_SECONDS:g} s"))
                    return self._open_offline(identity, config)
                return self._open_online(identity, config)
            # Whatever the client raises (no network, refused key, malformed answer), the rows must not wait.
            except Exception as error:
                self.answers()
                self.fail(error)
                return None
        return self._open_offline(identity, config)

    def _open_offline(self, identity: RunIdentity, config: dict[str, Any]) -> OpenRun:
        try:
            return OpenRun(self._init(identity, config, "offline"), OFFLINE)
        except Exception as error:
            raise TrackerError(
                f"cannot write the W&B run of {identity.label} below {self._folder / 'wandb'}: "
                f"{without_secrets(str(error))}; free the disk or use sink=none; the measurements are stored"
            ) from error

    def answers(self) -> bool:
        """Whether the server answers at all; takes seconds, not the minutes of a client that tries again."""
        answered = reachable(self._base_url)
        self._lost_at = None if answered else time.monotonic()
        return answered

    def back(self) -> bool:
        """Goes online again where the server had not answered and now does; asks it only now and then."""
        if self.mode == "online" or self._lost_at is None:
            return False
        if time.monotonic() - self._lost_at < RETRY_SECONDS or not self.answers():
            return False
        self.mode, self.failure = "online", None
        logger.warning("W&B answers again: %s", self._base_url)
        return True

    def restart(self) -> None:
        """Ends W&B's service process with everything that hangs in it; the next ``open`` starts another."""

        def tear_down() -> None:
            # A service that has died cannot be told to end; the next one is started all the same.
            with contextlib.suppress(Exception):
                wandb.teardown()

        ending = threading.Thread(target=tear_down, daemon=True)
        ending.start()
        ending.join(RESTART_SECONDS)

    def _open_online(self, identity: RunIdentity, config: dict[str, Any]) -> OpenRun:
        run = self._init(identity, config, "online")
        opened = OpenRun(run, self._base_url)
        try:
            if run.resumed:
                opened.ask_what_is_held()
        except Exception:
            run.finish()
            raise
        return opened

    def fail(self, error: BaseException) -> None:
        """Goes on offline from here, remembering the first reason."""
        self.mode = "offline"
        if self.failure is None:
            reason = without_secrets(" ".join(str(error).split())) or type(error).__name__
            self.failure = f"{self._base_url}: {reason[:300]}"
            logger.warning("W&B failed: %s", self.failure)

    def _init(self, identity: RunIdentity, config: dict[str, Any], mode: Any) -> Any:
        options = self._options
        run = wandb.init(
            project=options.project,
            entity=options.entity,
            id=identity.id,
            name=identity.name,
            group=identity.group,
            dir=str(self._folder),
            config=config,
            allow_val_change=True,
            resume="allow",
            reinit="create_new",
            mode=mode,
            settings=_settings(options),
        )
        run.define_metric("*", step_metric=STEP)
        for axis in (STEP, STEP_PLUS_ONE, TOKENS):
            run.define_metric(axis)
        for name in (KEY, ROW):
            run.define_metric(name, hidden=True)
        return run


def _settings(options: SinkOptions) -> wandb.Settings:
    return wandb.Settings(
        init_timeout=options.init_timeout,
        finish_timeout=options.finish_timeout,
        finish_timeout_raises=True,
        x_transaction_log_flush_interval=FLUSH_SECONDS,
        x_file_stream_transmit_interval=FLUSH_SECONDS,
        silent=True,
        console="off",
        # A server that is busy for some seconds is asked again within init_timeout.
        x_graphql_retry_wait_max_seconds=5,
        x_file_stream_retry_wait_max_seconds=10,
        # Nothing about the machine, its environment or the user's code leaves it.
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        disable_git=True,
        disable_code=True,
        program="tracker",
        host="",
    )
