"""Measures one model while it is trained: where that is due and time allows, and at no harm to training."""

import operator
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from tracker.analysis.instability import Instability, Observation, instabilities
from tracker.errors import INTERRUPTIONS, RequestError, TrackerError
from tracker.live.budget import Budget, Schedule
from tracker.live.guards import is_main_process, not_finite, refuse_spread_weights
from tracker.live.observations import observation
from tracker.live.options import WatchOptions
from tracker.live.run_record import Account, RunRecord
from tracker.measurement.given_model import Request, request_for
from tracker.measurement.measure import measure
from tracker.models import model_facts
from tracker.models.preserve_state import preserve_state
from tracker.models.unwrap import unwrap
from tracker.records import Measurement, Unit


def start_monitor(
    model: Any, tokens: Any, *, tokenizer: Any, store: str | os.PathLike[str], options: WatchOptions
) -> "TrainingMonitor":
    """Encode the probe for a model and return what monitors its training.

    Args:
        model, tokens, tokenizer, store: as for ``tracker.watch``.
        options: with a name and a seed.

    Raises:
        RequestError: no transformers model, no probe, or a convention that is not allowed.
        CheckpointError: the model has too few positions.
    """
    model, probe = unwrap(model), options.probe
    request = request_for(
        model, tokens, tokenizer=tokenizer, number=probe.number, n=probe.n,
        target_error=probe.target_error, **probe.conventions,
    )  # fmt: skip
    return TrainingMonitor(model, request, Path(store), options)


class TrainingMonitor:
    """Call it after every optimizer step, and ``finish`` at the end; or use it as a context manager.

    It measures on the probe it was made with, stores what it finds, and raises alerts. Whatever goes wrong
    in measuring is recorded as a failed checkpoint and never reaches the training.
    """

    def __init__(self, model: Any, request: Request, store: Path, options: WatchOptions) -> None:
        self.model, self.options = model, options
        self.history: list[Observation] = []
        self._request = request
        self._schedule, self._budget = Schedule(options.every, options.early), Budget(options.share)
        self._record = RunRecord(store, options, request)
        self._last: int | None = None
        self._refused = False
        """Whether the last step that was due was left out."""
        self._begun = False
        self._alerted: set[str] = set()
        self._idle = not is_main_process()

    @property
    def account(self) -> Account:
        """How many measurements there were, what they cost, and every message."""
        return self._record.account

    def __enter__(self) -> "TrainingMonitor":
        """The monitor itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Finishes, also where training was broken off."""
        self.finish()

    def __call__(self, step: int, *, loss: float | None = None, tokens_seen: int | None = None) -> bool:
        """Report that a step is finished; measures it where it is due and time allows.

        Args:
            step: finished optimizer steps, 0 before the first.
            loss: of the training, where it is known; one that is not finite raises an alert. A tensor of one
                element does as well.
            tokens_seen: by the training so far, where it is known.

        Returns:
            Whether the step was measured.

        Raises:
            RequestError: the step is no whole number.
        """
        if self._idle:
            return False
        step = _whole(step)
        self._begin(step)
        if loss is not None:
            self.note(step, "loss", loss)
        if not self._schedule.due(step) or step == self._last:
            return False
        return self._try(step, tokens_seen, early=self._schedule.is_early(step))

    def note(self, step: int, what: str, value: float) -> None:
        """Raise an alert, once, where a number of the training's own is not finite.

        Args:
            step: finished optimizer steps.
            what: ``loss`` or ``gradient norm``.
            value: the number.
        """
        if self._idle or what in self._alerted:
            return
        with self._harmless(f"the training's {what} cannot be read"):
            number = float(value.detach() if isinstance(value, Tensor) else value)
            if not np.isfinite(number):
                self._alerted.add(what)
                sentence = f"the training's {what} is {number} at step {step}"
                self._record.alert([Instability(f"{what} not finite", step, sentence)])

    def finish(self, step: int | None = None, *, tokens_seen: int | None = None) -> Account:
        """Measure the last step where it is not measured yet, send the rest to W&B, and return the account.

        Args:
            step: the last one; None: it is not measured beyond what was due.
            tokens_seen: as for a call.
        """
        if self._idle or not self._begun:
            return self.account
        if step is not None and (_whole(step) != self._last or self._refused):
            self._record.unskip(_whole(step))
            self._try(_whole(step), tokens_seen, early=False, always=True)
        self._idle = True
        with self._harmless("monitoring cannot be finished"):
            self._record.finish(self._budget)
        return self.account

    @contextmanager
    def _harmless(self, what: str) -> Iterator[None]:
        """Whatever fails in the block is reported, and training goes on."""
        try:
            yield
        except INTERRUPTIONS:
            raise
        except BaseException as error:
            self._record.report(f"{self._record.label}: {what}: {type(error).__name__}: {error}")

    def _begin(self, step: int) -> None:
        """At the first call: what an earlier start left beyond this step makes room."""
        if self._begun:
            return
        self._begun = True
        self._budget = Budget(self.options.share, self.options.total_steps, step)
        with self._harmless("the records of an earlier start cannot be read"):
            self.history = self._record.begin(step, model_facts(self.model).n_layers)
        if self.history and self.history[-1].step == step:
            self._last = step  # the weights that training goes on from are measured already

    def _try(self, step: int, tokens_seen: int | None, *, early: bool, always: bool = False) -> bool:
        self._last, refusal = step, None if always else "its cost cannot be estimated"
        with self._harmless(f"the budget of step {step} cannot be computed"):
            refusal = None if always else self._budget.refusal(step, early=early)
        self._refused = refusal is not None
        if refusal is not None:
            self._record.skip(step, refusal)
            return False
        found = None
        with self._budget.spending(), self._harmless(f"step {step} cannot be recorded"):
            unit = self._record.unit(step, tokens_seen)
            with preserve_state(self.model):
                found, alerts = self._measured(unit)
                alerts += self._observed(found) if found is not None else []
            self._record.alert(alerts)
            if found is not None:
                self._record.show(unit, found)
        with self._harmless("the journal cannot be written"):
            self._record.settle(self._budget)
        return found is not None

    def _measured(self, unit: Unit) -> tuple[Measurement | None, list[Instability]]:
        """Measure and record; whatever goes wrong is recorded instead."""
        try:
            refuse_spread_weights(self.model)
            found = measure(unit, self.model.eval(), self._request.tokens)
        except INTERRUPTIONS:
            raise
        except BaseException as error:
            kind = "" if isinstance(error, TrackerError) else f"{type(error).__name__}: "
            self._record.hole(unit, f"{unit.checkpoint.label}: {kind}{error}")
            return None, self._broken_weights(unit.checkpoint.step)
        self._record.keep(unit, found)
        return found, []

    def _broken_weights(self, step: int) -> list[Instability]:
        """An alert, once, where that is why a step cannot be measured."""
        broken = None if "weights" in self._alerted else not_finite(self.model)
        if broken is None:
            return []
        self._alerted.add("weights")
        sentence = f"weights are NaN or infinite at step {step}, first in {broken}"
        return [Instability("weights not finite", step, sentence)]

    def _observed(self, found: Measurement) -> list[Instability]:
        self.history.append(observation(found.sequences, found.heads, found.checkpoint))
        return instabilities(self.history)


def _whole(step: Any) -> int:
    try:
        return operator.index(step)
    except TypeError:
        raise RequestError(f"step={step!r}: not a whole number; give the finished optimizer steps") from None
