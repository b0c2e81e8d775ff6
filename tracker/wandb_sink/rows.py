"""What one checkpoint sends to W&B: scalars, histograms over heads, layer x head maps as small pictures.

Plain numbers and pictures; nothing here knows wandb.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from tracker.metrics.registry import checkpoint_columns, registry_of, title_of
from tracker.records import digest
from tracker.store import read_table

Scalar = float | int | str

STEP = "checkpoint/step"
STEP_PLUS_ONE = "checkpoint/step_plus_one"
TOKENS = "checkpoint/tokens"
KEY = "checkpoint/key"
"""The record's key: rows of one checkpoint that was measured again have it in common, the last one counts."""
ROW = "checkpoint/row"
"""The row's own name travels with it, so that a server can be asked which rows it holds."""
PASSING = "checkpoint/seconds"
"""What differs between two measurements of the same thing."""

SPREADS = ("std", "q25", "q75")
HISTOGRAMS = (
    "spectral_entropy",
    "frequency_selectivity",
    "band_power_low",
    "positional_entropy",
    "averaged_scale_sensitivity_0.5",
    "previous_token_score",
    "prefix_matching_score",
    "sink_share",
)
BINS = 32
MAPS: dict[str, tuple[float, float]] = {
    "spectral_entropy_normalised": (0.0, 1.0),
    "frequency_selectivity": (0.0, 2.0),
    "band_power_low": (0.0, 1.0),
    "averaged_scale_sensitivity_0.5": (0.0, 1.0),
    "previous_token_score": (0.0, 1.0),
    "prefix_matching_score": (0.0, 1.0),
}
"""The metrics that are drawn, and the values of the darkest and the brightest colour: the same at every
checkpoint, so that maps can be compared."""
UNDEFINED_COLOUR = (128, 128, 128)
PICTURE_SIDE = 256
"""Target for the longer side, in pixels."""
CELL_SIDES = 4, 24
"""Bounds of a cell's side, in pixels."""
FACTS = (
    "n_layers", "n_heads", "d_model", "d_head", "rotary_dims", "position_encoding", "causal",
    "params_total", "params_non_embedding", "repo", "dtype", "n_sequences", "n_tokens",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One checkpoint, ready to be sent."""

    name: str
    """The record's key and a digest of the numbers: measured again with other results it is another row."""
    key: str
    step: int
    scalars: dict[str, Scalar]
    facts: dict[str, Scalar]
    """What the checkpoint table says of the model: the run's flat configuration."""
    histograms: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    """By metric: counts (bins,) and edges (bins + 1,) over all heads."""
    maps: dict[str, tuple[Image.Image, str]] = field(default_factory=dict)
    """By metric: picture and caption."""


def read_row(place: Path, *, histograms: bool = True, maps: bool = True) -> Row:
    """Read one stored checkpoint as a row.

    Args:
        place: a record's folder, with status ok.
        histograms: whether to make the histograms over heads.
        maps: whether to draw the layer x head maps.

    Raises:
        OSError, DamagedRecord: the record is being replaced or does not read back.
    """
    checkpoint = _checkpoint(place)
    facts = {name: checkpoint[name] for name in FACTS if checkpoint[name] is not None}
    heads = pl.DataFrame()
    if histograms or maps:
        wanted = sorted({*HISTOGRAMS, *MAPS})
        heads = read_table(place, "heads", ["layer", "head", *wanted])
    scalars = scalars_of(checkpoint)
    return Row(
        name=str(scalars[ROW]),
        key=checkpoint["key"],
        step=checkpoint["step"],
        scalars=scalars,
        facts=facts,
        histograms=histograms_of(heads) if histograms else {},
        maps=maps_of(heads) if maps else {},
    )


def row_name(place: Path) -> str:
    """Return the name of the row that a record with status ok sends.

    Raises:
        OSError, DamagedRecord: the record is being replaced or does not read back.
    """
    return str(scalars_of(_checkpoint(place))[ROW])


def _checkpoint(place: Path) -> dict[str, Any]:
    """Read a record's row of the checkpoint table."""
    return read_table(place, "checkpoint").row(0, named=True)


def scalars_of(checkpoint: dict[str, Any]) -> dict[str, Scalar]:
    """Return every metric that has a value under its own name, its spread under ``std/``, ``q25/``, ``q75/``.

    The axes come first: step, step + 1 (step 0 has no place on a log axis), tokens.
    """
    step = checkpoint["step"]
    scalars: dict[str, Scalar] = {STEP: step, STEP_PLUS_ONE: step + 1, KEY: checkpoint["key"]}
    for name, column in ((TOKENS, "tokens_seen"), ("checkpoint/undefined_rows", "undefined_rows"),
                         (PASSING, "seconds")):  # fmt: skip
        if checkpoint[column] is not None:
            scalars[name] = checkpoint[column]
    for metric in checkpoint_columns(registry_of(checkpoint)):
        if checkpoint.get(metric) is not None:
            scalars[metric] = checkpoint[metric]
        for spread in SPREADS:
            if checkpoint.get(f"{metric}_{spread}") is not None:
                scalars[f"{spread}/{metric}"] = checkpoint[f"{metric}_{spread}"]
    lasting = {name: value for name, value in scalars.items() if name != PASSING}
    scalars[ROW] = f"{checkpoint['key']}.{digest(lasting, 8)}"
    return scalars


def histograms_of(heads: pl.DataFrame) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Count the values over all heads of the main metrics that have values."""
    found = {}
    for metric in HISTOGRAMS:
        values = heads[metric].drop_nulls().to_numpy()
        values = values[np.isfinite(values)]
        if values.size:
            found[metric] = np.histogram(values, bins=BINS)
    return found


def maps_of(heads: pl.DataFrame) -> dict[str, tuple[Image.Image, str]]:
    """Draw layer x head maps, with captions, of the metrics in ``MAPS`` that have values."""
    if heads.is_empty():
        return {}
    layers, columns = heads["layer"].to_numpy(), heads["head"].to_numpy()
    found = {}
    for metric in MAPS:
        if heads[metric].null_count() < heads.height:
            values = np.full((layers.max() + 1, columns.max() + 1), np.nan)
            values[layers, columns] = heads[metric].cast(pl.Float64).fill_null(float("nan")).to_numpy()
            found[metric] = head_map(metric, values)
    return found


def head_map(metric: str, values: np.ndarray) -> tuple[Image.Image, str]:
    """Draw one metric of every head.

    Args:
        metric: a name in ``MAPS``, which gives the range of the colours.
        values: (layers, heads), NaN where a head has no value.

    Returns:
        The picture, layer 0 on top and head 0 on the left, grey where there is no value; and a caption
        that says what the colours mean.
    """
    from matplotlib import colormaps  # 0.3 s that whoever draws no maps need not wait for

    low, high = MAPS[metric]
    shares = np.clip((values - low) / (high - low), 0.0, 1.0)
    colours = colormaps["viridis"](np.nan_to_num(shares), bytes=True)[..., :3]
    colours[np.isnan(values)] = UNDEFINED_COLOUR
    side = int(np.clip(PICTURE_SIDE // max(values.shape), *CELL_SIDES))
    pixels = np.ascontiguousarray(colours.repeat(side, axis=0).repeat(side, axis=1))
    caption = (
        f"{title_of(metric)}: rows are layers (0 on top), columns are heads; "
        f"{low:g} dark to {high:g} bright, grey where undefined"
    )
    return Image.fromarray(pixels), caption
