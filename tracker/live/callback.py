"""``tracker.TrackerCallback``: monitor a training by ``transformers.Trainer``."""

import functools
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tracker.errors import INTERRUPTIONS, redact
from tracker.live.monitor import TrainingMonitor, start_monitor
from tracker.live.options import WatchOptions, with_fields
from tracker.live.run_record import Account

logger = logging.getLogger("tracker.live")


def _harmless(event: Callable[..., None]) -> Callable[..., None]:
    """Whatever fails in an event is reported, ends monitoring, and training goes on."""

    @functools.wraps(event)
    def reported(self: "TrackerCallback", *args: Any, **kwargs: Any) -> None:
        try:
            event(self, *args, **kwargs)
        except INTERRUPTIONS:
            raise
        except BaseException as error:
            message = redact(f"this training is not monitored: {type(error).__name__}: {error}")
            logger.error(message)
            self._account = self.account
            self._account.sentences.append(message)
            self.monitor = None

    return reported


class TrackerCallback(TrainerCallback):
    """Measure a model during ``Trainer.train``, without changing what is trained.

    ``Trainer(..., callbacks=[tracker.TrackerCallback(tokenizer=tokenizer, store="runs/mine")])``

    Only the main process measures. Training that goes on from a checkpoint appends to the run's records.

    Args:
        tokens, store, options, fields: as for ``tracker.watch``. The run's name, its seed and its length are
            the Trainer's where no others are given.
        tokenizer: None: the Trainer's own ``processing_class`` reads the default probe.

    Raises:
        RequestError: an unknown field or a value that is not allowed. Once training has begun nothing is
            raised: what cannot be monitored (no probe, no transformers model) is in the log and the account.
    """

    def __init__(
        self,
        tokens: Any = None,
        *,
        tokenizer: Any = None,
        store: str | os.PathLike[str] = "tracker-store",
        options: WatchOptions | None = None,
        **fields: Any,
    ) -> None:
        self._tokens, self._tokenizer, self._store = tokens, tokenizer, store
        self._options = with_fields(options, fields)
        self.monitor: TrainingMonitor | None = None
        """What measures, from the beginning of training on; None where it cannot."""
        self._account = Account()

    @property
    def account(self) -> Account:
        """How many measurements there were, and what they cost."""
        return self.monitor.account if self.monitor is not None else self._account

    @_harmless
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Encode the probe and measure the model as it is before the first step."""
        if not state.is_world_process_zero:
            return
        name = args.run_name or Path(args.output_dir or "run").resolve().name
        options = replace(self._options.named(name, args.seed), total_steps=state.max_steps)
        tokenizer = self._tokenizer if self._tokenizer is not None else kwargs.get("processing_class")
        self.monitor = start_monitor(
            kwargs["model"], self._tokens, tokenizer=tokenizer, store=self._store, options=options
        )
        self.monitor(state.global_step, tokens_seen=_tokens_seen(state))

    @_harmless
    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure where the step is due."""
        if self.monitor is not None:
            self.monitor(state.global_step, tokens_seen=_tokens_seen(state))

    @_harmless
    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Check loss and gradient; the Trainer logs a loss that is not finite as 0 by default."""
        if self.monitor is None or not logs:
            return
        for name, what in (("loss", "loss"), ("grad_norm", "gradient norm")):
            if name in logs:
                self.monitor.note(state.global_step, what, logs[name])

    @_harmless
    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure the last step where it is not measured yet, and write the account to the log."""
        if self.monitor is not None:
            self.monitor.finish(state.global_step, tokens_seen=_tokens_seen(state))


def _tokens_seen(state: TrainerState) -> int | None:
    """None where the Trainer does not count them."""
    return int(state.num_input_tokens_seen) or None
