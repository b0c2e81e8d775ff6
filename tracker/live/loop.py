"""A training loop of one's own, watched."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tracker.analysis.instability import Instability
from tracker.live.terms import Terms
from tracker.live.watch import TrainingWatch
from tracker.measurement.given_model import request_for
from tracker.models.unwrap import unwrap
from tracker.wandb_sink import SinkOptions


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
        model: the transformers model that is trained, bare, compiled, or wrapped for several devices.
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
        RequestError: a value that is not allowed, no transformers model, or no probe.

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
    model = unwrap(model)
    request = request_for(model, tokens, tokenizer=tokenizer, number=number, n=n, **options)
    return TrainingWatch(model, terms, request, total_steps=total_steps, on_alert=on_alert)
