"""What a watched run leaves: records in the store, a journal with its alerts, an account, and rows in W&B.

Nothing that breaks in here reaches the training: it is told in the account and in the log.
"""

import logging
from collections.abc import Callable
from pathlib import Path

from tracker.analysis.instability import Instability, Observation
from tracker.errors import StoreError
from tracker.live.budget import Budget
from tracker.live.observations import recorded_observations
from tracker.live.superseded import set_aside
from tracker.live.terms import Account, Terms
from tracker.measurement.given_model import Request
from tracker.records import Checkpoint, Measurement, Unit
from tracker.store import Store, conform
from tracker.store.journal import Journal
from tracker.wandb_sink import PublisherHandle, start_publisher
from tracker.wandb_sink.active_run import alert_active_run, log_to_active_run

logger = logging.getLogger("tracker.live")


class RunRecord:
    """Keeps what is measured and told of one run."""

    def __init__(
        self, terms: Terms, request: Request, on_alert: Callable[[Instability], None] | None
    ) -> None:
        self.account = Account()
        self.label = f"{terms.name} seed {terms.seed}"
        self._terms, self._request, self._on_alert = terms, request, on_alert
        self._store = Store(Path(terms.store))
        self._journal = Journal(terms.suite, terms.name, terms.seed, request.probe.label,
                                request.conventions.label)  # fmt: skip
        self._publisher: PublisherHandle | None = None
        self._unwritten: list[tuple[Unit, Measurement]] = []

    def begin(self, step: int, layers: int) -> list[Observation]:
        """Makes room for a run that starts or goes on at a step.

        Args:
            step: of the first call.
            layers: of the model; records of another number of layers are another run's.

        Returns:
            What is recorded of the run up to there, measured in the same way.
        """
        unit, before = self.unit(step, None), step if step > 1 else -1
        try:
            self._store.checkpoints.mkdir(parents=True, exist_ok=True)
            history = self._recorded(unit, before)
            if any(len(each.layer_entropy) != layers for each in history):
                before, history = -1, []
            aside = set_aside(self._store, unit, before, self._journal.path(self._store.folder))
        except OSError as error:
            self.tell(f"{self.label}: {self._store.folder} cannot be written: {error}")
            return []
        if aside is not None:
            self.tell(f"{self.label}: earlier records beyond step {max(before, 0)} are in {aside} now")
        self._journal = self._journal.resumed(self._store.folder, before)
        if self._terms.sink is not None:
            self._publisher = start_publisher(self._store.folder, self._terms.sink)
        return history

    def _recorded(self, unit: Unit, before: int) -> list[Observation]:
        labels = unit.probe.label, unit.conventions.label
        found = recorded_observations(self._store.place(unit).parent, *labels)
        return [each for each in found if each.step <= before]

    def unit(self, step: int, tokens_seen: int | None) -> Unit:
        """The run at one step, as the store knows it."""
        terms, request = self._terms, self._request
        identity = f"live/{terms.suite}/{terms.name}/{terms.seed}"
        checkpoint = Checkpoint(terms.suite, terms.name, terms.seed, step, "folder", identity, f"step{step}",
                                tokens_seen, identity)  # fmt: skip
        return Unit(checkpoint, request.probe, request.conventions, request.dtype)

    def keep(self, unit: Unit, found: Measurement) -> None:
        """Records a measurement."""
        self.account.measured += 1
        self._unwritten.append((unit, found))
        self._write_rest()

    def show(self, unit: Unit, found: Measurement) -> None:
        """Adds a measurement to the W&B run that the training has open."""
        try:
            log_to_active_run(
                conform("checkpoint", found.checkpoint, unit.conventions.metrics).row(0, named=True)
            )
        except Exception as error:
            self.tell(f"{self.label}: the training's W&B run did not take the row: {error}")

    def hole(self, unit: Unit, reason: str) -> None:
        """Records that a step could not be measured, and why."""
        self.account.failed += 1
        self.tell(f"not measured: {reason}")
        try:
            self._store.write_hole(unit, "failed", reason)
        except Exception as error:
            self.tell(f"{self.label}: that is not in the store: {error}")

    def skip(self, step: int, reason: str) -> None:
        """Tells that a step was left out."""
        self.account.skipped += 1
        self._journal.skipped.append({"step": step, "reason": reason})
        logger.info("%s: step %d is not measured: %s", self.label, step, reason)

    def alert(self, found: list[Instability]) -> None:
        """Passes alerts on: to the account, the journal, the log, W&B and the user."""
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
                if self._on_alert is not None:
                    self._on_alert(each)
            except Exception as error:  # of W&B or the user's own: no reason to stop training
                self.tell(f"{self.label}: an alert could not be passed on: {error}")

    def settle(self, budget: Budget) -> None:
        """Brings account and journal up to date."""
        account = self.account
        account.measuring_seconds, account.training_seconds = budget.spent, budget.trained
        told = {name: value for name, value in vars(account).items() if name != "sentences"}
        self._journal.account = told | {"share": account.share, "share_allowed": self._terms.share}
        try:
            self._journal.save(self._store.folder)
        except (OSError, ValueError) as error:
            self.tell(f"{self.label}: its journal cannot be written: {error}")

    def finish(self, budget: Budget) -> None:
        """Writes what is left, ends the publisher, and gives the account to the log."""
        self._write_rest()
        self.settle(budget)
        if self._publisher is not None:
            self.account.sentences += self._publisher.finish()
        for sentence in (f"{self.label}: {self.account}", *self.account.sentences):
            logger.info(sentence)

    def _write_rest(self) -> None:
        """Records what is measured; what the disk refuses now is kept and tried again the next time."""
        while self._unwritten:
            try:
                self._store.write(*self._unwritten[0], replace=True)
            except StoreError as error:
                self.tell(f"{error}; it is kept in memory and tried again ({len(self._unwritten)} waiting)")
                return
            self._unwritten.pop(0)

    def tell(self, sentence: str) -> None:
        """Into the account and, as a warning, into the log."""
        self.account.sentences.append(sentence)
        logger.warning(sentence)
