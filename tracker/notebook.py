"""The Python face: a loaded model in, a measurement with tables and a figure out."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from tracker.config import conventions_of
from tracker.errors import CheckpointError, RequestError
from tracker.measure import measure
from tracker.models import DTYPES, model_facts
from tracker.probes import encode_probe, prefix_ids, probe_spec, probe_tokens, special_ids
from tracker.records import Checkpoint, Conventions, Measurement, ProbeSource, ProbeSpec, Unit, digest
from tracker.store import TABLES, conform

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class TrackedMeasurement(Measurement):
    """A measurement that can draw itself."""

    def figure(self) -> "Figure":
        """Layer x head maps and mean spectra, as a matplotlib figure."""
        from tracker.views import measurement_figure

        return measurement_figure(self)


def track(
    model: Any,
    tokens: Any = None,
    *,
    tokenizer: Any = None,
    number: int = 16,
    n: int = 96,
    target_error: float | None = None,
    **options: Any,
) -> TrackedMeasurement:
    """Measures a loaded Hugging Face causal language model, as it is.

    The model's attention implementation is changed for the measurement and put back after it.

    Args:
        model: any transformers causal language model whose attention can be read.
        tokens: token ids, shape (sequences, n); None: the default probe, through ``tokenizer``.
        tokenizer: the model's own; needed where no tokens are given.
        number, n: sequences and tokens per sequence of the default probe; n at most the model's positions.
        target_error: relative standard error of the means at which no more sequences are measured.
        options: any field of ``Conventions``, for example ``align="gather"``.

    Returns:
        ``.heads``, ``.layers``, ``.sequences``, ``.summary`` as polars dataframes, and ``.figure()``.

    Raises:
        RequestError: neither tokens nor a tokenizer, tokens of another shape, or an unknown option.
        CheckpointError: the model's attention cannot be measured, or it has too few positions.

    Example:
        >>> import tracker
        >>> from transformers import GPTNeoXConfig, GPTNeoXForCausalLM
        >>> shape = dict(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
        >>> model = GPTNeoXForCausalLM(GPTNeoXConfig(intermediate_size=64, **shape))
        >>> measured = tracker.track(model, [[token % 64 for token in range(96)]] * 4)
        >>> measured.heads.height, measured.summary["n_sequences"].item()
        (8, 4)
    """
    known = {each.name for each in fields(Conventions)}
    for name in options:
        if name not in known:
            raise RequestError(f"{name}: no such option; there are {', '.join(sorted(known))}")
    conventions = conventions_of(**options)
    facts = model_facts(model)
    block = min(conventions.block, (facts.max_positions or 2 * conventions.block) // 2)
    if tokens is None:
        length = min(n, facts.max_positions or n)
        spec = probe_spec(ProbeSource(), name="default", n=length, number=number, target_error=target_error)
        encoded = encode_probe(
            spec,
            ProbeSource(),
            tokenizer,
            vocabulary=facts.vocabulary,
            block=block,
            max_positions=facts.max_positions,
        )
    else:
        ids = _checked(tokens, facts.vocabulary)
        if facts.max_positions is not None and ids.shape[1] > facts.max_positions:
            raise CheckpointError(
                f"tokens: {ids.shape[1]} a sequence, the model has {facts.max_positions} positions"
            )
        special = special_ids(tokenizer) if tokenizer is not None else []
        encoded = probe_tokens(ids, prefix_ids(facts.vocabulary, special, block=block, seed=0))
        spec = ProbeSpec(
            "given", digest(ids.tolist(), 64), ids.shape[1], ids.shape[0], target_error=target_error
        )
    name = getattr(model.config, "_name_or_path", "") or type(model).__name__
    dtype = next((name for name, kind in DTYPES.items() if kind == model.dtype), str(model.dtype))
    unit = Unit(Checkpoint("notebook", name, 0, 0, "folder", name, name), spec, conventions, dtype)
    before, training = model.config._attn_implementation, model.training
    try:
        found = measure(unit, model.eval(), encoded)
    finally:
        model.set_attn_implementation(before)
        model.train(training)
    return TrackedMeasurement(*(conform(table, getattr(found, table)) for table in TABLES))


def _checked(tokens: Any, vocabulary: int) -> np.ndarray:
    ids = np.asarray(tokens.cpu() if hasattr(tokens, "cpu") else tokens)
    if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer) or ids.shape[1] < 8:
        raise RequestError(
            f"tokens: {ids.dtype} of shape {ids.shape}; wanted whole numbers, shape (sequences, n), n from 8"
        )
    if ids.size and (ids.min() < 0 or ids.max() >= vocabulary):
        raise RequestError(f"tokens: ids reach {ids.max()}, the model's vocabulary is {vocabulary}")
    return ids.astype(np.int64)
