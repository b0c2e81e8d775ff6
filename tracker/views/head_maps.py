"""Head maps and mean spectra over training, in eight bits."""

from typing import Any

import numpy as np
import polars as pl

from tracker.store import SPECTRUM_BANDS, Results
from tracker.views.encode import pack, quantise, rounded
from tracker.views.runs import RUN, Run

MAP_METRICS = (
    "spectral_entropy", "frequency_selectivity", "band_power_low", "previous_token_score",
    "prefix_matching_score", "positional_entropy", "averaged_scale_sensitivity_0.5", "band_power_high",
)  # fmt: skip
"""Metrics whose value of every head travels in the page, in order of importance."""
CELL_BUDGET = 12_000_000
"""Heads x steps x metrics that fit in a page; beyond it the last metrics stay in the store alone."""
OUTER = 0.0005
"""Share of values beyond each end of a scale: they are drawn at the end, so that one wild head does not
flatten every map."""
SPECTRUM_LOW, SPECTRUM_HIGH = -4.0, 0.0
"""Scale of the spectra: log10 of a band's share of power."""


def head_maps(results: Results, runs: list[Run]) -> dict[str, Any]:
    """Maps of the main metrics and the mean spectrum per layer.

    Args:
        results: the store's tables.
        runs: its runs, which give the steps.

    Returns:
        ``scales``: {metric: {"low", "high", "clipped"}}, one for all runs and steps; ``left_out``:
        metrics that did not fit; ``runs``: {run key: {"layers", "heads", "metrics": {name: packed
        (T, layers, heads)}, "spectrum": packed (T, layers, 16) or None}}.
    """
    metrics, left_out = _within_budget(runs)
    frame = results.heads([*RUN, "step", "layer", "head", "spectrum", *metrics])
    metrics = [name for name in metrics if frame[name].null_count() < frame.height]
    scales = {name: _scale(frame[name]) for name in metrics}
    parts = frame.partition_by(RUN, as_dict=True)
    packed = {
        run.key: _packed(run, parts[run.suite, run.model, run.seed], scales)
        for run in runs if (run.suite, run.model, run.seed) in parts
    }  # fmt: skip
    return {"scales": scales, "left_out": left_out, "runs": packed}


def _within_budget(runs: list[Run]) -> tuple[list[str], list[str]]:
    cells = sum(len(run.steps) * (run.facts["n_layers"] or 0) * (run.facts["n_heads"] or 0) for run in runs)
    fitting = len(MAP_METRICS) if cells == 0 else max(1, CELL_BUDGET // cells)
    return list(MAP_METRICS[:fitting]), list(MAP_METRICS[fitting:])


def _scale(column: pl.Series) -> dict[str, Any]:
    values = column.drop_nulls().to_numpy()
    low, high = np.quantile(values, [OUTER, 1 - OUTER])
    # One digit more than the page shows, outward, so that rounding clips nothing by itself.
    low, high = rounded(low - 1e-5 * abs(low), 5) or 0.0, rounded(high + 1e-5 * abs(high), 5) or 0.0
    return {"low": low, "high": high, "clipped": bool(values.min() < low or values.max() > high)}


def _packed(run: Run, heads: pl.DataFrame, scales: dict[str, dict[str, Any]]) -> dict[str, Any]:
    heads = heads.filter(pl.col("step").is_in(run.steps.tolist()))
    layer, head = heads["layer"].to_numpy(), heads["head"].to_numpy()
    place = (np.searchsorted(run.steps, heads["step"].to_numpy()), layer, head)
    shape = (len(run.steps), int(layer.max()) + 1, int(head.max()) + 1)
    metrics = {}
    for name, scale in scales.items():
        values = np.full(shape, np.nan)
        values[place] = heads[name].fill_null(float("nan")).to_numpy()
        metrics[name] = pack(quantise(values, scale["low"], scale["high"]))
    spectrum = _spectrum(heads, place, shape)
    return {"layers": shape[1], "heads": shape[2], "metrics": metrics, "spectrum": spectrum}


def _spectrum(heads: pl.DataFrame, place: tuple[np.ndarray, ...], shape: tuple[int, ...]) -> str | None:
    there = heads["spectrum"].is_not_null().to_numpy()
    if not there.any():
        return None
    bands = heads["spectrum"].drop_nulls().explode().to_numpy().reshape(-1, SPECTRUM_BANDS)
    total = np.zeros((*shape[:2], SPECTRUM_BANDS))
    np.add.at(total, (place[0][there], place[1][there]), bands)
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithm = np.log10(total / total.sum(axis=2, keepdims=True))
    return pack(quantise(logarithm, SPECTRUM_LOW, SPECTRUM_HIGH))
