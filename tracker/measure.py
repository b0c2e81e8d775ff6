"""One checkpoint in, one measurement out.

Legend: S sequences, L layers, H heads, B sequences of one batch, Q queries, K keys.
"""

import resource
import sys
import time
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from tracker.columns import layer_columns
from tracker.metrics import (
    CoMoments,
    admissibility,
    frame_bounds,
    head_redundancy,
    lag_profile,
    prefix_matching_score,
    refinement_residual,
)
from tracker.metrics.signals import SPECTRUM_BANDS, SignalPlan, layer_values
from tracker.models import AttentionStream, ModelFacts, model_facts, sequence_losses
from tracker.probes import ProbeTokens
from tracker.records import Conventions, Measurement, Unit, tracker_version
from tracker.values import Values, tables

BATCH_BYTES = 64 << 20
"""Attention of one layer that a batch may take; sets the number of sequences run at once."""


def measure_model(
    model: PreTrainedModel, tokens: ProbeTokens, conventions: Conventions, facts: ModelFacts | None = None
) -> Values:
    """Every metric of a loaded model on a probe.

    Args:
        model: in evaluation mode, on the device where the work is to be done.
        tokens: the probe's ids, shape (S, n), and the prefix-matching ids.
        conventions: how to measure.
        facts: of the model, where they are at hand.

    Raises:
        CheckpointError: attention that does not arrive or cannot be measured; names layer and head.
        RequestError: a convention that is not offered.
    """
    facts = facts or model_facts(model)
    number, n = tokens.ids.shape
    plan = SignalPlan.of(conventions, n, model.device)
    shape = (number, facts.n_layers, facts.n_heads)
    values = Values(
        spectrum=np.zeros((*shape[1:], SPECTRUM_BANDS)),
        correlation={prefix: CoMoments(shape[1:]) for prefix in ("", "averaged_")},
        redundancy=np.full(shape[:2], np.nan),
        theory={
            name: np.full(facts.n_layers, np.nan) for name in layer_columns() if name != "head_redundancy"
        },
        prefix_matching=np.full(shape[1:], np.nan),
        loss=np.full(number, np.nan),
        in_context=np.full(number, np.nan),
    )
    size = max(1, BATCH_BYTES // (4 * facts.n_heads * n * n))
    with torch.inference_mode():
        for start in range(0, number, size):
            _measure_batch(model, tokens.ids, slice(start, min(start + size, number)), plan, facts, values)
        _measure_prefix(model, tokens.prefix_ids, values)
    return values


def _measure_batch(
    model: PreTrainedModel, ids: np.ndarray, part: slice, plan: SignalPlan, facts: ModelFacts, values: Values
) -> None:
    full = torch.from_numpy(ids[part]).to(model.device)
    stream = AttentionStream(model, [full, *(full[:, kept] for kept in plan.positions)], causal=facts.causal)
    for layer, (attention_BHQK, *scaled) in stream:
        found = layer_values(attention_BHQK, scaled, plan)
        names = list(found.columns)
        host = torch.stack([found.columns[name] for name in names]).double().cpu().numpy()
        for name, column in zip(names, host, strict=True):
            if name not in values.heads:
                values.heads[name] = np.full((len(ids), facts.n_layers, facts.n_heads), np.nan)
            values.heads[name][part, layer] = column
        values.spectrum[layer] += found.spectrum.sum(0).double().cpu().numpy()
        for prefix, (positional, spectral) in found.samples.items():
            pooled = [each.transpose(0, 1).flatten(1) for each in (positional, spectral)]
            values.correlation[prefix].add(layer, *pooled)
        values.redundancy[part, layer] = head_redundancy(attention_BHQK).double().cpu().numpy()
        values.undefined += int(found.undefined)
        if part.start == 0 and plan.conventions.theory_tokens:
            _theory(attention_BHQK[0], layer, plan.conventions.theory_tokens, values)
    values.loss[part], values.in_context[part] = sequence_losses(model, stream.hidden[0], full, facts)


def _theory(attention_HQK: Tensor, layer: int, tokens: int, values: Values) -> None:
    """The theory checks, on the first tokens of one sequence, in float64 on the host."""
    part = attention_HQK[:, :tokens, :tokens].double().cpu()
    lower, upper = frame_bounds(part)
    profile = lag_profile(part)
    found = {
        "frame_lower": lower,
        "frame_upper": upper,
        "frame_ratio": lower / upper,
        "admissibility": admissibility(profile).nanmean(),
        "refinement_residual": refinement_residual(profile).nanmean(),
    }
    for name, value in found.items():
        values.theory[name][layer] = float(value)


def _measure_prefix(model: PreTrainedModel, prefix_ids: np.ndarray, values: Values) -> None:
    ids = torch.from_numpy(prefix_ids).to(model.device)
    for layer, (attention_BHQK,) in AttentionStream(model, [ids]):
        scores = prefix_matching_score(attention_BHQK, prefix_ids.shape[1] // 2)
        values.prefix_matching[layer] = scores.double().mean(0).cpu().numpy()


def measure(
    unit: Unit,
    model: PreTrainedModel,
    tokens: ProbeTokens,
    *,
    commit: str | None = None,
    started: float | None = None,
) -> Measurement:
    """Measures a loaded checkpoint and puts it into the store's four tables.

    Args:
        unit: what is measured; its conventions are followed.
        model: the checkpoint, loaded, in evaluation mode.
        tokens: the probe encoded by the model's own tokenizer.
        commit: of the files that were loaded.
        started: ``time.perf_counter()`` when loading began, where ``seconds`` is to include it.

    Raises:
        CheckpointError, RequestError: as ``measure_model``.
    """
    started = time.perf_counter() if started is None else started
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)
    facts = model_facts(model)
    values = measure_model(model, tokens, unit.conventions, facts)
    row = unit_row(unit, facts, tokens, commit) | {
        "device": _device_name(model),
        "seconds": time.perf_counter() - started,
        "peak_bytes": _peak_bytes(model),
        "undefined_rows": values.undefined,
    }
    return tables(values, unit.identity("ok"), row)


def unit_row(unit: Unit, facts: ModelFacts, tokens: ProbeTokens, commit: str | None) -> dict[str, Any]:
    """The descriptive columns of the checkpoint table."""
    checkpoint, known = unit.checkpoint, asdict(facts)
    described = {name: known[name] for name in known if name not in ("vocabulary", "max_positions")}
    return described | {
        "key": unit.key,
        "tokens_seen": checkpoint.tokens_seen,
        "repo": checkpoint.location,
        "revision": checkpoint.revision,
        "commit": commit or checkpoint.commit,
        "dtype": unit.dtype,
        "n_sequences": tokens.ids.shape[0],
        "n_tokens": tokens.ids.shape[1],
        "token_digest": tokens.digest,
        "tracker_version": tracker_version(),
    }


def _device_name(model: PreTrainedModel) -> str:
    return torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else model.device.type


def _peak_bytes(model: PreTrainedModel) -> int:
    if model.device.type == "cuda":
        return torch.cuda.max_memory_allocated(model.device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
