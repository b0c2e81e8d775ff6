"""What a model yields before it is a record, and its four tables: means over sequences, heads, layers.

Legend: S sequences, L layers, H heads.
"""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl

from tracker.measurement.states import States
from tracker.metrics import CoMoments
from tracker.metrics.registry import head_columns, layer_columns, sequence_columns
from tracker.metrics.spectral import SPECTRUM_BANDS
from tracker.models import ModelFacts
from tracker.records import Checkpoint, Measurement, tracker_version


@dataclass
class Values:
    """Running results of a model."""

    heads: dict[str, np.ndarray]
    """By head column: (S, L, H)."""
    spectrum: np.ndarray
    """Summed power in 16 bands, (L, H, 16)."""
    energy: np.ndarray
    """Summed energy of wavelet coefficients, (L, H, scales)."""
    correlation: dict[str, CoMoments]
    """By prefix of columns: of positional and spectral entropy, (L, H)."""
    redundancy: np.ndarray
    """(S, L)."""
    theory: dict[str, np.ndarray]
    """By layer column: (L,)."""
    prefix_matching: np.ndarray
    """(L, H)."""
    loss: np.ndarray
    in_context: np.ndarray
    """(S,), like the loss."""
    undefined: int = 0
    states: States | None = None
    """None where they are not measured."""
    troubles: dict[str, str] = field(default_factory=dict)
    """By custom metric why it has no values."""

    @classmethod
    def empty(cls, shape: tuple[int, int, int], *, scales: int) -> "Values":
        """Return nothing measured yet, for (S, L, H) and so many wavelet scales."""
        sequences, layers = shape[:2]
        checks = [name for name in layer_columns() if name != "head_redundancy"]
        return cls(
            heads={},
            spectrum=np.zeros((*shape[1:], SPECTRUM_BANDS)),
            energy=np.zeros((*shape[1:], scales)),
            correlation={prefix: CoMoments(shape[1:]) for prefix in ("", "averaged_")},
            redundancy=np.full(shape[:2], np.nan),
            theory={name: np.full(layers, np.nan) for name in checks},
            prefix_matching=np.full(shape[1:], np.nan),
            loss=np.full(sequences, np.nan),
            in_context=np.full(sequences, np.nan),
        )

    def first(self, number: int) -> "Values":
        """Return those of the first sequences; no others were added to what is summed."""
        per_sequence = {name: getattr(self, name)[:number] for name in ("redundancy", "loss", "in_context")}
        heads = {name: value[:number] for name, value in self.heads.items()}
        return replace(self, heads=heads, **per_sequence)


TARGETED = ("spectral_entropy", "frequency_selectivity", "scale_sensitivity_0.5")
"""Columns whose standard error is looked at where it decides how many sequences are measured."""


def relative_error(values: Values, number: int) -> float:
    """Return the standard error of a checkpoint's mean as a share of that mean.

    Taken over the first ``number`` sequences; the largest of those of the columns in ``TARGETED``.
    """
    worst = 0.0
    for name in TARGETED:
        if name in values.heads:
            drawn = _nanmean(values.heads[name][:number], (1, 2))
            error = float(_nanstd(drawn, None)) / np.sqrt(np.isfinite(drawn).sum())
            share = error / abs(float(_nanmean(drawn, None)))
            worst = max(worst, share if np.isfinite(share) else np.inf)
    return worst


def tables(values: Values, identity: dict[str, Any], row: dict[str, Any]) -> Measurement:
    """Make the four tables of a measurement; ``row`` describes the checkpoint."""
    per_head = _head_means(values)
    per_layer = {"head_redundancy": values.redundancy.mean(0), **values.theory} | _of_states(values)
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
    head_frame = head_frame.with_columns(
        _shares("spectrum", values.spectrum), _shares("wavelet_energy", values.energy)
    )
    return Measurement(
        heads=head_frame,
        layers=_frame(identity, {"layer": np.arange(layers)}, per_layer),
        sequences=_frame(identity, {"sequence": np.arange(len(values.loss))}, per_sequence),
        checkpoint=pl.DataFrame([identity | row | summary_of(finest)], infer_schema_length=None),
    )


def _of_states(values: Values) -> dict[str, np.ndarray]:
    if values.states is None:
        return {}
    return values.states.columns() | {"layer_sink_share": _nanmean(values.heads["sink_share"], (0, 2))}


def described(checkpoint: Checkpoint, facts: ModelFacts, commit: str | None) -> dict[str, Any]:
    """Return the columns of the checkpoint table that say which checkpoint of what model was measured."""
    known = asdict(facts)
    return {name: known[name] for name in known if name not in ("vocabulary", "max_positions")} | {
        "tokens_seen": checkpoint.tokens_seen,
        "repo": checkpoint.location,
        "revision": checkpoint.revision,
        "commit": commit or checkpoint.commit,
        "tracker_version": tracker_version(),
    }


def _shares(name: str, summed: np.ndarray) -> pl.Series:
    """A list per head: how what is summed over rows, shape (L, H, parts), divides among its parts."""
    flat = summed.reshape(-1, summed.shape[-1])
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = flat / flat.sum(-1, keepdims=True)
    return pl.Series(name, shares.tolist(), dtype=pl.List(pl.Float64))


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


def summary_of(finest: dict[str, np.ndarray]) -> dict[str, float]:
    """Return mean, standard deviation and quartiles of every metric over the finest table that has it.

    A correlation is averaged over the heads of a layer and then over layers (eq. 9).
    """
    row: dict[str, float] = {}
    for name, value in finest.items():
        by_layer = name.removeprefix("averaged_") == "position_spectrum_correlation"
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
