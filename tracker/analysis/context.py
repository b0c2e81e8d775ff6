"""What else moves around the main transition of a run: covariates, landmarks, layers and heads.

T: checkpoints; B: bins of them; H: heads; L: layers; R: draws.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from tracker.analysis.labels import ENTROPY, SELECTIVITY
from tracker.analysis.layers import layer_halves
from tracker.analysis.order import COVARIATES, lags_of
from tracker.analysis.phase_report import RunFindings
from tracker.analysis.schema import ChangeContext, HeadContributions, HeadShare, Landmark, LayerShare
from tracker.analysis.trajectories import Trajectory
from tracker.analysis.transition_types import Move
from tracker.facts import table

HEAD_METRICS = (SELECTIVITY, ENTROPY)
BEST = ("previous_token_score", "prefix_matching_score")
"""Scores of single heads: a mean over all would hide the few that have it."""
HEAD_COLUMNS = ["suite", "model", "seed", "step", "layer", "head", *HEAD_METRICS, *BEST]
"""Columns of the table of heads that are read."""
TOP = 5
"""Heads that are named."""


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


def best_heads(maps: HeadMaps) -> dict[str, np.ndarray]:
    """Return the best head's score at every checkpoint, (T,), for each of BEST that is measured."""
    found = {name: maps.values[name] for name in BEST if name in maps.values}
    return {name: values.max(axis=1) for name, values in found.items() if np.isfinite(values).all()}


def context_of(found: RunFindings, maps: HeadMaps) -> ChangeContext | None:
    """Describe what else moves around the main transition of a run; None where it has none.

    Args:
        found: what the run shows.
        maps: its heads, at all its steps.
    """
    main = found.transitions.structure.main
    if main is None:
        return None
    run, curves = found.run, found.transitions.curves
    reach = (main.onset.interval[0], main.end.interval[1])
    return ChangeContext(
        run.suite,
        run.model,
        run.seed,
        main.half.step_low,
        main.half.step_high,
        covariates=lags_of(main, {name: curves[name] for name in COVARIATES if name in curves}),
        landmarks=landmarks_at(run, reach),
        contributions={
            name: head_contributions(run.steps, main, maps.values[name], maps.layers, maps.heads)
            for name in HEAD_METRICS
            if name in maps.values
        },
    )


def head_maps(heads: pl.DataFrame | None, run: Trajectory) -> HeadMaps:
    """Gather the run's heads at all its steps; empty where they are not there as a whole."""
    steps = run.steps
    if heads is None or not heads.height or not len(steps):
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
        for name in (*HEAD_METRICS, *BEST)
        if name in mine.columns
    }
    return HeadMaps(layers, numbers, values)


def head_contributions(
    steps: np.ndarray, main: Move, values_TH: np.ndarray, layers_H: np.ndarray, heads_H: np.ndarray
) -> HeadContributions | None:
    """Divide the main move among layers and heads.

    A head's share is its own change from before the onset to after the end, over the sum of all; shares add
    up to one, and a head that moves against the rest has a negative one.

    Args:
        steps: (T,) measured steps.
        main: the move of the joint curve.
        values_TH: (T, H) one metric of every head.
        layers_H: (H,) the layer of each head.
        heads_H: (H,) its number in the layer.

    Returns:
        The largest contributors, how many heads account for half, and every layer's share with its lag to
        the mean over all heads. None where heads are undefined or do not move.
    """
    whole = np.isfinite(values_TH).all(axis=0)
    values_TH, layers_H, heads_H = values_TH[:, whole], layers_H[whole], heads_H[whole]
    first, last = main.onset.step_low, main.end.step_high
    before, after = steps <= first, steps >= last
    if values_TH.shape[1] < 2 or not before.any() or not after.any():
        return None
    moved = values_TH[_nearest(after, 0)] - values_TH[_nearest(before, -1)]
    if abs(moved.sum()) <= 1e-12:
        return None
    shares = moved / moved.sum()
    ranked = np.argsort(-shares)
    reached = np.cumsum(shares[ranked]) >= 0.5
    around = (steps >= first) & (steps <= last)
    lags = layer_halves(steps[around], values_TH[around], layers_H)
    return HeadContributions(
        heads=tuple(HeadShare(int(layers_H[h]), int(heads_H[h]), float(shares[h])) for h in ranked[:TOP]),
        half_by=int(np.argmax(reached)) + 1,
        of=len(shares),
        layers=tuple(
            LayerShare(int(layer), float(shares[layers_H == layer].sum()), *lags[layer])
            for layer in np.unique(layers_H)
        ),
    )


def _nearest(side: np.ndarray, at: int) -> int:
    """The checkpoint of one side that is next to the move."""
    return int(np.flatnonzero(side)[at])


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
