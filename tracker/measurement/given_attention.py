"""Attention at hand, such as ``output_attentions`` or TransformerLens give it, measured without its model.

Legend: B sequences, H heads, Q queries, K keys.
"""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tracker.errors import RequestError
from tracker.measurement.given_model import LEAST_TOKENS
from tracker.measurement.measure import values_of
from tracker.measurement.tables import tables
from tracker.metrics.fused.layers import layer_values
from tracker.metrics.fused.signals import SignalPlan
from tracker.models import WholeAttention
from tracker.models.attention_hooks import HALVES
from tracker.records import Measurement, ProbeSpec, Unit, tracker_version

WANTED = "wanted one array per layer of shape (sequences, heads, n, n), queries before keys"
WITHOUT_MODEL = "attention without its model: no loss, prefix matching or scale sensitivity"


def layers_of(patterns: Any) -> list[Tensor]:
    """Bring attention into one tensor per layer, (B, H, Q, K), float32 or float64 on the host.

    Args:
        patterns: a sequence of layers, each (B, H, Q, K) or (H, Q, K) of one sequence; an array of all, (L,
            B, H, Q, K); or TransformerLens's cache, which is asked for ``cache["pattern", layer]``.

    Raises:
        RequestError: no layer, another shape, or layers of different shapes.
    """
    layers = [_tensor(layer, each) for layer, each in enumerate(_each_layer(patterns))]
    if not layers:
        raise RequestError(f"patterns: no layer in it; {WANTED}")
    shapes = {tuple(each.shape) for each in layers}
    if len(shapes) > 1:
        raise RequestError(f"patterns: layers have different shapes, {sorted(shapes)}; {WANTED}")
    return layers


def _each_layer(patterns: Any) -> Iterator[Any]:
    if isinstance(patterns, Sequence | np.ndarray | Tensor):
        yield from patterns
        return
    for layer in itertools.count():
        try:
            yield patterns["pattern", layer]
        except KeyError:
            return
        except TypeError as error:
            raise RequestError(f"patterns: {type(patterns).__name__}; {WANTED}") from error


def _tensor(layer: int, given: Any) -> Tensor:
    try:
        pattern = given.detach() if isinstance(given, Tensor) else torch.as_tensor(np.asarray(given))
    except (TypeError, ValueError) as error:
        raise RequestError(f"patterns: layer {layer} is no array ({error}); {WANTED}") from error
    pattern = pattern.unsqueeze(0) if pattern.ndim == 3 else pattern
    square = pattern.ndim == 4 and pattern.shape[2] == pattern.shape[3] >= LEAST_TOKENS
    if not square or not pattern.is_floating_point() or 0 in pattern.shape:
        kind = str(pattern.dtype).removeprefix("torch.")
        shape = tuple(pattern.shape)
        raise RequestError(
            f"patterns: layer {layer} is {kind} of shape {shape}; {WANTED}, n from {LEAST_TOKENS}"
        )
    if pattern.dtype not in HALVES:
        return pattern.cpu()
    wide = pattern.float().cpu()
    return wide / wide.sum(-1, keepdim=True)  # what rounding to half precision took from each row


def measured_attention(layers: list[Tensor], unit: Unit) -> Measurement:
    """Compute every metric that attention alone gives; loss, prefix matching and scale sensitivity are null.

    Args:
        layers: from ``layers_of``.
        unit: its conventions are followed.

    Raises:
        CheckpointError: rows that are not finite or do not sum to 1; names layer and head.
    """
    number, heads, n, _ = layers[0].shape
    plan = SignalPlan.of(replace(unit.conventions, alphas=()), n)
    causal = all(not each.triu(1).any() for each in layers)
    with torch.inference_mode():
        found = []
        for layer, pattern in enumerate(layers):
            attention = WholeAttention(layer, pattern)
            attention.causal = causal
            found.append(layer_values(attention, [], plan, min(unit.conventions.theory_tokens, n)))
    values = values_of(found, plan, number)
    row = {
        "key": unit.key, "n_layers": len(layers), "n_heads": heads, "causal": causal, "n_sequences": number,
        "n_tokens": n, "local_span": unit.conventions.span, "dtype": unit.dtype,
        "undefined_rows": values.undefined, "tracker_version": tracker_version(),
        "reason": "; ".join([WITHOUT_MODEL, *values.troubles.values()]),
    }  # fmt: skip
    return tables(values, unit.identity("ok"), row)


def probe_of(layers: list[Tensor]) -> ProbeSpec:
    """Return the probe that attention of this content stands for."""
    number, _, n, _ = layers[0].shape
    content = hashlib.sha256()
    for each in layers:
        content.update(each.contiguous().numpy().data)
    return ProbeSpec("given", content.hexdigest(), n, number)
