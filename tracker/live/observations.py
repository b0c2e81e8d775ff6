"""Measurements as points of a training run's history, for alerts."""

from pathlib import Path
from typing import Any

import polars as pl

from tracker.analysis.instability import Observation, uniform_entropy
from tracker.store import read_record, read_table

ALERT_METRICS = ("spectral_entropy", "frequency_selectivity", "positional_entropy")
"""Metrics whose sudden changes raise an alert."""


def observation(sequences: Any, heads: Any, checkpoint: Any) -> Observation:
    """Return one measurement's tables as one point of a run's history."""
    row = checkpoint.row(0, named=True)
    samples = {
        name: sequences.sort("sequence")[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        for name in ALERT_METRICS
        if name in sequences.columns
    }
    layers = heads.group_by("layer").agg(pl.col("positional_entropy").mean()).sort("layer")
    entropy = layers["positional_entropy"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return Observation(row["step"], samples, entropy, uniform_entropy(row["n_tokens"]))


def recorded_observations(run: Path, probe: str, conventions: str) -> list[Observation]:
    """Return what is recorded of a run, measured in one way, in step order.

    Args:
        run: folder of the run's records.
        probe, conventions: labels, as the tables carry them.
    """
    found = []
    for record in run.glob("step-*.*"):
        known = read_record(record)
        if known is None or (known.probe, known.conventions, known.status) != (probe, conventions, "ok"):
            continue
        found.append(
            observation(*(read_table(record, name) for name in ("sequences", "heads", "checkpoint")))
        )
    return sorted(found, key=lambda each: each.step)
