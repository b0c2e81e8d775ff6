"""What was measured against the paper's tables."""

from collections.abc import Sequence
from dataclasses import dataclass

from tracker.analysis.comparison import Column, Sample
from tracker.analysis.text import number
from tracker.analysis.trajectories import Trajectory
from tracker.facts import source, table

TRAINED = (
    "averaged_spectral_entropy",
    "averaged_frequency_selectivity",
    "averaged_scale_sensitivity_0.5",
    "averaged_scale_sensitivity_0.25",
)
"""Columns that the paper's tables of trained models are nearest to (metrics.md: averaged signals)."""
TRAINING = {
    "spectral_entropy": 1.0,
    "frequency_selectivity": 1.0,
    "low_band_power_pct": 0.01,
    "scale_sensitivity_0.5": 1.0,
    "scale_sensitivity_0.25": 1.0,
}
"""Columns of table 5, with the factor to our unit; it is nearest to attention rows."""
TRAINING_TABLE = "paper_table5_training"
NEAR = 0.05
"""Relative deviation up to which two numbers are called near."""


@dataclass(frozen=True)
class PaperRow:
    """One measured value beside the paper's."""

    model: str
    metric: str
    step: int
    ours: float
    half: float | None
    paper: float
    words: str
    table: str
    source: str


def in_words(ours: float, half: float | None, theirs: float) -> str:
    """Say how far a measured value is from the paper's.

    Args:
        ours: the measured mean.
        half: half width of its interval.
        theirs: the paper's value.
    """
    if half is not None and abs(ours - theirs) <= half:
        return "agrees within its interval"
    if not theirs:
        return f"{number(ours)} instead of 0"
    share = ours / theirs - 1
    if abs(share) <= NEAR:
        return f"near ({share:+.1%})"
    if share >= 1:
        return f"{ours / theirs:.1f} times as large"
    return f"{abs(share):.0%} {'larger' if share > 0 else 'smaller'}"


def _row(name: str, metric: str, step: int, sample: Sample, theirs: float, facts: str) -> PaperRow:
    words = in_words(sample.value, sample.half, theirs)
    return PaperRow(
        name, metric, step, sample.value, sample.half, theirs, words, table=facts, source=source(facts)
    )


def _tail(model: str) -> str:
    """A model's name as the tables have it: ``EleutherAI/pythia-70m`` and ``pythia-70m`` as ``70m``."""
    return model.rsplit("/", 1)[-1].removeprefix("pythia-").removesuffix("-deduped")


def against_paper(found: Sequence[Column], runs: Sequence[Trajectory] = ()) -> list[PaperRow]:
    """Set every model that the paper's tables name beside them: 6, 1 and 3 (trained) or 5 (training).

    Args:
        found: the models compared; trained ones are set beside the tables of trained models.
        runs: their trajectories, for the table over training.
    """
    trained = [row for column in found for row in _trained(column)]
    training = [row for run in runs if _tail(run.model) == "6.9b" for row in _training(run)]
    return trained + training


def _training(run: Trajectory) -> list[PaperRow]:
    steps = {int(step): at for at, step in enumerate(run.steps)}
    rows = []
    for theirs in table(TRAINING_TABLE).to_dicts():
        at = steps.get(theirs["step"])
        for name, factor in TRAINING.items() if at is not None else ():
            metric = "band_power_low" if name == "low_band_power_pct" else name
            if metric in run.metrics:
                sample = Sample(float(run.metrics[metric][at]))
                rows.append(
                    _row(run.model, metric, theirs["step"], sample, theirs[name] * factor, TRAINING_TABLE)
                )
    return rows


def _trained(column: Column) -> list[PaperRow]:
    for facts in ("paper_table6_scaling", "paper_table1_models"):
        theirs = {_tail(str(row["model"])): row for row in table(facts).to_dicts()}.get(_tail(column.model))
        if theirs is not None:
            return [
                _row(column.model, metric, column.step, column.samples[metric], theirs[name], facts)
                for metric in TRAINED
                if (name := metric.removeprefix("averaged_")) in theirs and metric in column.samples
            ]
    return []
