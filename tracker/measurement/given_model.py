"""A model at hand, not a file: the probe and the conventions that it is measured with."""

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from tracker.config import conventions_of
from tracker.errors import CheckpointError, RequestError
from tracker.measurement.probe import (
    ProbeTokens,
    check_target_error,
    encode_probe,
    fitting_block,
    load_tokenizer,
    prefix_ids,
    probe_spec,
    probe_tokens,
    special_ids,
)
from tracker.models import DTYPES, ModelFacts, model_facts
from tracker.records import Conventions, ProbeSource, ProbeSpec, digest

LEAST_TOKENS = 8


@dataclass(frozen=True)
class Request:
    """A probe encoded for one model, and how to measure on it."""

    probe: ProbeSpec
    conventions: Conventions
    tokens: ProbeTokens
    dtype: str


def request_for(
    model: Any,
    tokens: Any = None,
    *,
    tokenizer: Any = None,
    number: int = 16,
    n: int = 96,
    target_error: float | None = None,
    **options: Any,
) -> Request:
    """Work out what a loaded model is measured on.

    Args:
        model, tokens, tokenizer, number, n, target_error, options: as for ``tracker.track``.

    Raises:
        RequestError: neither tokens nor a tokenizer, tokens of another shape, or an unknown option.
        CheckpointError: the model has too few positions.
    """
    if isinstance(tokenizer, str | os.PathLike):
        tokenizer = load_tokenizer(Path(tokenizer).expanduser())
    conventions = conventions_for(options)
    facts = model_facts(model)
    if tokens is not None:
        spec, encoded = _given(tokens, tokenizer, facts, conventions.block, target_error)
    else:
        length = min(n, facts.max_positions or n)
        spec = probe_spec(ProbeSource(), name="default", n=length, number=number, target_error=target_error)
        encoded = encode_probe(
            spec,
            ProbeSource(),
            tokenizer,
            vocabulary=facts.vocabulary,
            block=conventions.block,
            max_positions=facts.max_positions,
        )
    dtype = next((name for name, kind in DTYPES.items() if kind == model.dtype), str(model.dtype))
    return Request(spec, conventions, encoded, dtype)


def conventions_for(options: dict[str, Any]) -> Conventions:
    """Make conventions from keyword arguments.

    Raises:
        RequestError: a field that there is not, or a value that is not allowed.
    """
    known = sorted(each.name for each in fields(Conventions))
    for name in options:
        if name not in known:
            raise RequestError(f"{name}: unknown option; choose from {', '.join(known)}")
    return conventions_of(**options)


def _given(
    tokens: Any, tokenizer: Any, facts: ModelFacts, block: int, target_error: float | None
) -> tuple[ProbeSpec, ProbeTokens]:
    """The probe of token ids that the caller brings."""
    check_target_error(target_error)
    ids = _checked(tokens, facts.vocabulary)
    if facts.max_positions is not None and ids.shape[1] > facts.max_positions:
        raise CheckpointError(
            f"tokens: {ids.shape[1]} a sequence, the model has {facts.max_positions} positions"
        )
    special = special_ids(tokenizer) if tokenizer is not None else []
    prefix = prefix_ids(facts.vocabulary, special, block=fitting_block(block, facts.max_positions), seed=0)
    spec = ProbeSpec("given", digest(ids.tolist(), 64), ids.shape[1], ids.shape[0], target_error=target_error)
    return spec, probe_tokens(ids, prefix)


def _checked(tokens: Any, vocabulary: int) -> np.ndarray:
    try:
        ids = np.asarray(tokens.cpu() if hasattr(tokens, "cpu") else tokens)
    except ValueError as error:  # rows of different lengths
        raise RequestError(f"tokens: {error}; wanted whole numbers, shape (sequences, n)") from error
    whole = np.issubdtype(ids.dtype, np.integer)
    if not whole or ids.ndim != 2 or ids.shape[0] < 1 or ids.shape[1] < LEAST_TOKENS:
        raise RequestError(
            f"tokens: {ids.dtype} of shape {ids.shape}; wanted whole numbers, shape (sequences, n), "
            f"sequences from 1, n from {LEAST_TOKENS}"
        )
    if ids.min() < 0 or ids.max() >= vocabulary:
        raise RequestError(
            f"tokens: ids are {ids.min()} to {ids.max()}, the model's vocabulary is 0 to {vocabulary - 1}"
        )
    return ids.astype(np.int64)
