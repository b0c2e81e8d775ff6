"""One checkpoint in, one measurement out.

Legend: S sequences, L layers, H heads, B sequences of one batch, Q queries, K keys.
"""

import resource
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from tracker.columns import BY_NAME, head_columns, layer_columns, sequence_columns
from tracker.errors import CheckpointError
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
from tracker.models import AttentionStream, ModelFacts, model_facts
from tracker.probes import ProbeTokens
from tracker.records import Conventions, Measurement, Unit, tracker_version

BATCH_BYTES = 64 << 20
"""Attention of one layer that a batch may take; sets the number of sequences run at once."""
LOSS_POSITIONS, TENTH_POSITIONS = 32, 16
"""Where the vocabulary head costs more than the body: strided positions, and of each tenth."""


@dataclass
class Values:
    """Running results of a model: head columns (S, L, H), per-layer ones (S, L) or (L,), and the rest."""

    heads: dict[str, np.ndarray] = field(default_factory=dict)
    spectrum: np.ndarray = field(default_factory=lambda: np.zeros(0))
    correlation: dict[str, CoMoments] = field(default_factory=dict)
    redundancy: np.ndarray = field(default_factory=lambda: np.zeros(0))
    theory: dict[str, np.ndarray] = field(default_factory=dict)
    prefix_matching: np.ndarray = field(default_factory=lambda: np.zeros(0))
    loss: np.ndarray = field(default_factory=lambda: np.zeros(0))
    in_context: np.ndarray = field(default_factory=lambda: np.zeros(0))
    undefined: int = 0


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


def loss_positions(n: int, *, all_positions: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which of the n - 1 predictions are scored: for the loss, early and late.

    Early and late are the tenths of positions centred on 0.1 n and 0.9 n. Where not all positions are
    scored, the loss takes 32 evenly strided ones and each tenth at most 16.
    """
    predictions, tenth = n - 1, max(1, round(n / 10))

    def centred(place: float) -> np.ndarray:
        start = min(max(0, round(place * n - tenth / 2)), predictions - tenth)
        return np.arange(start, start + tenth)

    every, early, late = np.arange(predictions), centred(0.1), centred(0.9)
    if all_positions:
        return every, early, late
    early, late = _thinned(early, TENTH_POSITIONS), _thinned(late, TENTH_POSITIONS)
    return _thinned(every, LOSS_POSITIONS), early, late


def _thinned(positions: np.ndarray, count: int) -> np.ndarray:
    return positions[np.arange(min(count, len(positions))) * len(positions) // min(count, len(positions))]


def sequence_losses(
    model: PreTrainedModel, hidden_BQD: Tensor, ids_BQ: Tensor, facts: ModelFacts
) -> tuple[np.ndarray, np.ndarray]:
    """Next-token loss and in-context score (late loss less early loss) per sequence, nats per token.

    All positions are scored where the vocabulary head costs less than the body, else 64.

    Returns:
        two float64 arrays, shape (B,).
    """
    head: Any = model.get_output_embeddings()
    everywhere = facts.vocabulary * facts.d_model < facts.params_non_embedding
    parts = loss_positions(ids_BQ.shape[1], all_positions=everywhere)
    scored = np.unique(np.concatenate(parts))
    losses = np.empty((ids_BQ.shape[0], len(scored)))
    for row in range(ids_BQ.shape[0]):
        logits = _scaled_logits(head(hidden_BQD[row, scored]).float(), model.config)
        losses[row] = (
            F.cross_entropy(logits, ids_BQ[row, scored + 1], reduction="none").double().cpu().numpy()
        )
    loss, early, late = (losses[:, np.searchsorted(scored, part)].mean(1) for part in parts)
    if not np.isfinite(loss).all():
        raise CheckpointError("the loss is NaN or infinite; are the weights sound?")
    return loss, late - early


def _scaled_logits(logits: Tensor, config: Any) -> Tensor:
    """What families do between head and softmax: Gemma caps, Cohere multiplies, Granite divides."""
    logits = (
        logits
        * (getattr(config, "logit_scale", None) or 1.0)
        / (getattr(config, "logits_scaling", None) or 1.0)
    )
    cap = getattr(config, "final_logit_softcapping", None)
    return cap * torch.tanh(logits / cap) if cap else logits


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
    return tables(values, identity_columns(unit), row)


def identity_columns(unit: Unit) -> dict[str, Any]:
    """The columns that every table of a measured unit carries."""
    checkpoint = unit.checkpoint
    return {
        "suite": checkpoint.suite,
        "model": checkpoint.model,
        "seed": checkpoint.seed,
        "step": checkpoint.step,
        "probe": unit.probe.label,
        "conventions": unit.conventions.label,
        "status": "ok",
    }


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


def tables(values: Values, identity: dict[str, Any], row: dict[str, Any]) -> Measurement:
    """The four tables of a measurement; ``row`` describes the checkpoint."""
    per_head = _head_means(values)
    per_layer = {"head_redundancy": values.redundancy.mean(0), **values.theory}
    per_sequence = {
        name: _nanmean(values.heads[name], (1, 2)) for name in sequence_columns() if name in values.heads
    } | {"loss": values.loss, "in_context_score": values.in_context}
    summary = {name: value for name, value in per_head.items() if not name.endswith("_std")}
    finest = summary | per_layer | {name: per_sequence[name] for name in ("loss", "in_context_score")}
    layers, heads = values.prefix_matching.shape
    head_frame = _frame(
        identity,
        {"layer": np.repeat(np.arange(layers), heads), "head": np.tile(np.arange(heads), layers)},
        per_head,
    )
    power = values.spectrum.reshape(-1, values.spectrum.shape[-1])
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = power / power.sum(-1, keepdims=True)
    head_frame = head_frame.with_columns(pl.Series("spectrum", shares.tolist(), dtype=pl.List(pl.Float64)))
    return Measurement(
        heads=head_frame,
        layers=_frame(identity, {"layer": np.arange(layers)}, per_layer),
        sequences=_frame(identity, {"sequence": np.arange(len(values.loss))}, per_sequence),
        checkpoint=pl.DataFrame([identity | row | _summary(finest)], infer_schema_length=None),
    )


def _head_means(values: Values) -> dict[str, np.ndarray]:
    """Mean and standard deviation over sequences of every head column, each (L, H)."""
    means: dict[str, np.ndarray] = {}
    for name in head_columns():
        if name in values.heads:
            means[name] = _nanmean(values.heads[name], 0)
            means[f"{name}_std"] = _nanstd(values.heads[name], 0)
    for prefix, pooled in values.correlation.items():
        means[f"{prefix}position_spectrum_correlation"] = pooled.correlation().numpy()
    means["prefix_matching_score"] = values.prefix_matching
    return means


def _frame(
    identity: dict[str, Any], index: dict[str, np.ndarray], columns: dict[str, np.ndarray]
) -> pl.DataFrame:
    data = {
        **index,
        **{name: np.asarray(column, dtype=np.float64).ravel() for name, column in columns.items()},
    }
    return pl.DataFrame(data).select(
        *(pl.lit(value).alias(name) for name, value in identity.items()), pl.all()
    )


def _summary(finest: dict[str, np.ndarray]) -> dict[str, float]:
    """Mean, standard deviation and quartiles of every metric over the finest table that has it.

    A correlation is averaged over the heads of a layer and then over layers (eq. 9).
    """
    row: dict[str, float] = {}
    for name, value in finest.items():
        layered = BY_NAME.get(name.removeprefix("averaged_"))
        by_layer = layered is not None and layered.name == "position_spectrum_correlation"
        row[name] = float(_nanmean(_nanmean(value, 1) if by_layer else value, None))
        row[f"{name}_std"] = float(_nanstd(value, None))
        known = value[np.isfinite(value)]
        quartiles = np.quantile(known, (0.25, 0.75)) if known.size else (np.nan, np.nan)
        row[f"{name}_q25"], row[f"{name}_q75"] = map(float, quartiles)
    return row


def _nanmean(values: np.ndarray, axis: Any) -> np.ndarray:
    known = np.isfinite(values)
    count = known.sum(axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0, np.where(known, values, 0.0).sum(axis) / count, np.nan)


def _nanstd(values: np.ndarray, axis: Any) -> np.ndarray:
    """Standard deviation with ddof 1; NaN under two values."""
    known = np.isfinite(values)
    count = known.sum(axis)
    mean = _nanmean(values, axis)
    centred = np.where(known, values - (mean if axis is None else np.expand_dims(mean, axis)), 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 1, np.sqrt((centred**2).sum(axis) / (count - 1)), np.nan)
