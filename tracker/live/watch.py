"""Measures one model while it is trained: where that is due and time allows, and at no harm to training."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tracker.analysis.instability import Instability, Observation, instabilities
from tracker.errors import StoreError, TrackerError
from tracker.given_model import Request, request_for
from tracker.journal import Journal
from tracker.live.budget import Budget, Schedule
from tracker.live.guards import is_main_process, not_finite, refuse_spread_weights
from tracker.live.observations import observation, recorded_observations
from tracker.live.superseded import set_aside
from tracker.live.terms import Account, Terms
from tracker.measure import measure
from tracker.models.untouched import untouched
from tracker.records import Checkpoint, Measurement, Unit
from tracker.sinks import PublisherHandle, SinkOptions, start_publisher
from tracker.sinks.active_run import alert_active_run, log_to_active_run
from tracker.store import Store, conform

logger = logging.getLogger("tracker.live")


class TrainingWatch:
    """Call it after every optimizer step, and ``finish`` at the end; or use it as a context manager.

    It measures on the probe it was made with, stores what it finds, and raises alerts. Whatever goes wrong
    in measuring is recorded as a failed checkpoint and never reaches the training.
    """

    def __init__(
        self,
        model: Any,
        terms: Terms,
        request: Request | None,
        *,
        total_steps: int | None = None,
        on_alert: Callable[[Instability], None] | None = None,
    ) -> None:
        self.model, self.terms = model, terms
        self.account = Account()
        self.history: list[Observation] = []
        self._request, self._on_alert = request, on_alert
        self._schedule = Schedule(terms.every, terms.early)
        self._budget = Budget(terms.share, total_steps)
        self._store = Store(Path(terms.store))
        self._publisher: PublisherHandle | None = None
        self._unwritten: list[tuple[Unit, Measurement]] = []
        self._last: int | None = None
        self._begun = False
        self._told: set[str] = set()
        self._idle = request is None or not is_main_process()
        if request is not None:
            self._journal = Journal(terms.suite, terms.name, terms.seed, request.probe.label,
                                    request.conventions.label)  # fmt: skip

    def __enter__(self) -> "TrainingWatch":
        """The watch itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Finishes, also where training was broken off."""
        self.finish()

    def __call__(self, step: int, *, loss: float | None = None, tokens_seen: int | None = None) -> bool:
        """Tells that a step is finished; measures it where it is due and time allows.

        Args:
            step: finished optimizer steps, 0 before the first.
            loss: of the training, where it is known; one that is not finite raises an alert.
            tokens_seen: by the training so far, where it is known.

        Returns:
            Whether the step was measured.
        """
        if self._idle:
            return False
        self._begin(step)
        if loss is not None:
            self.note(step, "loss", loss)
        if not self._schedule.due(step) or step == self._last:
            return False
        return self._try(step, tokens_seen, early=self._schedule.is_early(step))

    def note(self, step: int, what: str, value: float) -> None:
        """Raises an alert, once, where a number of the training's own is not finite.

        Args:
            step: finished optimizer steps.
            what: ``loss`` or ``gradient norm``.
            value: the number.
        """
        if not (self._idle or what in self._told or np.isfinite(value)):
            self._told.add(what)
            sentence = f"the training's {what} is {value} at step {step}"
            self._alert([Instability(f"{what} not finite", step, sentence)])

    def finish(self, step: int | None = None, *, tokens_seen: int | None = None) -> Account:
        """Measures the last step where it is not measured yet, sends the rest to W&B, and gives the account.

        Args:
            step: the last one; None: it is not measured beyond what was due.
            tokens_seen: as for a call.
        """
        if self._idle or not self._begun:
            return self.account
        if step is not None and step != self._last:
            self._try(step, tokens_seen, early=False)
        self._idle = True
        self._settle_account()
        self._write_rest()
        self._save_journal()
        if self._publisher is not None:
            self.account.sentences += self._publisher.finish()
        for sentence in (f"{self._label}: {self.account}", *self.account.sentences):
            logger.info(sentence)
        return self.account

    @property
    def _label(self) -> str:
        return f"{self.terms.name} seed {self.terms.seed}"

    def _begin(self, step: int) -> None:
        """At the first call: what an earlier start left beyond this step makes room."""
        if self._begun:
            return
        self._begun = True
        self._budget = Budget(self.terms.share, self._budget.total_steps, step)
        unit = self._unit(step, None)
        before = step if step > 1 else -1
        try:
            self._store.checkpoints.mkdir(parents=True, exist_ok=True)
            aside = set_aside(self._store, unit, before)
        except OSError as error:
            self._tell(f"{self._label}: {self._store.folder} cannot be written: {error}")
            return
        if aside is not None:
            self._tell(f"{self._label}: earlier records beyond step {max(before, 0)} are in {aside} now")
        self._journal = self._journal.resumed(self._store.folder, before)
        self.history = recorded_observations(
            self._store.place(unit).parent, unit.probe.label, unit.conventions.label
        )
        if self.history and self.history[-1].step == step:
            self._last = step  # the weights that training goes on from are measured already
        if self.terms.sink is not None:
            self._publisher = start_publisher(self._store.folder, self.terms.sink)

    def _unit(self, step: int, tokens_seen: int | None) -> Unit:
        assert self._request is not None
        terms, request = self.terms, self._request
        identity = f"live/{terms.suite}/{terms.name}/{terms.seed}"
        checkpoint = Checkpoint(
            terms.suite,
            terms.name,
            terms.seed,
            step,
            "folder",
            identity,
            f"step{step}",
            tokens_seen,
            identity,
        )
        return Unit(checkpoint, request.probe, request.conventions, request.dtype)

    def _try(self, step: int, tokens_seen: int | None, *, early: bool) -> bool:
        refusal = self._budget.refusal(step, early=early)
        self._last = step
        if refusal is not None:
            self.account.skipped += 1
            self._journal.skipped.append({"step": step, "reason": refusal})
            logger.info("%s: step %d is not measured: %s", self._label, step, refusal)
            return False
        with self._budget.spending(), untouched(self.model):
            return self._measure(self._unit(step, tokens_seen))

    def _measure(self, unit: Unit) -> bool:
        """Measures and records; whatever goes wrong is recorded instead."""
        assert self._request is not None
        try:
            refuse_spread_weights(self.model)
            found = measure(unit, self.model.eval(), self._request.tokens)
        except Exception as error:
            self._failed(unit, error)
            return False
        self.account.measured += 1
        self._unwritten.append((unit, found))
        self._write_rest()
        self._observe(found)
        self._to_active_run(found)
        self._settle_account()
        self._save_journal()
        return True

    def _failed(self, unit: Unit, error: Exception) -> None:
        self.account.failed += 1
        step = unit.checkpoint.step
        kind = "" if isinstance(error, TrackerError) else f"{type(error).__name__}: "
        reason = f"{unit.checkpoint.label}: {kind}{error}"
        self._tell(f"not measured: {reason}")
        try:
            self._store.write_hole(unit, "failed", reason)
        except StoreError as refused:
            self._tell(str(refused))
        broken = None if "weights" in self._told else not_finite(self.model)
        if broken is not None:
            self._told.add("weights")
            sentence = f"weights are NaN or infinite at step {step}, first in {broken}"
            self._alert([Instability("weights not finite", step, sentence)])
        self._settle_account()
        self._save_journal()

    def _write_rest(self) -> None:
        """Records what is measured; what the disk refuses now is kept and tried again the next time."""
        while self._unwritten:
            try:
                self._store.write(*self._unwritten[0], replace=True)
            except StoreError as error:
                self._tell(f"{error}; it is kept in memory and tried again ({len(self._unwritten)} waiting)")
                return
            self._unwritten.pop(0)

    def _observe(self, found: Measurement) -> None:
        self.history.append(observation(found.sequences, found.heads, found.checkpoint))
        self._alert(instabilities(self.history))

    def _alert(self, found: list[Instability]) -> None:
        for each in found:
            self.account.alerts += 1
            self.account.sentences.append(f"{self._label}: {each.sentence}")
            self._journal.alerts.append(
                {"condition": each.condition, "steps": [each.step], "level": each.level,
                 "sentence": f"{self._label}: {each.sentence}"}
            )  # fmt: skip
            level = logging.WARNING if each.level == "WARN" else logging.INFO
            logger.log(level, "%s: %s: %s", self._label, each.condition, each.sentence)
            try:
                alert_active_run(f"{each.condition}: {self._label}", each.sentence, each.level)
                if self._on_alert is not None:
                    self._on_alert(each)
            except Exception as error:  # of W&B or the user's own: no reason to stop training
                self._tell(f"{self._label}: an alert could not be passed on: {error}")

    def _to_active_run(self, found: Measurement) -> None:
        try:
            own = self._request.conventions.metrics if self._request else ()
            log_to_active_run(conform("checkpoint", found.checkpoint, own).row(0, named=True))
        except Exception as error:
            self._tell(f"{self._label}: the training's W&B run did not take the row: {error}")

    def _settle_account(self) -> None:
        account, budget = self.account, self._budget
        account.measuring_seconds, account.training_seconds = budget.spent, budget.trained
        told = {name: value for name, value in vars(account).items() if name != "sentences"}
        self._journal.account = told | {"share": account.share, "share_allowed": self.terms.share}

    def _save_journal(self) -> None:
        try:
            self._journal.save(self._store.folder)
        except (OSError, ValueError) as error:
            self._tell(f"{self._label}: its journal cannot be written: {error}")

    def _tell(self, sentence: str) -> None:
        self.account.sentences.append(sentence)
        logger.warning(sentence)


def watch(
    model: Any,
    tokens: Any = None,
    *,
    tokenizer: Any = None,
    store: str | os.PathLike[str] = "tracker-store",
    name: str = "run",
    suite: str = "live",
    seed: int = 0,
    every: int = 100,
    early: bool = True,
    share: float | None = 0.05,
    total_steps: int | None = None,
    number: int = 16,
    n: int = 96,
    sink: SinkOptions | None = None,
    on_alert: Callable[[Instability], None] | None = None,
    **options: Any,
) -> TrainingWatch:
    """Watches a model while a loop of your own trains it.

    Weights, gradients, random states, training mode, attention implementation and threads are after every
    measurement what they were before. Where the training has a W&B run open, its numbers go there too, as
    ``tracker/<metric>``.

    Args:
        model: the transformers model that is trained.
        tokens, tokenizer, number, n: the probe, as for ``tracker.track``.
        store: folder of the store, the same as any sweep's.
        name, suite, seed: what the run is called in it. A run of the same name that starts again puts the
            records of the earlier one aside (``DIR/superseded``).
        every: steps between measurements.
        early: whether steps 0, 1, 2, 4 ... below ``every`` are measured too.
        share: most of the training's time that measuring may take; what would take more is left out and
            told. None: everything that is due is measured.
        total_steps: how long the training will be, where it is known: early measurements may then be taken
            in advance of the time that pays for them.
        sink: where W&B is to hold a run of tracker's own, as a sweep's; None: no such run.
        on_alert: called with each alert.
        options: any field of ``Conventions``.

    Returns:
        A function of the step; call it after every optimizer step and ``finish`` it at the end.

    Raises:
        RequestError: a value that is not allowed, or no probe.

    Example:
        >>> import tempfile, torch, tracker
        >>> from transformers import GPTNeoXConfig, GPTNeoXForCausalLM
        >>> shape = dict(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
        >>> model = GPTNeoXForCausalLM(GPTNeoXConfig(intermediate_size=64, **shape))
        >>> optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        >>> ids = torch.arange(4 * 96).reshape(4, 96) % 64
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with tracker.watch(model, ids, store=folder, every=2, share=None) as watch:
        ...         for step in range(1, 5):
        ...             loss = model(ids, labels=ids).loss
        ...             loss.backward()
        ...             optimizer.step()
        ...             optimizer.zero_grad()
        ...             measured = watch(step, loss=loss.item())
        ...     1 in tracker.open_store(folder).checkpoints()["step"]
        True
    """
    terms = Terms(Path(store), name, suite, seed, every, early, share, sink)
    request = request_for(model, tokens, tokenizer=tokenizer, number=number, n=n, **options)
    return TrainingWatch(model, terms, request, total_steps=total_steps, on_alert=on_alert)
