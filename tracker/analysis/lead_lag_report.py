"""What else moves around each change: covariates, landmarks, layers and heads, for analysis.json.

T: checkpoints; n: those of the two phases around a change; H: heads; L: layers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from tracker.analysis.intervals import resampled_means
from tracker.analysis.labels import ENTROPY, SELECTIVITY
from tracker.analysis.lead_lag import (
    COVARIATES,
    Window,
    covariate_lags,
    lag_interval,
    order_of,
    places_in,
    windows,
)
from tracker.analysis.phase_report import phase_curves
from tracker.analysis.schema import (
    ChangeContext,
    HeadContributions,
    HeadShare,
    Landmark,
    LayerShare,
    RunPhases,
)
from tracker.analysis.trajectories import Trajectory
from tracker.facts import table

HEAD_METRICS = (SELECTIVITY, ENTROPY)
POOLED = "prefix_matching_score"
"""Exists per head and not per sequence: its interval is over heads."""
HEAD_COLUMNS = ["suite", "model", "seed", "step", "layer", "head", *HEAD_METRICS, POOLED]
"""Columns of the table of heads that are read."""
TOP = 5
"""Heads that are named."""
RESAMPLES = 100
"""Draws over a layer's heads."""


@dataclass(frozen=True)
class HeadMaps:
    """Metrics of every head of a run."""

    layers: np.ndarray
    """(H,) the layer of each head."""
    heads: np.ndarray
    """(H,) its number in the layer."""
    values: Mapping[str, np.ndarray]
    """Metric -> (T, H)."""


NO_MAPS = HeadMaps(np.array([]), np.array([]), {})


def change_contexts(
    runs: Sequence[Trajectory], phases: Sequence[RunPhases], heads: pl.DataFrame | None
) -> list[ChangeContext]:
    """Describe what else moves around every change of every run.

    Args:
        runs: the trajectories.
        phases: their entries, in the same order.
        heads: the table of heads with ``HEAD_COLUMNS``, or None.
    """
    pairs = zip(runs, phases, strict=True)
    return [each for run, entry in pairs if entry.change_points for each in _contexts(run, entry, heads)]


def _contexts(run: Trajectory, entry: RunPhases, heads: pl.DataFrame | None) -> list[ChangeContext]:
    steps = np.array(entry.steps)
    rows = np.searchsorted(run.steps, steps)
    highs = [point.step_high for point in entry.change_points]
    maps = _head_maps(heads, run, steps)
    all_curves = phase_curves(run)
    curves = {name: all_curves[name][rows] for name in entry.metrics}
    lags = covariate_lags(steps, highs, curves, _covariates(run, rows, maps))
    return [
        ChangeContext(
            run.suite,
            run.model,
            run.seed,
            point.step_low,
            point.step_high,
            covariates=own,
            landmarks=landmarks_at(run, point.reach),
            contributions={
                name: head_contributions(window, maps.values[name], maps.layers, maps.heads)
                for name in HEAD_METRICS
                if name in maps.values
            },
        )
        for point, own, window in zip(entry.change_points, lags, windows(steps, highs), strict=True)
    ]


def _covariates(run: Trajectory, rows: np.ndarray, maps: HeadMaps) -> dict[str, np.ndarray]:
    """Covariates at ``rows``: per sequence, else per head, else means."""
    curves = {}
    for name in COVARIATES:
        if name in run.samples:
            curves[name] = run.samples[name][rows]
        elif name == POOLED and POOLED in maps.values and np.all(np.isfinite(maps.values[POOLED])):
            curves[name] = maps.values[POOLED]
        elif name in run.metrics:
            curves[name] = run.metrics[name][rows]
    return curves


def _head_maps(heads: pl.DataFrame | None, run: Trajectory, steps: np.ndarray) -> HeadMaps:
    """The run's heads at ``steps``; empty where they are not there as a whole."""
    if heads is None or not heads.height:
        return NO_MAPS
    mine = heads.filter(
        pl.col("suite") == run.suite,
        pl.col("model") == run.model,
        pl.col("seed") == run.seed,
        pl.col("step").is_in(steps.tolist()),
    ).sort("step", "layer", "head")
    if not mine.height or mine.height % len(steps) or mine["step"].n_unique() != len(steps):
        return NO_MAPS
    shape = (len(steps), mine.height // len(steps))
    layers, numbers = (mine[name].to_numpy().reshape(shape)[0] for name in ("layer", "head"))
    values = {
        name: mine[name].cast(pl.Float64).fill_null(float("nan")).to_numpy().reshape(shape)
        for name in (*HEAD_METRICS, POOLED)
        if name in mine.columns
    }
    return HeadMaps(layers, numbers, values)


def head_contributions(
    window: Window, values_TH: np.ndarray, layers_H: np.ndarray, heads_H: np.ndarray, seed: int = 0
) -> HeadContributions | None:
    """Divide a change of the mean over heads among layers and heads.

    A head's share is its own move from the phase before to the phase after over the sum of all; shares
    add up to one, and a head that moves against the rest has a negative one.

    Args:
        window: the two phases around the change.
        values_TH: (T, H) one metric of every head.
        layers_H: (H,) the layer of each head.
        heads_H: (H,) its number in the layer.
        seed: of the draws over a layer's heads.

    Returns:
        The largest contributors, how many heads account for half, and every layer's share with its lag to
        the whole model's change. None where heads are undefined in the window or do not move.
    """
    whole = np.isfinite(values_TH[window.part]).all(axis=0)
    part, layers_H, heads_H = values_TH[window.part][:, whole], layers_H[whole], heads_H[whole]
    if part.shape[1] < 2:
        return None
    before, after = part[: window.at - window.first], part[window.at - window.first :]
    moved = after.mean(axis=0) - before.mean(axis=0)
    if abs(moved.sum()) <= 1e-12:
        return None
    shares = moved / moved.sum()
    ranked = np.argsort(-shares)
    reached = np.cumsum(shares[ranked]) >= 0.5
    return HeadContributions(
        heads=tuple(HeadShare(int(layers_H[h]), int(heads_H[h]), float(shares[h])) for h in ranked[:TOP]),
        half_by=int(np.argmax(reached)) + 1,
        of=len(shares),
        layers=tuple(
            _layer_share(window, part, layers_H == layer, int(layer), float(shares[layers_H == layer].sum()),
                         seed)
            for layer in np.unique(layers_H)
        ),
    )  # fmt: skip


def _layer_share(
    window: Window, part_nH: np.ndarray, mine_H: np.ndarray, layer: int, share: float, seed: int
) -> LayerShare:
    own = int(places_in(window, part_nH[:, mine_H].mean(axis=1)[None, :, None])[0])
    whole = int(places_in(window, part_nH.mean(axis=1)[None, :, None])[0])
    lag = own - whole
    if mine_H.sum() < 2:
        return LayerShare(layer, share, lag, None, order_of(lag, lag))
    drawn = resampled_means([part_nH[:, mine_H]], RESAMPLES, seed)
    interval = lag_interval(places_in(window, drawn) - whole, lag)
    return LayerShare(layer, share, lag, interval, order_of(*interval))


def landmarks_at(run: Trajectory, interval: tuple[int, int]) -> tuple[Landmark, ...]:
    """Return the published landmarks of the run's suite that may lie within a change's interval.

    Args:
        run: whose suite and model the landmark must be about.
        interval: (low, high] in steps.
    """
    if "pythia" not in run.suite:
        return ()
    facts = table("landmarks").filter(pl.col("step_low") <= interval[1], pl.col("step_high") > interval[0])
    return tuple(
        Landmark(name, low, high, source)
        for name, models, low, high, source in facts.iter_rows()
        if _about(str(models), run.model)
    )


def _about(models: str, model: str) -> bool:
    """Whether a landmark's ``models`` (``pythia 6.9b``, ``14m-410m``, ``all``) name ``model``."""
    named = models.removeprefix("pythia ")
    sizes = table("pythia_suite")["size"].to_list()
    if named == "all" or not models.startswith("pythia"):
        return True
    ends = named.split("-")
    if model not in sizes or any(end not in sizes for end in ends):
        return model == named
    return sizes.index(ends[0]) <= sizes.index(model) <= sizes.index(ends[-1])
