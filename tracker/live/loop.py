"""``tracker.watch``: monitor a training loop of your own."""

import os
from typing import Any

from tracker.live.monitor import TrainingMonitor, start_monitor
from tracker.live.options import WatchOptions, with_fields


def watch(
    model: Any,
    tokens: Any = None,
    *,
    tokenizer: Any = None,
    store: str | os.PathLike[str] = "tracker-store",
    options: WatchOptions | None = None,
    **fields: Any,
) -> TrainingMonitor:
    """Monitor a model while a loop of your own trains it.

    Weights, gradients, random states, training mode, attention implementation and threads are after every
    measurement what they were before. Where the training has a W&B run open, its numbers go there too, as
    ``tracker/<metric>``. A run of the same name that starts again puts the records of the earlier one aside
    (``DIR/superseded``).

    Args:
        model: the transformers model that is trained, bare, compiled, or wrapped for several devices.
        tokens: token ids, shape (sequences, n); None: the default probe, through ``tokenizer``.
        tokenizer: the model's own; needed where no tokens are given.
        store: folder of the store, the same as any sweep's.
        options: when and on what the run is measured, what it is called; None: the defaults.
        fields: any field of ``WatchOptions`` (``every``, ``share``, ``name`` ...), of its ``ProbeOptions``
            (``number``, ``n``, ``target_error``) or of ``Conventions``, by name.

    Returns:
        A function of the step; call it after every optimizer step and ``finish`` it at the end.

    Raises:
        RequestError: an unknown field, a value that is not allowed, no transformers model, or no probe.
        CheckpointError: the model has too few positions for the tokens.

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
    named = with_fields(options, fields).named("run", 0)
    return start_monitor(model, tokens, tokenizer=tokenizer, store=store, options=named)
