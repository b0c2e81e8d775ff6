"""Head maps and mean spectra over training, in eight bits."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tracker.metrics.registry import is_custom
from tracker.store import Results
from tracker.views.encode import pack, quantise, rounded
from tracker.views.runs import RUN, Run

MAP_METRICS = (
    "spectral_entropy", "frequency_selectivity", "band_power_low", "previous_token_score",
    "prefix_matching_score", "positional_entropy", "averaged_scale_sensitivity_0.5", "band_power_high",
)  # fmt: skip
"""Metrics whose value of every head travels in the page, in order of importance."""
BYTE_BUDGET = 7_500_000
"""Bytes of packed maps that a page of at most 15 MB has room for beside everything else; metrics beyond
it stay in the store alone."""
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
        (T, layers, heads)}, "spectrum": packed (T, layers, 16) or None, "energy": packed (T, layers,
        scales) or None, "scales"}}.
    """
    chosen = map_metrics(runs)
    frame = results.heads([*RUN, "step", "layer", "head", "spectrum", "wavelet_energy", *chosen])
    parts = frame.partition_by(RUN, as_dict=True)
    places = {
        run.key: Places.of(run, parts[run.suite, run.model, run.seed])
        for run in runs if (run.suite, run.model, run.seed) in parts
    }  # fmt: skip
    packed: dict[str, dict[str, Any]] = {
        key: {"layers": each.shape[1], "heads": each.shape[2], "metrics": {}} | packed_shares(each)
        for key, each in places.items()
    }
    scales: dict[str, dict[str, Any]] = {}
    left_out, used = [], 0
    for name in chosen:
        if frame[name].null_count() == frame.height:
            continue
        scale = scale_of(frame[name])
        texts = {key: pack_map(each, name, scale) for key, each in places.items()}
        size = sum(map(len, texts.values()))
        if scales and used + size > BYTE_BUDGET:
            left_out.append(name)
            continue
        used += size
        scales[name] = scale
        for key, text in texts.items():
            packed[key]["metrics"][name] = text
    return {"scales": scales, "left_out": left_out, "runs": packed}


def map_metrics(runs: list[Run]) -> list[str]:
    """Metrics whose maps travel in the page: the main ones, and those of users' own that are measured."""
    custom = dict.fromkeys(name for run in runs for name in run.series if is_custom(name))
    return [*MAP_METRICS, *(name for name in custom if not name.startswith("averaged_"))]


def head_shapes(runs: list[Run]) -> dict[str, Any]:
    """``head_maps`` without maps and spectra: the layers and heads of each run alone."""
    nothing: dict[str, Any] = {"metrics": {}, "spectrum": None, "energy": None, "scales": 0}
    shapes = {
        run.key: {"layers": layers, "heads": heads} | nothing
        for run in runs if (layers := run.facts["n_layers"]) and (heads := run.facts["n_heads"])
    }  # fmt: skip
    return {"scales": {}, "left_out": [], "runs": shapes}


@dataclass(frozen=True)
class Places:
    """The heads of one run's checkpoints, and where each row stands among step, layer and head."""

    rows: pl.DataFrame
    index: tuple[np.ndarray, np.ndarray, np.ndarray]
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, run: Run, heads: pl.DataFrame) -> "Places":
        """``heads`` of one run as the run's steps order them."""
        rows = heads.filter(pl.col("step").is_in(run.steps.tolist()))
        layer, head = rows["layer"].to_numpy(), rows["head"].to_numpy()
        index = (np.searchsorted(run.steps, rows["step"].to_numpy()), layer, head)
        return cls(rows, index, (len(run.steps), int(layer.max()) + 1, int(head.max()) + 1))


def scale_of(column: pl.Series) -> dict[str, Any]:
    """The linear scale of a metric's codes: its low and high end, and whether values lie beyond them.

    Args:
        column: every value of the metric that is to be drawn on this scale; at least one is no null.
    """
    values = column.drop_nulls().to_numpy()
    low, high = np.quantile(values, [OUTER, 1 - OUTER])
    # One digit more than the page shows, outward, so that rounding clips nothing by itself.
    low, high = rounded(low - 1e-5 * abs(low), 5) or 0.0, rounded(high + 1e-5 * abs(high), 5) or 0.0
    return {"low": low, "high": high, "clipped": bool(values.min() < low or values.max() > high)}


def pack_map(places: Places, name: str, scale: dict[str, Any]) -> str:
    """One metric of every head of a run, packed (T, layers, heads) in codes of ``scale``."""
    values = np.full(places.shape, np.nan)
    values[places.index] = places.rows[name].fill_null(float("nan")).to_numpy()
    return pack(quantise(values, scale["low"], scale["high"]))


def packed_shares(places: Places) -> dict[str, Any]:
    """``spectrum`` and ``energy`` of a run, packed, and how many ``scales`` the latter has."""
    spectrum, _ = pack_shares(places, "spectrum")
    energy, scales = pack_shares(places, "wavelet_energy")
    return {"spectrum": spectrum, "energy": energy, "scales": scales}


def pack_shares(places: Places, name: str) -> tuple[str | None, int]:
    """log10 of shares, mean over a layer's heads, packed (T, layers, parts), and the parts; None without any.

    Args:
        places: of one run.
        name: ``spectrum`` or ``wavelet_energy``.
    """
    there = places.rows[name].is_not_null().to_numpy()
    if not there.any():
        return None, 0
    shares = places.rows[name].drop_nulls()
    parts = len(shares[0])
    total = np.zeros((*places.shape[:2], parts))
    step, layer = (each[there] for each in places.index[:2])
    np.add.at(total, (step, layer), shares.explode().to_numpy().reshape(-1, parts))
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithm = np.log10(total / total.sum(axis=2, keepdims=True))
    return pack(quantise(logarithm, SPECTRUM_LOW, SPECTRUM_HIGH)), parts
