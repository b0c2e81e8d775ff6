"""Head maps and mean spectra over training, in eight bits."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tracker.metrics.registry import is_custom
from tracker.store import Results
from tracker.views.encode import pack, quantise, rounded
from tracker.views.runs import Run, records_of

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
    """Pack the maps of the main metrics and the mean spectrum per layer.

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
    packed: dict[str, dict[str, Any]] = {}
    values: dict[str, dict[str, np.ndarray]] = {name: {} for name in chosen}
    for run in runs:  # one after the other: the heads of a whole suite take hundreds of megabytes
        frame = records_of(results, run).heads(
            ["step", "layer", "head", "spectrum", "wavelet_energy", *chosen]
        )
        if frame.height:
            heads = HeadRows.of(run, frame)
            packed[run.key] = _packed_shares(heads)
            for name in chosen:
                values[name][run.key] = heads.values(name).astype(np.float32)
    scales: dict[str, dict[str, Any]] = {}
    left_out, used = [], 0
    for name, maps in values.items():
        found = [values[np.isfinite(values)] for values in maps.values()]
        if not sum(map(len, found)):
            continue
        scale = scale_of(np.concatenate(found))
        texts = {key: pack(quantise(each, scale["low"], scale["high"])) for key, each in maps.items()}
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
    """Metrics whose maps travel in the page: the main ones, and custom ones that are measured."""
    custom = dict.fromkeys(name for run in runs for name in run.series if is_custom(name))
    return [*MAP_METRICS, *(name for name in custom if not name.startswith("averaged_"))]


def head_shapes(runs: list[Run]) -> dict[str, Any]:
    """Return ``head_maps`` without maps and spectra: the layers and heads of each run alone."""
    nothing: dict[str, Any] = {"metrics": {}, "spectrum": None, "energy": None, "scales": 0}
    shapes = {
        run.key: {"layers": layers, "heads": heads} | nothing
        for run in runs if (layers := run.facts["n_layers"]) and (heads := run.facts["n_heads"])
    }  # fmt: skip
    return {"scales": {}, "left_out": [], "runs": shapes}


@dataclass(frozen=True)
class HeadRows:
    """The heads of one run's checkpoints, and where each row stands among step, layer and head."""

    rows: pl.DataFrame
    index: tuple[np.ndarray, np.ndarray, np.ndarray]
    shape: tuple[int, int, int]
    """(T, layers, heads)"""

    @classmethod
    def of(cls, run: Run, heads: pl.DataFrame) -> "HeadRows":
        """Order the heads of one run as the run's steps are."""
        rows = heads.filter(pl.col("step").is_in(run.steps.tolist()))
        layer, head = rows["layer"].to_numpy(), rows["head"].to_numpy()
        index = (np.searchsorted(run.steps, rows["step"].to_numpy()), layer, head)
        return cls(rows, index, (len(run.steps), int(layer.max()) + 1, int(head.max()) + 1))

    def values(self, metric: str) -> np.ndarray:
        """Return (T, layers, heads): one metric of every head, NaN where it does not exist."""
        values = np.full(self.shape, np.nan)
        values[self.index] = self.rows[metric].fill_null(float("nan")).to_numpy()
        return values

    def layer_means(self, name: str) -> np.ndarray | None:
        """Return (T, layers, parts): mean shares over the heads of each layer; None where no head has any.

        Args:
            name: ``spectrum`` or ``wavelet_energy``.
        """
        there = self.rows[name].is_not_null().to_numpy()
        if not there.any():
            return None
        shares = self.rows[name].drop_nulls()
        parts = len(shares[0])
        total = np.zeros((*self.shape[:2], parts))
        counts = np.zeros((*self.shape[:2], 1))
        step, layer = (each[there] for each in self.index[:2])
        np.add.at(total, (step, layer), shares.explode().to_numpy().reshape(-1, parts))
        np.add.at(counts, (step, layer), 1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return total / counts


def scale_of(values: np.ndarray) -> dict[str, Any]:
    """Choose the linear scale of a metric's codes: its low and high end, and whether values lie beyond them.

    Args:
        values: (N,) every value of the metric that is to be drawn on this scale, none of them NaN; N > 0.
    """
    low, high = np.quantile(values, [OUTER, 1 - OUTER])
    # One digit more than the page shows, outward, so that rounding clips nothing by itself.
    low, high = rounded(low - 1e-5 * abs(low), 5) or 0.0, rounded(high + 1e-5 * abs(high), 5) or 0.0
    return {"low": low, "high": high, "clipped": bool(values.min() < low or values.max() > high)}


def pack_map(heads: HeadRows, name: str, scale: dict[str, Any]) -> str:
    """Pack one metric of every head of a run, (T, layers, heads) in codes of ``scale``."""
    return pack(quantise(heads.values(name), scale["low"], scale["high"]))


def pack_shares(heads: HeadRows, name: str) -> tuple[str | None, int]:
    """Pack log10 of ``layer_means`` (T, layers, parts), and the number of parts; None, 0 without any."""
    means = heads.layer_means(name)
    if means is None:
        return None, 0
    with np.errstate(divide="ignore"):
        return pack(quantise(np.log10(means), SPECTRUM_LOW, SPECTRUM_HIGH)), means.shape[2]


def _packed_shares(heads: HeadRows) -> dict[str, Any]:
    spectrum, _ = pack_shares(heads, "spectrum")
    energy, scales = pack_shares(heads, "wavelet_energy")
    shape = {"layers": heads.shape[1], "heads": heads.shape[2], "metrics": {}}
    return shape | {"spectrum": spectrum, "energy": energy, "scales": scales}
