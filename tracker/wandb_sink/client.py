"""The only module that imports wandb: opens a run, logs rows to it, and finishes it."""

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tracker.wandb_sink.charts import Chart, Table
from tracker.wandb_sink.connection import OFFLINE, has_key, readable, resolve_mode, run_bounded
from tracker.wandb_sink.findings import RunReport
from tracker.wandb_sink.identity import RunIdentity
from tracker.wandb_sink.options import SinkOptions
from tracker.wandb_sink.rows import KEY, ROW, STEP, STEP_PLUS_ONE, TOKENS, Row, Scalar
from tracker.wandb_sink.stored import RunFiles

# Read when wandb is imported and when its service starts: no crash reports, nothing on the console.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
import wandb

logger = logging.getLogger(__name__)
FLUSH_SECONDS = 1.0
"""How often W&B's own log is flushed, and rows are transmitted; its default is 15 for both."""
TEARDOWN_SECONDS = 5.0
"""How long W&B's service process may take to end; one that hangs is left behind."""
QUERY_SECONDS = 20
"""How long the server may take to list the rows that it holds."""
SETTLE_SECONDS = 5.0
"""How long to wait where it counts more rows than it lists, as it does just after they came."""
ARTIFACT_TYPE = "tracker-store"


def server_address() -> str:
    """Return the address of the W&B server that the environment and W&B's settings name."""
    return str(wandb.setup(wandb.Settings(silent=True)).settings.base_url)


def sends_online(options: SinkOptions) -> bool:
    """Return whether rows would go to a server that there is a key for."""
    server = server_address()
    return resolve_mode(options, server) == "online" and has_key(server)


def default_entity() -> str:
    """Return the user or team that the key belongs to.

    Raises:
        Exception: whatever W&B's client raises where it does not find out.
    """
    entity = wandb.Api(timeout=QUERY_SECONDS).default_entity
    if not entity:
        raise PermissionError("the key belongs to no user or team; give sink.entity")
    return entity


def make_chart(entity: str, chart: Chart) -> None:
    """Make a custom chart of a user or team.

    Raises:
        Exception: whatever W&B's client raises where the server refuses it.
    """
    wandb.Api(timeout=QUERY_SECONDS).create_custom_chart(
        entity=entity,
        name=chart.name,
        display_name=f"{chart.title} (tracker)",
        spec_type="vega2",
        access="private",
        spec=chart.spec,
    )


def stop_service() -> None:
    """End W&B's service process with everything that hangs in it; the next run starts another."""
    # A service that has died raises here; the next one is started all the same.
    run_bounded([wandb.teardown], TEARDOWN_SECONDS)


class OpenRun:
    """One live W&B run."""

    def __init__(self, run: Any, server: str) -> None:
        self._run = run
        self.server = server
        """Address of the server, or ``OFFLINE``."""
        self.folder = Path(run.settings.sync_dir).name
        self.url: str | None = run.url if server != OFFLINE else None
        self.refusal: str | None = None
        """Why the server did not take the artifact; None where it did or was given none."""

    def log(self, row: Row) -> None:
        """Hand over one row; returns at once, whatever the network does."""
        payload: dict[str, Any] = dict(row.scalars)
        for metric, counts_and_edges in row.histograms.items():
            payload[f"heads/{metric}"] = wandb.Histogram(np_histogram=counts_and_edges)
        for metric, (picture, caption) in row.maps.items():
            payload[f"maps/{metric}"] = wandb.Image(picture, caption=caption)
        self._run.log(payload)

    def finish(self, report: RunReport | None) -> None:
        """End the run once its rows are delivered, or offline once they are flushed to disk.

        Args:
            report: summary, alerts and artifact that are still to be sent; None leaves them as they are.

        Raises:
            TimeoutError: the server did not take everything in ``finish_timeout`` seconds.
        """
        if report is not None:
            self._run.summary.update(report.summary)
            self._show(report.tables)
            for alert in report.alerts:
                self._run.alert(alert.title, alert.text, level=alert.level)
            if report.files is not None:
                self._attach(report.files)
        self._run.finish()

    def _show(self, tables: Mapping[str, Table]) -> None:
        """Put tables into the summary; W&B's client makes an artifact of each, which a server may refuse."""
        for name, table in tables.items():
            try:
                self._run.summary[name] = wandb.Table(columns=[*table.columns], data=[*table.rows])
            except Exception as error:  # as for the artifact below
                logger.warning(
                    "W&B did not take the table %s of %s: %s", name, self._run.name, readable(error)
                )

    def _attach(self, files: RunFiles) -> None:
        """Send the records as an artifact; W&B makes a new version where anything is new in it."""
        try:
            artifact = wandb.Artifact(files.name, type=ARTIFACT_TYPE)
            for folder, name in files.folders:
                # The files of a record never change, so they are sent from where they are.
                artifact.add_dir(str(folder), name=name, policy="immutable", skip_cache=True)
            self._run.log_artifact(artifact)
        # A server that refuses them must not cost a row.
        except Exception as error:
            self.refusal = readable(error)

    def list_held_rows(self) -> set[str]:
        """Ask W&B's public interface for the rows that the server held before this run was resumed."""
        if not self._run.resumed or self._run.starting_step == 0:
            return set()
        path = f"{self._run.entity}/{self._run.project}/{self._run.id}"
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            run = wandb.Api(timeout=QUERY_SECONDS).run(path)
            rows = [row[ROW] for row in run.scan_history(keys=[ROW], use_cache=False)]
            if len(rows) >= self._run.starting_step or time.monotonic() > deadline:
                return set(rows)
            time.sleep(0.5)


def open_run(folder: Path, options: SinkOptions, identity: RunIdentity, *, config: dict[str, Scalar],
             server: str) -> OpenRun:  # fmt: skip
    """Open or resume a run.

    Args:
        folder: the store's folder, in whose ``wandb/`` the run's folder is made.
        options: project, entity and timeouts.
        identity: which run.
        config: its flat configuration.
        server: the server's address, or ``OFFLINE``.

    Raises:
        Exception: whatever W&B's client raises.
    """
    run = wandb.init(
        project=options.project,
        entity=options.entity,
        id=identity.id,
        name=identity.name,
        group=identity.group,
        dir=str(folder),
        config=config,
        allow_val_change=True,
        resume="allow",
        reinit="create_new",
        mode="offline" if server == OFFLINE else "online",
        settings=_settings(options),
    )
    run.define_metric("*", step_metric=STEP)
    for axis in (STEP, STEP_PLUS_ONE, TOKENS):
        run.define_metric(axis)
    for name in (KEY, ROW):
        run.define_metric(name, hidden=True)
    return OpenRun(run, server)


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
