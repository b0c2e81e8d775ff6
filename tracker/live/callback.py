"""``transformers.Trainer`` calls, the watch measures."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tracker.analysis.instability import Instability
from tracker.live.terms import Account, Terms
from tracker.live.watch import TrainingWatch
from tracker.measurement.given_model import request_for
from tracker.models.unwrap import unwrap
from tracker.wandb_sink import SinkOptions


class TrackerCallback(TrainerCallback):
    """Measures a model during ``Trainer.train``, without changing what is trained.

    ``Trainer(..., callbacks=[tracker.TrackerCallback(tokenizer=tokenizer, store="runs/mine")])``

    Only the main process measures. Training that goes on from a checkpoint appends to the run's records.

    Args:
        tokens, tokenizer, number, n: the probe, as for ``tracker.track``; without either, the Trainer's own
            ``processing_class`` reads the default probe.
        store, suite, every, early, share, sink, on_alert, options: as for ``tracker.watch``.
        name: what the run is called; None: the Trainer's ``run_name``, or the name of its ``output_dir``.
        seed: None: the Trainer's.

    Raises:
        RequestError: a value that is not allowed; at the beginning of training, where there is no probe.
    """

    def __init__(
        self,
        tokens: Any = None,
        *,
        tokenizer: Any = None,
        store: str | os.PathLike[str] = "tracker-store",
        name: str | None = None,
        suite: str = "live",
        seed: int | None = None,
        every: int = 100,
        early: bool = True,
        share: float | None = 0.05,
        number: int = 16,
        n: int = 96,
        sink: SinkOptions | None = None,
        on_alert: Callable[[Instability], None] | None = None,
        **options: Any,
    ) -> None:
        self._terms = Terms(Path(store), name or "run", suite, seed or 0, every, early, share, sink)
        self._name, self._seed = name, seed
        self._tokens, self._tokenizer = tokens, tokenizer
        self._probe = {"number": number, "n": n, **options}
        self._on_alert = on_alert
        self.watch: TrainingWatch | None = None
        """What measures, from the beginning of training on."""

    @property
    def account(self) -> Account:
        """How many measurements there were, and what they cost."""
        return self.watch.account if self.watch is not None else Account()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Encodes the probe and measures the model as it is before the first step."""
        if not state.is_world_process_zero:
            return
        model = unwrap(kwargs["model"])
        tokenizer = self._tokenizer if self._tokenizer is not None else kwargs.get("processing_class")
        request = request_for(model, self._tokens, tokenizer=tokenizer, **self._probe)
        name = self._name or args.run_name or Path(args.output_dir or "run").resolve().name
        terms = replace(self._terms, name=name, seed=args.seed if self._seed is None else self._seed)
        self.watch = TrainingWatch(
            model, terms, request, total_steps=state.max_steps, on_alert=self._on_alert
        )
        self.watch(state.global_step, tokens_seen=_tokens_seen(state))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measures where the step is due."""
        if self.watch is not None:
            self.watch(state.global_step, tokens_seen=_tokens_seen(state))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Looks at loss and gradient; the Trainer logs a loss that is not finite as 0, unless told not to."""
        if self.watch is None or not logs:
            return
        for name, what in (("loss", "loss"), ("grad_norm", "gradient norm")):
            if name in logs:
                self.watch.note(state.global_step, what, logs[name])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measures the last step where it is not measured yet, and gives the account to the log."""
        if self.watch is not None:
            self.watch.finish(state.global_step, tokens_seen=_tokens_seen(state))


def _tokens_seen(state: TrainerState) -> int | None:
    """None where the Trainer does not count them."""
    return int(state.num_input_tokens_seen) or None
