"""Runs: the trajectories of one model and seed over training, as arrays that page and figures draw."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from tracker.checkpoints.audit.file import Suspects
from tracker.checkpoints.audit.file import suspects as suspects_of
from tracker.metrics.registry import checkpoint_columns, registry_of, sequence_columns
from tracker.store import Results, safe_name

RUN = ["suite", "model", "seed"]
FACTS = [
    "params_non_embedding", "params_total", "d_model", "n_layers", "n_heads", "d_head", "rotary_dims",
    "position_encoding", "causal", "dtype", "device", "n_sequences", "n_tokens", "token_digest",
    "tracker_version", "repo", "probe", "conventions",
]  # fmt: skip
NORMAL_95 = 1.96


@dataclass(frozen=True)
class Series:
    """One metric over the steps of a run, each array (T,), NaN where it does not exist."""

    mean: np.ndarray
    half: np.ndarray
    """Half width of the 95 % interval over sequences: 1.96 sd / sqrt(S)."""
    q25: np.ndarray
    """Quartiles over the heads (over layers, or sequences, where the metric has no heads)."""
    q75: np.ndarray


@dataclass(frozen=True)
class Run:
    """One model and seed: its measured checkpoints in step order, and what is known of the model."""

    suite: str
    model: str
    seed: int
    steps: np.ndarray
    tokens: np.ndarray
    """Tokens seen at each step, NaN where unknown."""
    commits: list[str | None]
    facts: dict[str, Any]
    series: dict[str, Series]
    suspects: list[str | None]
    """Per step why its weights may not match its name; None where nothing speaks against it."""
    label: str = ""
    rank: int = 0
    """Place of the model among the models of the store, by size."""
    order: int = 0
    """Place of the seed among the seeds of its model."""

    @property
    def name(self) -> tuple[str, str, int]:
        """Suite, model and seed."""
        return self.suite, self.model, self.seed

    @property
    def key(self) -> str:
        """How links name it."""
        return f"{self.suite}/{self.model}/{self.seed}"

    @property
    def suspected(self) -> np.ndarray:
        """(T,) whether each checkpoint is suspect."""
        return np.array([why is not None for why in self.suspects], dtype=bool)


def runs_of(results: Results, checkpoints: pl.DataFrame | None = None) -> list[Run]:
    """Read every run of a store that has at least one measured checkpoint, smallest model first.

    Args:
        results: an opened store.
        checkpoints: its table of checkpoints, where it is read already.
    """
    checkpoints = results.checkpoints() if checkpoints is None else checkpoints
    checkpoints = checkpoints.filter(pl.col("status") == "ok").sort([*RUN, "step"])
    halves, suspects = _half_widths(results), suspects_of(results.folder)
    parts = checkpoints.partition_by(RUN, as_dict=True)
    runs = [_run(key, frame, halves.get(key), suspects) for key, frame in parts.items()]
    runs.sort(key=lambda run: (run.suite, run.facts["params_non_embedding"] or 0, run.model, run.seed))
    return _named(runs)


def _half_widths(results: Results) -> dict[tuple[Any, ...], pl.DataFrame]:
    frame = results.sequences()
    columns = [name for name in sequence_columns(results.registry) if name in frame.columns]
    spread = [
        pl.when(pl.col(name).count() > 1).then(NORMAL_95 * pl.col(name).std() / pl.col(name).count().sqrt())
        .alias(name) for name in columns
    ]  # fmt: skip
    return frame.group_by([*RUN, "step"]).agg(spread).sort("step").partition_by(RUN, as_dict=True)


def _run(key: tuple[Any, ...], frame: pl.DataFrame, halves: pl.DataFrame | None, suspects: Suspects) -> Run:
    steps = frame["step"].to_numpy()
    series: dict[str, Series] = {}
    if halves is not None:
        halves = frame.select("step").join(halves, on="step", how="left", maintain_order="left")
    absent = np.full(len(steps), np.nan)
    for name in checkpoint_columns(registry_of(frame.columns)):
        if name not in frame.columns or frame[name].null_count() == len(steps):
            continue
        half = _array(halves[name]) if halves is not None and name in halves.columns else absent
        series[name] = Series(
            _array(frame[name]), half, _array(frame[f"{name}_q25"]), _array(frame[f"{name}_q75"])
        )
    facts = {name: frame[name][-1] for name in FACTS}
    facts |= {"seconds": frame["seconds"].sum(), "peak_bytes": frame["peak_bytes"].max(),
              "undefined_rows": frame["undefined_rows"].sum()}  # fmt: skip
    tokens, commits = _array(frame["tokens_seen"]), frame["commit"].to_list()
    reasons = [suspects.why(*each) for each in frame.select("repo", "revision", "commit").iter_rows()]
    suite, model, seed = key
    return Run(suite, model, seed, steps, tokens, commits, facts, series, reasons)


def _array(column: pl.Series) -> np.ndarray:
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _named(runs: list[Run]) -> list[Run]:
    several_suites = len({run.suite for run in runs}) > 1
    seeds: dict[tuple[str, str], list[int]] = {}
    sizes: dict[tuple[str, str], float] = {}
    for run in runs:
        model = run.name[:2]
        seeds.setdefault(model, []).append(run.seed)
        sizes[model] = max(sizes.get(model, 0), run.facts["params_non_embedding"] or 0)
    ranks = sorted(seeds, key=lambda model: (sizes[model], model))
    named = []
    for run in runs:
        model = run.name[:2]
        label = f"{run.suite} {run.model}" if several_suites else run.model
        if len(seeds[model]) > 1:
            label += f" seed {run.seed}"
        order = seeds[model].index(run.seed)
        named.append(replace(run, label=label, rank=ranks.index(model), order=order))
    return named


def records_of(results: Results, run: Run) -> Results:
    """Select the records of one run."""
    below = results.folder / "checkpoints" / safe_name(run.suite) / safe_name(run.model) / f"seed-{run.seed}"
    return Results(results.folder, tuple(place for place in results.records if place.parent == below))


def common_steps(runs: Sequence[Run]) -> list[int]:
    """Return the steps that every run has measured, ascending."""
    shared = set.intersection(*({int(step) for step in run.steps} for run in runs)) if runs else set()
    return sorted(shared)


def model_names(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Return (suite, model) of every model, smallest first."""
    return [name for _, name in sorted({(run.rank, (run.suite, run.model)) for run in runs})]


def holes_of(results: Results, checkpoints: pl.DataFrame | None = None) -> list[dict[str, Any]]:
    """List checkpoints that failed, do not exist or are damaged: suite, model, seed, step, status, reason.

    Args:
        results: an opened store.
        checkpoints: its table of checkpoints, where it is read already.
    """
    names = [*RUN, "step", "status", "reason"]
    frame = results.checkpoints(names) if checkpoints is None else checkpoints.select(names)
    holes = [
        *frame.filter(pl.col("status") != "ok").to_dicts(),
        *(each.as_hole() for each in results.damaged),
    ]
    return sorted(holes, key=lambda hole: tuple(hole[name] for name in (*RUN, "step")))
