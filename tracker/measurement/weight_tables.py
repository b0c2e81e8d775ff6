"""What the weights of a checkpoint yield, and how it comes into its record in the store."""

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from tracker.measurement.tables import described
from tracker.models import ModelFacts
from tracker.records import Checkpoint, Measurement, Unit, weights_unit
from tracker.store import DamagedRecord, Store, read_record, read_table
from tracker.store.schema import OPTION_SCHEMAS

NOTE = "weights:"
"""How the reason begins why weights, or some of them, were not measured."""


@dataclass(frozen=True)
class WeightTables:
    """What the weights of a checkpoint yield, as columns of the store's tables."""

    heads: pl.DataFrame
    """A row per layer and head."""
    layers: pl.DataFrame
    """A row per layer."""
    checkpoint: pl.DataFrame
    """One row."""
    note: str | None = None
    """What could not be measured, and why; begins with ``weights:``."""

    def added_to(self, measured: Measurement) -> Measurement:
        """Return the tables of a checkpoint's record with these columns in them."""
        added = {"heads": ["layer", "head"], "layers": ["layer"]}
        tables = {
            table: getattr(measured, table)
            .drop(OPTION_SCHEMAS["weights"][table], strict=False)
            .join(getattr(self, table), on=keys, how="left", maintain_order="left")
            for table, keys in added.items()
        }
        row = measured.checkpoint.drop(OPTION_SCHEMAS["weights"]["checkpoint"], strict=False)
        return noted(replace(measured, checkpoint=row.hstack(self.checkpoint), **tables), self.note)

    def alone(
        self, checkpoint: Checkpoint, facts: ModelFacts, commit: str | None, seconds: float
    ) -> Measurement:
        """Return the tables of a record that holds nothing else."""
        unit = weights_unit(checkpoint)
        row = described(checkpoint, facts, commit) | {
            "key": unit.key,
            "dtype": unit.dtype,
            "seconds": seconds,
            "reason": self.note,
        }
        identity = {name: pl.lit(value) for name, value in unit.identity("ok").items()}
        summary = pl.DataFrame([row], infer_schema_length=None).hstack(self.checkpoint)
        tables = (each.with_columns(**identity) for each in (self.heads, self.layers, summary))
        heads, layers, summary = tables
        return Measurement(heads, layers, pl.DataFrame(), summary)


def noted(measured: Measurement, note: str | None) -> Measurement:
    """Return a measurement whose reason has this note on weights, in place of any other."""
    row = measured.checkpoint
    reason = row["reason"].item() if "reason" in row.columns else None
    parts = [each for each in (reason or "").split("; ") if each and not each.startswith(NOTE)]
    reason = "; ".join([*parts, *([note] if note else [])]) or None
    return replace(measured, checkpoint=row.with_columns(pl.lit(reason, dtype=pl.String).alias("reason")))


def note_in(reason: str | None) -> str | None:
    """Return the part of a record's reason that is about its weights; None where there is none."""
    return next((each for each in (reason or "").split("; ") if each.startswith(NOTE)), None)


def stored_weights(store: Store, unit: Unit, commit: str | None) -> WeightTables | None:
    """Return what a store knows of the weights of a unit's checkpoint; None where it knows nothing.

    They do not depend on probe and conventions: what was measured of the same files is right here too.

    Args:
        store: where the unit's record goes.
        unit: about to be recorded.
        commit: of the files that were loaded.
    """
    for place in (store.place(unit), store.place(weights_unit(unit.checkpoint))):
        record = read_record(place)
        if record is None or "weights" not in record.options or commit is None or record.commit != commit:
            continue
        with suppress(OSError, DamagedRecord):
            return _read_weights(place, record.reason)
    return None


def _read_weights(place: Path, reason: str | None) -> WeightTables:
    columns = {table: list(schema) for table, schema in OPTION_SCHEMAS["weights"].items()}
    return WeightTables(
        read_table(place, "heads", ["layer", "head", *columns["heads"]]),
        read_table(place, "layers", ["layer", *columns["layers"]]),
        read_table(place, "checkpoint", columns["checkpoint"]),
        note_in(reason),
    )
