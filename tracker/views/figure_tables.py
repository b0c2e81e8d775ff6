"""The numbers behind each figure, as tables: what is drawn is what stands in the CSV."""

from typing import Any

import numpy as np
import polars as pl

from tracker.store import SPECTRUM_BANDS
from tracker.views.runs import Run, common_steps

PANELS = ("spectral_entropy", "frequency_selectivity", "band_power_low")
FOURTH = ("loss", "prefix_matching_score", "previous_token_score")
"""The fourth panel shows the first of these that was measured."""


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


def scale_table(runs: list[Run]) -> pl.DataFrame:
    """suite, model, seed, params_non_embedding, step, metric, mean, low, high at the last common step.

    Where the runs share no step, each stands with its own last one; the column ``step`` says so.
    """
    shared = common_steps(runs)
    rows: list[tuple[Any, ...]] = []
    for run in runs:
        at = int(np.searchsorted(run.steps, shared[-1])) if shared else len(run.steps) - 1
        for name in panel_metrics(runs):
            if (series := run.series.get(name)) is not None and run.facts["params_non_embedding"]:
                mean, half = series.mean[at], series.half[at]
                rows.append((run.suite, run.model, run.seed, run.facts["params_non_embedding"],
                             int(run.steps[at]), name, mean, mean - half, mean + half))  # fmt: skip
    names = ["suite", "model", "seed", "params_non_embedding", "step", "metric", "mean", "low", "high"]
    return _frame(names, rows)


def head_table(heads: pl.DataFrame, metrics: list[str]) -> pl.DataFrame:
    """layer, head, the metrics and the spectrum's bands of one checkpoint's heads table."""
    spectrum = pl.col("spectrum").list
    bands = [spectrum.get(band, null_on_oob=True).alias(f"band_{band}") for band in range(SPECTRUM_BANDS)]
    there = bands if "spectrum" in heads.columns else []
    return heads.sort("layer", "head").select("layer", "head", *metrics, *there)


def _frame(names: list[str], rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    kinds: dict[str, pl.DataType] = dict.fromkeys(("suite", "model", "metric"), pl.String())
    kinds |= dict.fromkeys(("seed", "step", "params_non_embedding"), pl.Int64())
    schema = {name: kinds.get(name, pl.Float64()) for name in names}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.with_columns(pl.selectors.float().fill_nan(None))
