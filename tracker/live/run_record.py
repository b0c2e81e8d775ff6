"""What a monitored run leaves: records in the store, a journal with its alerts, an account, and rows in W&B.

Nothing that fails in here reaches the training: it is reported in the account and in the log.
"""

import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tracker.analysis.instability import Instability, Observation
from tracker.errors import INTERRUPTIONS, StoreError, counted, printable
from tracker.live.budget import Budget
from tracker.live.observations import recorded_observations
from tracker.live.options import WatchOptions
from tracker.live.superseded import set_aside
from tracker.measurement.given_model import Request
from tracker.records import Checkpoint, Measurement, Unit
from tracker.store import Store, conform
from tracker.store.journal import Journal
from tracker.wandb_sink import PublisherHandle, start_publisher
from tracker.wandb_sink.active_run import alert_active_run, log_to_active_run

logger = logging.getLogger("tracker.live")


@dataclass
class Account:
    """What monitoring has come to: how many measurements were taken, and what they cost."""

    measured: int = 0
    skipped: int = 0
    failed: int = 0
    measuring_seconds: float = 0.0
    training_seconds: float = 0.0
    alerts: int = 0
    enough: float | None = None
    """The share that would have measured every step that was due; None where no share would do."""
    sentences: list[str] = field(default_factory=list)
    """Alerts, failures, and what the W&B publisher reported at the end."""

    @property
    def share(self) -> float:
        """Measuring as a share of the time that training itself took."""
        return self.measuring_seconds / self.training_seconds if self.training_seconds else 0.0

    def __str__(self) -> str:
        """In one line, for people."""
        due = self.measured + self.skipped + self.failed
        failed = f", {self.failed} failed" if self.failed else ""
        enough = f"{self.enough:g}" if self.enough is not None else "None"
        advice = f"; share={enough} measures all" if self.skipped else ""
        return (
            f"{self.measured} of {counted(due, 'step')} measured{failed}{advice}; "
            f"{self.measuring_seconds:.2f} s beside {self.training_seconds:.2f} s of training "
            f"({self.share:.1%}); alerts: {self.alerts}"
        )


class RunRecord:
    """Keeps what is measured and reported of one run."""

    def __init__(self, store: Path, options: WatchOptions, request: Request) -> None:
        self.account = Account()
        self._name, self._seed = options.name or "run", options.seed or 0
        self.label = f"{self._name} seed {self._seed}"
        self._options, self._request, self._store = options, request, Store(store)
        self._journal = Journal(options.suite, self._name, self._seed, request.probe.label,
                                request.conventions.label)  # fmt: skip
        self._publisher: PublisherHandle | None = None
        self._unwritten: list[tuple[Unit, Measurement]] = []

    def begin(self, step: int, layers: int) -> list[Observation]:
        """Make room for a run that starts or goes on at a step.

        Args:
            step: of the first call.
            layers: of the model; records of another number of layers are another run's.

        Returns:
            What is recorded of the run up to there, measured in the same way.
        """
        unit, before = self.unit(step, None), step if step > 1 else -1
        try:
            self._store.checkpoints.mkdir(parents=True, exist_ok=True)
            # Where it goes meanwhile, as with a mount, nothing is made anew at the old place.
            self._store = Store(self._store.folder, self._store.folder.stat().st_ino)
            history = self._recorded(unit, before)
            if any(len(each.layer_entropy) != layers for each in history):
                before, history = -1, []
            aside = set_aside(self._store, unit, before, self._journal.path(self._store.folder))
        except OSError as error:
            self.report(f"{self.label}: {self._store.folder} cannot be written: {error}")
            return []
        if aside is not None:
            self.report(f"{self.label}: earlier records beyond step {max(before, 0)} are in {aside} now")
        self._journal = self._journal.resumed(self._store.folder, before)
        if self._options.sink is not None:
            self._publisher = start_publisher(self._store.folder, self._options.sink)
        return history

    def _recorded(self, unit: Unit, before: int) -> list[Observation]:
        labels = unit.probe.label, unit.conventions.label
        found = recorded_observations(self._store.place(unit).parent, *labels)
        return [each for each in found if each.step <= before]

    def unit(self, step: int, tokens_seen: int | None) -> Unit:
        """Return the run at one step, as the store knows it."""
        suite, request = self._options.suite, self._request
        identity = f"live/{suite}/{self._name}/{self._seed}"
        checkpoint = Checkpoint(suite, self._name, self._seed, step, "folder", identity, f"step{step}",
                                tokens_seen, identity)  # fmt: skip
        return Unit(checkpoint, request.probe, request.conventions, request.dtype)

    def keep(self, unit: Unit, found: Measurement) -> None:
        """Record a measurement."""
        self.account.measured += 1
        self._unwritten.append((unit, found))
        self._write_rest()

    def show(self, unit: Unit, found: Measurement) -> None:
        """Add a measurement to the W&B run that the training has open."""
        try:
            log_to_active_run(
                conform("checkpoint", found.checkpoint, unit.conventions.metrics).row(0, named=True)
            )
        except INTERRUPTIONS:
            raise
        except BaseException as error:
            self.report(f"{self.label}: the training's W&B run did not accept the row: {error}")

    def hole(self, unit: Unit, reason: str) -> None:
        """Record that a step could not be measured, and why."""
        self.account.failed += 1
        self.report(f"not measured: {reason}")
        try:
            self._store.write_hole(unit, "failed", reason)
        except INTERRUPTIONS:
            raise
        except BaseException as error:
            self.report(f"{self.label}: that could not be recorded: {error}")

    def skip(self, step: int, reason: str) -> None:
        """Record that a step was left out, and why."""
        self.account.skipped += 1
        self._journal.skipped.append({"step": step, "reason": reason})
        logger.info("%s: step %d is not measured: %s", self.label, step, reason)

    def unskip(self, step: int) -> None:
        """Take back that a step was left out: it is measured after all."""
        left = [each for each in self._journal.skipped if each["step"] != step]
        self.account.skipped -= len(self._journal.skipped) - len(left)
        self._journal.skipped[:] = left

    def alert(self, found: list[Instability]) -> None:
        """Pass alerts on: to the account, the journal, the log, W&B and the user."""
        for each in found:
            sentence = f"{self.label}: {each.sentence}"
            self.account.alerts += 1
            self.account.sentences.append(sentence)
            self._journal.alerts.append(
                {"condition": each.condition, "steps": [each.step], "level": each.level, "sentence": sentence}
            )
            level = logging.WARNING if each.level == "WARN" else logging.INFO
            logger.log(level, "%s: %s: %s", self.label, each.condition, each.sentence)
            try:
                alert_active_run(f"{each.condition}: {self.label}", each.sentence, each.level)
                if self._options.on_alert is not None:
                    self._options.on_alert(each)
            except INTERRUPTIONS:
                raise
            except BaseException as error:  # of W&B or the user's own: no reason to stop training
                self.report(f"{self.label}: an alert could not be passed on: {error}")

    def settle(self, budget: Budget) -> None:
        """Bring account and journal up to date."""
        account = self.account
        account.measuring_seconds, account.training_seconds = budget.spent, budget.trained
        account.enough = budget.enough
        figures = {name: value for name, value in vars(account).items() if name != "sentences"}
        self._journal.account = figures | {"share": account.share, "share_allowed": self._options.share}
        try:
            self._journal.save(self._store.folder)
        except (OSError, ValueError) as error:
            self.report(f"{self.label}: its journal cannot be written: {error}")

    def finish(self, budget: Budget) -> None:
        """Write what is left, end the publisher, and write the account to the log."""
        self._write_rest()
        self.settle(budget)
        if self._publisher is not None:
            self.account.sentences += self._publisher.finish()
        for sentence in (f"{self.label}: {self.account}", *self.account.sentences):
            logger.info(sentence)
        if not logger.isEnabledFor(logging.INFO):
            print(printable(f"tracker: {self.label}: {self.account}"), file=sys.stderr)

    def _write_rest(self) -> None:
        """Write what is measured; what the disk refuses now is kept and tried again the next time."""
        while self._unwritten:
            try:
                self._store.write(*self._unwritten[0], replace=True)
            except StoreError as error:
                self.report(f"{error}; it is kept in memory and tried again ({len(self._unwritten)} waiting)")
                return
            self._unwritten.pop(0)

    def report(self, sentence: str) -> None:
        """Add a message to the account and, as a warning, to the log."""
        self.account.sentences.append(sentence)
        logger.warning(sentence)
