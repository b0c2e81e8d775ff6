"""The content of analysis.json: phases, what moves with them, thresholds over size, and controls."""

import math
from itertools import groupby
from typing import Any

import numpy as np
import polars as pl

from tracker.analysis.controls import alarm_rates, twins
from tracker.analysis.encodings import encoding_entries
from tracker.analysis.lead_lag_report import why_entries, why_summary
from tracker.analysis.phase_report import phases_entry, seeds_entry
from tracker.analysis.scale_report import threshold_entries
from tracker.analysis.trajectories import Suspects, Trajectory, single_value, trajectories
from tracker.analysis.wording import control_sentences, summary_of


def _plain(value: Any) -> Any:
    """``value`` in types that JSON has; what is not finite becomes None."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _by_model(runs: list[Trajectory], phases: list[dict]) -> list[dict[str, Any]]:
    pairs = list(zip(runs, phases, strict=True))
    together = []
    for _, members in groupby(pairs, key=lambda pair: (pair[0].suite, pair[0].model)):
        measured = [(run, entry) for run, entry in members if len(run.steps)]
        if len(measured) > 1:
            together.append(seeds_entry([run for run, _ in measured], [entry for _, entry in measured]))
    return together


def encodings_of(checkpoints: pl.DataFrame) -> dict[tuple[str, str], str]:
    """(suite, model) -> position encoding, of measured checkpoints."""
    if "position_encoding" not in checkpoints.columns:
        return {}
    told = checkpoints.drop_nulls("position_encoding").unique(["suite", "model"], keep="first")
    return {
        (suite, model): name
        for suite, model, name in told.select("suite", "model", "position_encoding").iter_rows()
    }


def analyse_phases(
    checkpoints: pl.DataFrame, sequences: pl.DataFrame | None = None, suspects: Suspects | None = None
) -> list[tuple[Trajectory, dict[str, Any]]]:
    """Every run with its entry among the ``phases`` of ``analyse``, and nothing else worked out.

    Args:
        checkpoints, sequences, suspects: as ``analyse``.
    """
    return [(run, _plain(phases_entry(run))) for run in trajectories(checkpoints, sequences, suspects)]


def analyse(
    checkpoints: pl.DataFrame,
    sequences: pl.DataFrame | None = None,
    heads: pl.DataFrame | None = None,
    *,
    suspects: Suspects | None = None,
) -> dict:
    """Phases per model and seed, what moves with each change, thresholds over size, and controls.

    Args:
        checkpoints: the store's checkpoint table (one probe, one set of conventions), holes included.
        sequences: its table of sequences; without it nothing has a confidence.
        heads: its table of heads; without it changes are not told by layer and head.
        suspects: measured checkpoints that are left out of every fit, and why; listed in ``left_out``.

    Returns:
        The content of ``analysis.json`` in plain types without NaN: probe, conventions, phases, seeds,
        lead_lag, thresholds, encodings, controls, summary.

    Raises:
        StoreError: several probes or conventions are mixed, or a checkpoint is there twice.
    """
    runs = trajectories(checkpoints, sequences, suspects)
    phases = [phases_entry(run) for run in runs]
    thresholds: list[dict[str, Any]] = []
    encodings = encoding_entries(runs, encodings_of(checkpoints), phases)
    variants = {(each["suite"], one["model"]) for each in encodings for one in each["models"][1:]}
    for suite, members in groupby(runs, key=lambda run: run.suite):
        # Of models of one size that differ in their encoding, only the reference stands for the size.
        own = [run for run in members if (run.suite, run.model) not in variants]
        thresholds += threshold_entries(suite, own)
    seeds = _by_model(runs, phases)
    why = why_entries(runs, phases, heads)
    controls = {"twins": twins(runs), "false_alarms": alarm_rates(runs, phases)}
    result = {
        "probe": single_value(checkpoints, "probe"),
        "conventions": single_value(checkpoints, "conventions"),
        "phases": phases,
        "seeds": seeds,
        "lead_lag": why,
        "thresholds": thresholds,
        "encodings": encodings,
        "controls": controls,
        "summary": [
            *summary_of(phases, thresholds, seeds),
            *(sentence for each in encodings for sentence in each["sentences"]),
            *why_summary(why),
            *control_sentences(controls),
        ],
    }
    return _plain(result)
