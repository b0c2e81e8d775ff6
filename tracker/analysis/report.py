"""The whole analysis of a store's tables: phases, what moves with them, thresholds over size, controls."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import polars as pl

from tracker.analysis.context import best_heads, context_of, head_maps
from tracker.analysis.controls import find_twins
from tracker.analysis.encodings import compare_encodings, encodings_of
from tracker.analysis.losses import curve_of, misnamed
from tracker.analysis.phase_report import RunFindings, find_run, seed_changes
from tracker.analysis.scale_report import find_thresholds
from tracker.analysis.scale_timing import find_timing
from tracker.analysis.schema import AnalysisReport, Controls, ThresholdEntry
from tracker.analysis.text.phases import control_sentences, lead_lag_sentences, summary_of
from tracker.analysis.trajectories import Suspects, Trajectory, single_value, trajectories


def analyse(
    checkpoints: pl.DataFrame,
    sequences: pl.DataFrame | None = None,
    heads: pl.DataFrame | None = None,
    *,
    suspects: Suspects | None = None,
) -> AnalysisReport:
    """Find phases per model and seed, what moves with each change, and thresholds over model size.

    Args:
        checkpoints: the store's checkpoint table (one probe, one set of conventions), holes included.
        sequences: its table of sequences; without it nothing has a confidence.
        heads: its table of heads; without it changes are not divided among layers and heads.
        suspects: measured checkpoints that are left out of every fit, and why; listed in ``left_out``.

    Returns:
        AnalysisReport without alerts and roles; ``to_dict()`` gives the content of ``analysis.json``.

    Raises:
        StoreError: several probes or conventions are mixed, or a checkpoint is there twice.

    Example:
        >>> from tracker.analysis.synthetic import SyntheticRun, log_steps, stored_tables, training_curves
        >>> steps = log_steps(16)
        >>> curves = {name: curve[:, None] for name, curve in training_curves(steps).items()}
        >>> tables = stored_tables({("70m", 0): SyntheticRun(steps, curves, ())}, {"70m": 19_000_000})
        >>> [phase.label for phase in analyse(*tables).phases[0].phases]
        ['initial', 'exploratory', 'specialisation']
    """
    runs = trajectories(checkpoints, sequences, suspects)
    found, contexts = [], []
    for run in runs:
        maps = head_maps(heads, run)
        found.append(find_run(run, best_heads(maps)))
        contexts.append(context_of(found[-1], maps))
    phases = [each.phases for each in found]
    seeds = seed_changes(found)
    encodings = compare_encodings(runs, encodings_of(checkpoints), phases)
    variants = {(each.suite, one.model) for each in encodings for one in each.models[1:]}
    # Of models of one size that differ in their encoding, only the reference stands for the size.
    thresholds = _over_size([each for each in found if (each.run.suite, each.run.model) not in variants])
    report = AnalysisReport(
        probe=single_value(checkpoints, "probe"),
        conventions=single_value(checkpoints, "conventions"),
        transitions=tuple(each.transitions for each in found),
        phases=tuple(phases),
        seeds=tuple(seeds),
        lead_lag=tuple(each for each in contexts if each is not None),
        thresholds=tuple(thresholds),
        encodings=tuple(encodings),
        controls=Controls(tuple(find_twins(runs))),
        suspicious=tuple(sentence for run in runs for sentence in _suspicious(run)),
    )
    return replace(report, summary=tuple(_summary(report)))


def _summary(report: AnalysisReport) -> list[str]:
    return [
        *summary_of(report.phases, report.thresholds, report.seeds),
        *(sentence for each in report.encodings for sentence in each.sentences),
        *lead_lag_sentences(report.lead_lag),
        *control_sentences(report.controls),
        *(f"{each}; `tracker audit` marks it, fits then leave it out." for each in report.suspicious),
    ]


def _suspicious(run: Trajectory) -> list[str]:
    losses = run.metrics.get("loss")
    if losses is None:
        return []
    found = misnamed(run.steps.tolist(), losses.tolist(), curve_of(run.suite, run.model))
    return [f"{run.name} step {each.step}: {each.sentence}" for each in found]


def _over_size(found: Sequence[RunFindings]) -> list[ThresholdEntry]:
    """Return the thresholds of each suite's metrics and of the dates of its transitions."""
    thresholds: list[ThresholdEntry] = []
    for suite, members in groupby(found, key=lambda each: each.run.suite):
        mine = list(members)
        thresholds += [*find_thresholds(suite, [each.run for each in mine]), *find_timing(suite, mine)]
    return thresholds
