"""Trajectories: the store's tables as arrays, one per model and seed.

T: checkpoints; S: sequences of the probe.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from tracker.errors import StoreError
from tracker.metrics.registry import checkpoint_columns, registry_of, sequence_columns

FACTS = ("params_total", "params_non_embedding", "n_layers", "n_heads", "d_model", "d_head", "rotary_dims")
RUN = ("suite", "model", "seed")
Suspects = Mapping[tuple[str, str, int, int], str]
"""Suite, model, seed and step of measured checkpoints that are left out, and why."""


@dataclass(frozen=True)
class Trajectory:
    """One training run as measured: NaN where a metric does not exist."""

    suite: str
    model: str
    seed: int
    steps: np.ndarray
    """(T,) measured steps, rising."""
    tokens: np.ndarray
    """(T,) training tokens seen, NaN where unknown."""
    metrics: dict[str, np.ndarray]
    """Name -> (T,)."""
    samples: dict[str, np.ndarray]
    """Name -> (T, S), over the sequences that every checkpoint has; empty where there are none."""
    facts: dict[str, int | None]
    """Sizes of the model: parameters, layers, heads, dimensions."""
    left_out: tuple[tuple[int, str], ...]
    """Steps without a measurement, or with a suspect one, and why."""

    @property
    def name(self) -> str:
        """How sentences name it."""
        return f"{self.model} seed {self.seed}"


def single_value(frame: pl.DataFrame, column: str) -> str:
    """Return the one value of ``column``; empty text for an empty frame.

    Raises:
        StoreError: there are several, which must not be mixed, or the column is missing.
    """
    if column not in frame.columns:
        raise StoreError(f"the checkpoint table has no column {column}; open it with tracker.open_store")
    values = sorted(str(value) for value in frame[column].unique())
    if len(values) > 1:
        raise StoreError(
            f"results of several {column} cannot be analysed together: {', '.join(values)}; "
            f"choose one with open_store(..., {column}=...)"
        )
    return values[0] if values else ""


def _column(frame: pl.DataFrame, name: str) -> np.ndarray:
    return frame[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _samples(rows: pl.DataFrame, steps: Sequence[int], names: list[str]) -> dict[str, np.ndarray]:
    """(T, S) per metric over the sequences that all ``steps`` have, in order of their number."""
    rows = rows.filter(pl.col("step").is_in(list(steps))).unique(["step", "sequence"], keep="first")
    counts = rows.group_by("sequence").len().filter(pl.col("len") == len(steps))
    rows = rows.join(counts, on="sequence", how="semi").sort("step", "sequence")
    if not rows.height:
        return {}
    shape = (len(steps), rows.height // len(steps))
    return {name: _column(rows, name).reshape(shape) for name in names}


def _trajectory(
    rows: pl.DataFrame, sequences: pl.DataFrame | None, names: list[str], suspects: Mapping[int, str]
) -> Trajectory:
    suite, model, seed = rows.select(RUN).row(0)
    measured = rows.filter(pl.col("status") == "ok", ~pl.col("step").is_in(list(suspects))).sort("step")
    twice = measured.filter(pl.col("step").is_duplicated())
    if twice.height:
        raise StoreError(
            f"{model} seed {seed} step {twice['step'][0]} of suite {suite} is there twice; "
            "keep one measurement of each checkpoint"
        )
    lost = rows.filter(~pl.col("step").is_in(measured["step"].to_list()))
    lost = lost.unique("step", keep="first").sort("step")
    steps = measured["step"].to_list()
    drawn = {}
    if sequences is not None and steps:
        columns = sequence_columns(registry_of(sequences.columns))
        drawn = _samples(sequences, steps, [n for n in columns if n in sequences.columns])
    first = measured if measured.height else rows
    tokens = (
        _column(measured, "tokens_seen") if "tokens_seen" in rows.columns else np.full(len(steps), np.nan)
    )
    return Trajectory(
        suite,
        model,
        seed,
        steps=np.array(steps, dtype=np.int64),
        tokens=tokens,
        metrics={name: _column(measured, name) for name in names},
        samples=drawn,
        facts={fact: first[fact][0] if fact in rows.columns else None for fact in FACTS},
        left_out=tuple(
            (step, reason or suspects.get(step, status))
            for step, reason, status in lost.select("step", "reason", "status").iter_rows()
        ),
    )


def trajectories(
    checkpoints: pl.DataFrame, sequences: pl.DataFrame | None = None, suspects: Suspects | None = None
) -> list[Trajectory]:
    """Gather one trajectory per suite, model and seed, smallest models first.

    Args:
        checkpoints: the store's checkpoint table, failed and missing checkpoints included.
        sequences: its table of sequences, for intervals.
        suspects: measured checkpoints that are not what their names say; they count as not measured.

    Raises:
        StoreError: several probes or conventions are mixed, or a checkpoint is there twice.

    Example:
        >>> from tracker.analysis.synthetic import SyntheticRun, stored_tables
        >>> run = SyntheticRun(np.array([0, 1, 2]), {"loss": np.ones((3, 4))}, ())
        >>> tables = stored_tables({("70m", seed): run for seed in (0, 1)}, {"70m": 19_000_000})
        >>> [(run.name, run.samples["loss"].shape) for run in trajectories(*tables)]
        [('70m seed 0', (3, 4)), ('70m seed 1', (3, 4))]
    """
    for column in ("probe", "conventions"):
        single_value(checkpoints, column)
    columns = checkpoint_columns(registry_of(checkpoints.columns))
    names = [name for name in columns if name in checkpoints.columns]
    runs = []
    for key, rows in checkpoints.group_by(RUN, maintain_order=True):
        own = None
        if sequences is not None and sequences.height:
            matches = [pl.col(column) == value for column, value in zip(RUN, key, strict=True)]
            own = sequences.filter(*matches)
        left_out = {step: why for (*run, step), why in (suspects or {}).items() if tuple(run) == key}
        runs.append(_trajectory(rows, own, names, left_out))

    return sorted(
        runs, key=lambda run: (run.suite, run.facts["params_non_embedding"] or 0, run.model, run.seed)
    )
