"""The numbers behind each figure, as tables: what is drawn is what stands in the CSV."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from tracker.analysis.axes import size_on
from tracker.store import SPECTRUM_BANDS, Results
from tracker.views.runs import Run, common_steps, records_of

PANELS = ("spectral_entropy", "frequency_selectivity", "band_power_low")
FOURTH = ("loss", "prefix_matching_score", "previous_token_score")
"""The fourth panel shows the first of these that was measured."""

TEXTS = ("suite", "model", "metric", "state", "why", "covariate", "verdict")
WHOLE = ("seed", "step", "step_low", "step_high", "lag", "lag_low", "lag_high", "bracket_low", "bracket_high")
"""Columns that are no measured numbers."""


def panel_metrics(runs: list[Run]) -> list[str]:
    """The metrics of the phase figure that at least one run has."""
    present = {name for run in runs for name in run.series}
    return [name for name in PANELS if name in present] + [name for name in FOURTH if name in present][:1]


def phase_table(runs: list[Run]) -> pl.DataFrame:
    """suite, model, seed, step, metric, mean, low, high (95 % over sequences), q25, q75 (over heads)."""
    rows = [
        (run.suite, run.model, run.seed, int(step), name, *values)
        for run in runs for name in panel_metrics(runs) if (series := run.series.get(name)) is not None
        for step, *values in zip(run.steps, series.mean, series.mean - series.half, series.mean + series.half,
                                 series.q25, series.q75, strict=True)
    ]  # fmt: skip
    names = ["suite", "model", "seed", "step", "metric", "mean", "low", "high", "q25", "q75"]
    return _frame(names, rows)


def scale_table(runs: list[Run], axis: str = "params_non_embedding") -> pl.DataFrame:
    """suite, model, seed, the size, step, metric, mean, low, high, suspect at the last common step.

    Where the runs share no step, each stands with its own last one; the column ``step`` says so.

    Args:
        runs: those of a store.
        axis: what size is measured by; its name is the column's. Models without one are left out.
    """
    shared = common_steps(runs)
    rows: list[tuple[Any, ...]] = []
    for run in runs:
        at = int(np.searchsorted(run.steps, shared[-1])) if shared else len(run.steps) - 1
        size = size_on(run.facts, axis)
        for name in panel_metrics(runs) if size else ():
            if (series := run.series.get(name)) is not None:
                mean, half = series.mean[at], series.half[at]
                rows.append((run.suite, run.model, run.seed, size, int(run.steps[at]), name, mean,
                             mean - half, mean + half, run.suspects[at] is not None))  # fmt: skip
    names = ["suite", "model", "seed", axis, "step", "metric", "mean", "low", "high", "suspect"]
    return _frame(names, rows)


def spectrum_table(results: Results, runs: list[Run]) -> pl.DataFrame:
    """suite, model, seed, step, band_low, band_high (of Nyquist), share: the mean spectrum over all heads."""
    frames = [_mean_spectra(results, run) for run in runs]
    kept = [frame for frame in frames if not frame.is_empty()]
    names = ["suite", "model", "seed", "step", "band_low", "band_high", "share"]
    return pl.concat(kept) if kept else _frame(names, [])


def _mean_spectra(results: Results, run: Run) -> pl.DataFrame:
    heads = records_of(results, run).heads(["step", "spectrum"]).drop_nulls()
    bands = [pl.col("spectrum").list.get(band).alias(str(band)) for band in range(SPECTRUM_BANDS)]
    wide = heads.select("step", *bands).group_by("step").mean()
    means = wide.unpivot(index="step", variable_name="band", value_name="share")
    means = means.with_columns(pl.col("band").cast(pl.Int64)).sort("step", "band")
    low = pl.col("band") / SPECTRUM_BANDS
    return means.select(
        pl.lit(run.suite).alias("suite"), pl.lit(run.model).alias("model"), pl.lit(run.seed).alias("seed"),
        "step", low.alias("band_low"), (low + 1 / SPECTRUM_BANDS).alias("band_high"), "share",
    )  # fmt: skip


def checkpoint_table(runs: list[Run], holes: list[dict[str, Any]]) -> pl.DataFrame:
    """suite, model, seed, step, state (measured, suspect, failed, missing), why: every checkpoint planned."""
    rows: list[tuple[Any, ...]] = [
        (run.suite, run.model, run.seed, int(step), "suspect" if why else "measured", why)
        for run in runs for step, why in zip(run.steps, run.suspects, strict=True)
    ]  # fmt: skip
    rows += [
        tuple(hole[key] for key in ("suite", "model", "seed", "step", "status", "reason")) for hole in holes
    ]
    return _frame(["suite", "model", "seed", "step", "state", "why"], rows).sort(
        "suite", "model", "seed", "step"
    )


def order_table(analysis: Mapping[str, Any] | None) -> pl.DataFrame:
    """One row per change and covariate: verdict, lag in checkpoints, its 90 % interval, the covariate's own
    change (bracket_low, bracket_high]."""
    rows: list[tuple[Any, ...]] = []
    for entry in (analysis or {}).get("lead_lag", []):
        change = [entry[key] for key in ("suite", "model", "seed", "step_low", "step_high")]
        for name, told in entry["covariates"].items():
            low, high = told["interval"] or (None, None)
            first, last = told["bracket"] or (None, None)
            rows.append((*change, name, told["verdict"], told["lag"], low, high, first, last))
    names = ["suite", "model", "seed", "step_low", "step_high", "covariate", "verdict", "lag", "lag_low",
             "lag_high", "bracket_low", "bracket_high"]  # fmt: skip
    return _frame(names, rows)


def head_table(heads: pl.DataFrame, metrics: list[str]) -> pl.DataFrame:
    """layer, head, the metrics and the spectrum's bands of one checkpoint's heads table."""
    spectrum = pl.col("spectrum").list
    bands = [spectrum.get(band, null_on_oob=True).alias(f"band_{band}") for band in range(SPECTRUM_BANDS)]
    there = bands if "spectrum" in heads.columns else []
    return heads.sort("layer", "head").select("layer", "head", *metrics, *there)


def _frame(names: list[str], rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    kinds: dict[str, pl.DataType] = dict.fromkeys(TEXTS, pl.String())
    kinds |= dict.fromkeys(WHOLE, pl.Int64()) | {"suspect": pl.Boolean()}
    schema = {name: kinds.get(name, pl.Float64()) for name in names}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.with_columns(pl.selectors.float().fill_nan(None))
