"""What the tables of a store hold: typed columns, the same in every record, and names of folders."""

from collections.abc import Iterable
from urllib.parse import quote

import polars as pl

from tracker.errors import StoreError
from tracker.metrics.registry import (
    checkpoint_columns,
    custom_metrics,
    head_columns,
    layer_columns,
    option_columns,
    sequence_columns,
)
from tracker.metrics.table import OPTIONS

TABLES = ("heads", "layers", "sequences", "checkpoint")
SPECTRUM_BANDS = 16

IDENTITY: dict[str, pl.DataType] = {
    "suite": pl.String(),
    "model": pl.String(),
    "seed": pl.Int64(),
    "step": pl.Int64(),
    "probe": pl.String(),
    "conventions": pl.String(),
    "status": pl.String(),
}


def _floats(columns: list[str], *suffixes: str) -> dict[str, pl.DataType]:
    return {column + suffix: pl.Float64() for column in columns for suffix in ("", *suffixes)}


PROFILES: dict[str, dict[str, pl.DataType]] = {
    "weights": {f"rotary_profile_{part}": pl.List(pl.Float64()) for part in ("q", "k")},
}
"""Lists per head that come with an option's metrics."""


def _option_columns(option: str) -> dict[str, dict[str, pl.DataType]]:
    """Return what each table has of the metrics that one field of ``spectrum`` has measured."""
    heads, layers = (_floats(option_columns(option, level=level)) for level in ("head", "layer"))
    return {
        "heads": heads | PROFILES.get(option, {}),
        "layers": layers,
        "sequences": {},
        "checkpoint": _floats(option_columns(option), "_std", "_q25", "_q75"),
    }


OPTION_SCHEMAS = {option: _option_columns(option) for option in OPTIONS}
"""By field of ``spectrum``, what its metrics add to each table; a record without them has no such columns."""

_ALWAYS: dict[str, dict[str, pl.DataType]] = {
    "heads": {
        **IDENTITY,
        "layer": pl.Int64(),
        "head": pl.Int64(),
        **_floats(head_columns(own=False), "_std"),
        "spectrum": pl.List(pl.Float64()),
        "wavelet_energy": pl.List(pl.Float64()),
    },
    "layers": {**IDENTITY, "layer": pl.Int64(), **_floats(layer_columns())},
    "sequences": {**IDENTITY, "sequence": pl.Int64(), **_floats(sequence_columns(own=False))},
    "checkpoint": {
        **IDENTITY,
        "key": pl.String(),
        "tokens_seen": pl.Int64(),
        "repo": pl.String(),
        "revision": pl.String(),
        "commit": pl.String(),
        "params_total": pl.Int64(),
        "params_non_embedding": pl.Int64(),
        "n_layers": pl.Int64(),
        "attention_layers": pl.String(),
        "n_heads": pl.Int64(),
        "d_model": pl.Int64(),
        "d_head": pl.Int64(),
        "rotary_dims": pl.Int64(),
        "position_encoding": pl.String(),
        "causal": pl.Boolean(),
        "dtype": pl.String(),
        "device": pl.String(),
        "n_sequences": pl.Int64(),
        "n_tokens": pl.Int64(),
        "local_span": pl.Int64(),
        "prefix_block": pl.Int64(),
        "token_digest": pl.String(),
        "tracker_version": pl.String(),
        "seconds": pl.Float64(),
        "peak_bytes": pl.Int64(),
        "reason": pl.String(),
        "undefined_rows": pl.Int64(),
        **_floats(
            [name for name in checkpoint_columns(own=False) if name not in option_columns()],
            "_std",
            "_q25",
            "_q75",
        ),
    },
}
"""The typed columns that the tables of every record have."""

SCHEMAS = {
    table: _ALWAYS[table]
    | {name: kind for each in OPTION_SCHEMAS.values() for name, kind in each[table].items()}
    for table in TABLES
}
"""The typed columns of every table; a metric that does not exist for a checkpoint is null."""

MEANINGS = {
    "suite": "suite, first level of the store",
    "model": "name of the model",
    "seed": "training seed",
    "step": "training step",
    "probe": "name, sequences x tokens and digest of the probe",
    "conventions": "preset and digest of every choice of `spectrum` that results depend on",
    "status": "ok, failed or missing; the latter two with a `reason`",
    "layer": "layer, counted from 0",
    "head": "head of the layer, counted from 0",
    "sequence": "sequence of the probe, counted from 0",
    "spectrum": f"shares of the power of attention rows in {SPECTRUM_BANDS} bands up to Nyquist",
    "wavelet_energy": "shares of the energy of attention rows per wavelet scale, coarsest first",
    "rotary_profile_q": "shares of each rotary frequency in the norm of the head's Wq, highest first",
    "rotary_profile_k": "likewise of the Wk that the head reads",
    "key": "twelve hex digits that name checkpoint, probe and conventions; the same for ever",
    "tokens_seen": "tokens that the model was trained on up to this step",
    "repo": "repository on the hub, or folder",
    "revision": "branch or other revision that was asked for",
    "commit": "commit that the files come from",
    "params_total": "parameters",
    "params_non_embedding": "parameters without embeddings",
    "n_layers": "layers with attention",
    "attention_layers": "which blocks have attention, from 0, where not all do",
    "n_heads": "heads per layer",
    "d_model": "width of the residual stream",
    "d_head": "width of a head",
    "rotary_dims": "dimensions of a head that rotate",
    "position_encoding": "kind of position encoding",
    "causal": "whether attention sees only the past; false for encoders",
    "dtype": "data type of the weights",
    "device": "device that measured",
    "n_sequences": "sequences measured",
    "n_tokens": "tokens per sequence",
    "local_span": "keys that count as local",
    "prefix_block": "ids in the block of prefix matching",
    "token_digest": "digest of the measured token ids",
    "tracker_version": "version of tracker that measured",
    "seconds": "seconds that measuring took",
    "peak_bytes": "peak memory in bytes, of the process on a processor, of torch on CUDA",
    "reason": "why there is no measurement, or what could not be measured",
    "undefined_rows": "attention rows without a spectrum, which means leave out",
}
"""What every column holds that is no metric; metrics say it themselves."""


OWN_SUFFIXES = {"heads": ("_std",), "sequences": (), "checkpoint": ("_std", "_q25", "_q75")}
"""Columns that each table has of a custom metric, besides its value."""


def schema_of(table: str, metrics: Iterable[str] = ()) -> dict[str, pl.DataType]:
    """Return the typed columns of a table: ``SCHEMAS[table]`` and those of custom metrics."""
    if not metrics or table not in OWN_SUFFIXES:
        return SCHEMAS[table]
    own = [column for custom in custom_metrics(metrics) for column in custom.columns]
    return SCHEMAS[table] | _floats(own, *OWN_SUFFIXES[table])


def conform(table: str, frame: pl.DataFrame, metrics: Iterable[str] = ()) -> pl.DataFrame:
    """Give a frame the columns and types of ``schema_of``; absent ones and NaN become null.

    Columns of an option's metrics of which it has none stay absent.

    Args:
        table: heads, layers, sequences or checkpoint.
        frame: measured values, one column per metric.
        metrics: custom metrics, as ``Conventions.metrics`` names them.

    Raises:
        StoreError: the frame has a column that the table does not know.
    """
    schema = schema_of(table, metrics)
    unknown = set(frame.columns) - set(schema)
    if unknown:
        raise StoreError(f"table {table} has no column {', '.join(sorted(unknown))}")
    for each in OPTION_SCHEMAS.values():
        if not set(each[table]) & set(frame.columns):
            schema = {name: kind for name, kind in schema.items() if name not in each[table]}
    if frame.is_empty():
        return pl.DataFrame(schema=schema)
    columns = [
        (pl.col(name) if name in frame.columns else pl.lit(None)).cast(kind).alias(name)
        for name, kind in schema.items()
    ]
    return frame.select(columns).with_columns(pl.selectors.float().fill_nan(None))


def safe_name(name: str) -> str:
    """Quote a name as one folder name: no separator, no ``=``, never ``..``."""
    quoted = quote(name, safe=" +,@")
    return quoted.replace(".", "%2E") if set(quoted) <= {"."} else quoted
