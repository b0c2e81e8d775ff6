"""The lead/lag table of analysis.json: covariates, landmarks, layers and heads around each change.

T: checkpoints; H: heads.
"""

import re
from collections import Counter
from typing import Any

import numpy as np
import polars as pl

from tracker.analysis.head_contributions import carriers
from tracker.analysis.labels import ENTROPY, SELECTIVITY
from tracker.analysis.lead_lag import COVARIATES, covariate_lags, windows
from tracker.analysis.phase_report import phase_curves, reach
from tracker.analysis.trajectories import Trajectory
from tracker.analysis.words import titled
from tracker.errors import counted
from tracker.facts import table

Entry = dict[str, Any]
HEAD_METRICS = (SELECTIVITY, ENTROPY)
POOLED = "prefix_matching_score"
"""Exists per head and not per sequence: its interval is over heads."""
HEAD_COLUMNS = ["suite", "model", "seed", "step", "layer", "head", *HEAD_METRICS, POOLED]
"""Columns of the table of heads that are read."""
SEPARATE = ("before", "with", "after")


def why_entries(runs: list[Trajectory], phases: list[Entry], heads: pl.DataFrame | None) -> list[Entry]:
    """One entry per change of every run.

    Args:
        runs: the trajectories.
        phases: their entries, in the same order.
        heads: the table of heads with ``HEAD_COLUMNS``, or None.
    """
    found = []
    for run, entry in zip(runs, phases, strict=True):
        if not entry["change_points"]:
            continue
        steps = np.array(entry["steps"])
        rows = np.searchsorted(run.steps, steps)
        highs = [point["step_high"] for point in entry["change_points"]]
        maps = _head_maps(heads, run, steps)
        covariates = _covariates(run, rows, maps)
        curves = {name: phase_curves(run)[name][rows] for name in entry["metrics"]}
        lags = covariate_lags(steps, highs, curves, covariates)
        for point, own, window in zip(entry["change_points"], lags, windows(steps, highs), strict=True):
            carried = {
                name: carriers(window, values, maps["layer"], maps["head"])
                for name, values in maps.items()
                if name in HEAD_METRICS
            }
            found.append(
                {
                    "suite": run.suite,
                    "model": run.model,
                    "seed": run.seed,
                    "step_low": point["step_low"],
                    "step_high": point["step_high"],
                    "covariates": own,
                    "landmarks": landmarks_at(run, reach(point)),
                    "carriers": carried,
                }
            )
    return found


def _covariates(run: Trajectory, rows: np.ndarray, maps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Covariates at ``rows``: per sequence, else per head, else means."""
    curves = {}
    for name in COVARIATES:
        if name in run.samples:
            curves[name] = run.samples[name][rows]
        elif name == POOLED and POOLED in maps and np.all(np.isfinite(maps[POOLED])):
            curves[name] = maps[POOLED]
        elif name in run.metrics:
            curves[name] = run.metrics[name][rows]
    return curves


def _head_maps(heads: pl.DataFrame | None, run: Trajectory, steps: np.ndarray) -> dict[str, np.ndarray]:
    """(T, H) per metric, with the layer and number of each head; empty where heads are not given whole."""
    if heads is None or not heads.height:
        return {}
    mine = heads.filter(
        pl.col("suite") == run.suite,
        pl.col("model") == run.model,
        pl.col("seed") == run.seed,
        pl.col("step").is_in(steps.tolist()),
    ).sort("step", "layer", "head")
    if not mine.height or mine.height % len(steps) or mine["step"].n_unique() != len(steps):
        return {}
    shape = (len(steps), mine.height // len(steps))
    maps = {
        name: mine[name].cast(pl.Float64).fill_null(float("nan")).to_numpy().reshape(shape)
        for name in (*HEAD_METRICS, POOLED)
        if name in mine.columns
    }
    return maps | {name: mine[name].to_numpy().reshape(shape)[0] for name in ("layer", "head")}


def landmarks_at(run: Trajectory, interval: tuple[int, int]) -> list[Entry]:
    """Published landmarks of the run's suite that may lie within the change's interval.

    Args:
        run: whose suite and model the landmark must be about.
        interval: (low, high] in steps.
    """
    if "pythia" not in run.suite:
        return []
    facts = table("landmarks").filter(pl.col("step_low") <= interval[1], pl.col("step_high") > interval[0])
    return [
        {"name": name, "step_low": low, "step_high": high, "source": source}
        for name, models, low, high, source in facts.iter_rows()
        if _about(str(models), run.model)
    ]


def _about(models: str, model: str) -> bool:
    """Whether a landmark's ``models`` (``pythia 6.9b``, ``14m-410m``, ``all``) name ``model``."""
    named = models.removeprefix("pythia ")
    sizes = table("pythia_suite")["size"].to_list()
    if named == "all" or not models.startswith("pythia"):
        return True
    ends = re.split("-", named)
    if model not in sizes or any(end not in sizes for end in ends):
        return model == named
    return sizes.index(ends[0]) <= sizes.index(model) <= sizes.index(ends[-1])


def why_summary(entries: list[Entry]) -> list[str]:
    """Per covariate of each suite: before, with or after, counted over the changes of all runs."""
    sentences = []
    for suite in dict.fromkeys(entry["suite"] for entry in entries):
        mine = [entry for entry in entries if entry["suite"] == suite]
        runs = len({(entry["model"], entry["seed"]) for entry in mine})
        parts = []
        for name in COVARIATES:
            counts = Counter(
                entry["covariates"][name]["verdict"] for entry in mine if name in entry["covariates"]
            )
            told = [f"{counts[word]} {word}" for word in (*SEPARATE, "still", "cannot tell") if counts[word]]
            if told:
                parts.append(f"{titled(name)} {', '.join(told)}")
        if parts:
            changes, where = counted(len(mine), "change"), counted(runs, "run")
            sentences.append(
                f"{suite}, {changes} in {where}, what moves before, with or after (still: no change of "
                f"its own there): {'; '.join(parts)}. The order in time is no proof of a cause."
            )
        sentences += _carried(suite, mine)
    return sentences


def _carried(suite: str, entries: list[Entry]) -> list[str]:
    shares = [
        each["half_by"] / each["of"]
        for entry in entries
        if (each := entry["carriers"].get(SELECTIVITY)) is not None
    ]
    if not shares:
        return []
    low, high = min(shares), max(shares)
    return [
        f"{suite}: half of a change of frequency selectivity is made up by {low:.0%} to {high:.0%} of the "
        "heads (an even change: 50%)."
    ]
