"""One checkpoint in, one measurement out.

Legend: S sequences, L layers, H heads, B sequences of one batch, Q queries, K keys.
"""

import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from tracker.errors import CheckpointError
from tracker.measurement.probe import ProbeTokens
from tracker.measurement.process import plain_arithmetic
from tracker.measurement.tables import Values, relative_error, tables
from tracker.measurement.threads import batch_threads, map_in_threads
from tracker.metrics import (
    admissibility,
    frame_bounds,
    lag_profile,
    prefix_matching_score,
    refinement_residual,
)
from tracker.metrics.fused.layers import LayerValues, layer_values, on_host
from tracker.metrics.fused.signals import SignalPlan
from tracker.models import (
    AttentionStream,
    ModelFacts,
    logits_way,
    model_facts,
    refuse_faults,
    sequence_losses,
)
from tracker.records import Conventions, Measurement, Unit, tracker_version

BATCH_BYTES, BATCH_SHARE = 64 << 20, 0.5
"""Memory that a batch's states may take: so much on a processor, such a share of what a GPU has free."""
FIRST_LOOK = 16
"""Sequences after which it is first asked whether they are enough; then after twice as many, and so on."""
STATES = 24
"""About how many values of the model's width a token has alive at once, in all passes."""


def measure_model(
    model: PreTrainedModel,
    tokens: ProbeTokens,
    conventions: Conventions,
    facts: ModelFacts | None = None,
    target_error: float | None = None,
    *,
    loss: bool = True,
) -> Values:
    """Compute every metric of a loaded model on a probe.

    Args:
        model: in evaluation mode, on the device where the work is to be done.
        tokens: the probe's ids, shape (S, n), and the prefix-matching ids.
        conventions: how to measure.
        facts: of the model, where they are at hand.
        target_error: ``relative_error`` at which no more sequences are measured; None: all are.
        loss: whether loss and in-context score are measured.

    Raises:
        CheckpointError: attention that does not arrive or cannot be measured; names layer and head.
        RequestError: a convention that is not offered.
    """
    with plain_arithmetic(model.device), torch.inference_mode():
        return _measured(model, tokens, conventions, facts or model_facts(model), target_error, loss)


def _measured(
    model: PreTrainedModel,
    tokens: ProbeTokens,
    conventions: Conventions,
    facts: ModelFacts,
    target_error: float | None,
    loss: bool,
) -> Values:
    number, n = tokens.ids.shape
    plan = SignalPlan.of(conventions, n, model.device)
    values = Values.empty((number, facts.n_layers, facts.n_heads), scales=plan.level + 1)
    loss = loss and facts.causal
    way = logits_way(model, torch.from_numpy(tokens.ids[:1]).to(model.device)) if loss else "none"
    scored = way != "none"
    measured = _measure_batches(model, tokens.ids, plan, facts, values, target_error, scored)
    if facts.causal:
        _measure_prefix(model, tokens.prefix_ids, values)
    _leave_out_failed(values, plan)
    if loss and way == "none":
        values.troubles |= {"loss": "no loss: the model has no vocabulary head"}
    return values.first(measured)


def values_of(layers: list[LayerValues], plan: SignalPlan, number: int) -> Values:
    """Collect what each layer of ``number`` sequences yields, where there is no model.

    Raises:
        CheckpointError: as ``refuse_faults``.
    """
    values = Values.empty((number, len(layers), layers[0].spectrum.shape[1]), scales=plan.level + 1)
    _add_batch(_Batch(_sound(layers), None), slice(0, number), number, values)
    _leave_out_failed(values, plan)
    return values


def _leave_out_failed(values: Values, plan: SignalPlan) -> None:
    """Drop the columns of custom metrics that went wrong, and keep why."""
    for failed in plan.troubles:
        for name in (failed, f"averaged_{failed}"):
            values.heads.pop(name, None)
    values.troubles = plan.troubles


def _batch_size(model: PreTrainedModel, facts: ModelFacts, n: int) -> int:
    """How many sequences go through the model at once; attention takes no part, it comes in tiles."""
    room = BATCH_BYTES
    if model.device.type == "cuda":
        room = int(BATCH_SHARE * torch.cuda.mem_get_info(model.device)[0])
    return max(1, room // (STATES * model.dtype.itemsize * facts.d_model * n))


def _measure_batches(
    model: PreTrainedModel,
    ids: np.ndarray,
    plan: SignalPlan,
    facts: ModelFacts,
    values: Values,
    target_error: float | None,
    scored: bool,
) -> int:
    """Measure batch after batch, until there are enough sequences; return how many those are.

    Looks are taken at numbers that do not depend on the batches, so that every machine stops at the same
    sequence.
    """
    start, look = 0, FIRST_LOOK if target_error else len(ids)
    while start < len(ids):
        stop = min(look, len(ids))
        for part, batch in _batches(model, ids, slice(start, stop), plan, facts, scored):
            _add_batch(batch, part, len(ids), values)
        start, look = stop, 2 * look
        if target_error and relative_error(values, start) <= target_error:
            break
    return start


def _batches(
    model: PreTrainedModel,
    ids: np.ndarray,
    wanted: slice,
    plan: SignalPlan,
    facts: ModelFacts,
    scored: bool,
) -> Iterator[tuple[slice, "_Batch"]]:
    """Measure the sequences wanted, on a processor in several threads.

    On a GPU a batch that does not fit into its memory is tried again at half the size.
    """

    def work(part: slice) -> _Batch:
        return _measured_batch(model, ids, part, plan, facts if scored else None)

    threads = batch_threads(model.device)
    start, stop, size = wanted.start, wanted.stop, _batch_size(model, facts, ids.shape[1])
    if threads > 1:
        size = max(1, min(size // threads, -(-(stop - start) // threads)))
        parts = [slice(first, min(first + size, stop)) for first in range(start, stop, size)]
        yield from zip(parts, map_in_threads(work, parts, threads), strict=True)
        return
    while start < stop:
        part = slice(start, min(start + size, stop))
        try:
            yield part, work(part)
            start = part.stop
        except torch.cuda.OutOfMemoryError as error:
            if part.stop - part.start == 1:
                raise CheckpointError(f"one sequence does not fit into the GPU's memory: {error}") from error
            size = (part.stop - part.start) // 2
            torch.cuda.empty_cache()


@dataclass(frozen=True)
class _Batch:
    """What a batch yields: its layers, on the host in float64, and its losses."""

    layers: list[LayerValues]
    losses: tuple[np.ndarray, np.ndarray] | None


@torch.inference_mode()
def _measured_batch(
    model: PreTrainedModel, ids: np.ndarray, part: slice, plan: SignalPlan, scored: ModelFacts | None
) -> _Batch:
    full = torch.from_numpy(ids[part]).to(model.device)
    kept = [full[:, positions] for positions in plan.positions]
    stream = AttentionStream(model, [full, *kept], finished=1)
    corner = min(plan.conventions.theory_tokens, plan.n) if part.start == 0 else 0
    layers = _sound([layer_values(attention, scaled, plan, corner) for _, (attention, *scaled) in stream])
    losses = None if scored is None else sequence_losses(model, stream.hidden[0], full, scored)
    return _Batch(layers, losses)


def _sound(layers: list[LayerValues]) -> list[LayerValues]:
    """Bring layers to the host, all at once, unless the attention of one cannot be measured."""
    layers = on_host(layers)
    for layer, found in enumerate(layers):
        refuse_faults(layer, found.faults)
    return layers


def _add_batch(batch: _Batch, part: slice, number: int, values: Values) -> None:
    for layer, found in enumerate(batch.layers):
        for name, column in zip(found.names, found.columns, strict=True):
            if name not in values.heads:
                shape = number, len(batch.layers), column.shape[1]
                values.heads[name] = np.full(shape, np.nan)
            values.heads[name][part, layer] = column.numpy()
        values.spectrum[layer] += found.spectrum.sum(0).numpy()
        values.energy[layer] += found.energy.sum(0).numpy()
        for prefix, moments in found.moments.items():
            values.correlation[prefix].merge(layer, moments)
        values.redundancy[part, layer] = found.redundancy.numpy()
        values.undefined += int(found.undefined)
        if found.corner.numel():
            _theory(found.corner, layer, values)
    if batch.losses is not None:
        values.loss[part], values.in_context[part] = batch.losses


def _theory(attention_HQK: Tensor, layer: int, values: Values) -> None:
    """Compute the theory checks on the first tokens of one sequence, in float64 on the host."""
    lower, upper = frame_bounds(attention_HQK)
    profile = lag_profile(attention_HQK)
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
    @torch.inference_mode()
    def work(ids: np.ndarray) -> Tensor:
        stream = AttentionStream(model, [torch.from_numpy(ids).to(model.device)], finished=0)
        scores, faults = [], []
        for _, (attention,) in stream:
            scores.append(prefix_matching_score(attention.whole(), ids.shape[1] // 2))
            faults.append(attention.faults)
        for layer, each in enumerate(torch.stack(faults).cpu()):
            refuse_faults(layer, each)
        return torch.stack(scores, 1).double().cpu()  # (B, L, H)

    threads = batch_threads(model.device)
    parts = np.array_split(prefix_ids, min(threads, len(prefix_ids)))
    values.prefix_matching[:] = torch.cat(list(map_in_threads(work, parts, threads))).mean(0).numpy()


def measure(
    unit: Unit,
    model: PreTrainedModel,
    tokens: ProbeTokens,
    *,
    commit: str | None = None,
    started: float | None = None,
) -> Measurement:
    """Measure a loaded checkpoint and put it into the store's four tables.

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
    probe = unit.probe
    values = measure_model(model, tokens, unit.conventions, facts, probe.target_error, loss=probe.loss)
    row = unit_row(unit, facts, tokens, commit) | {
        "n_sequences": len(values.loss),
        "device": _device_name(model),
        "seconds": time.perf_counter() - started,
        "peak_bytes": _peak_bytes(model),
        "undefined_rows": values.undefined,
        "reason": "; ".join(values.troubles.values()) or None,
    }
    return tables(values, unit.identity("ok"), row)


def unit_row(unit: Unit, facts: ModelFacts, tokens: ProbeTokens, commit: str | None) -> dict[str, Any]:
    """Return the descriptive columns of the checkpoint table."""
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
        "local_span": unit.conventions.span,
        "prefix_block": tokens.prefix_ids.shape[1] // 2,
        "token_digest": tokens.digest,
        "tracker_version": tracker_version(),
    }


def _device_name(model: PreTrainedModel) -> str:
    return torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else model.device.type


def _peak_bytes(model: PreTrainedModel) -> int:
    if model.device.type == "cuda":
        return torch.cuda.max_memory_allocated(model.device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
