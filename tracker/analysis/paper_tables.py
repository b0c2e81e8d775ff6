"""What was measured against the paper's tables, in numbers and in words."""

from collections.abc import Sequence
from typing import Any

from tracker.analysis.comparison import Column, Sample
from tracker.analysis.trajectories import Trajectory
from tracker.analysis.words import number, titled
from tracker.facts import source, table

Entry = dict[str, Any]
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
CAUTION = (
    "The paper leaves its signal, length and scaling open, and its tables 5 and 6 differ on the same final "
    "6.9b (scale sensitivity 0.740 and 0.062), so a deviation may lie in conventions as well as in models."
)
NEAR = 0.05
"""Relative deviation up to which two numbers are called near."""


def in_words(ours: float, half: float | None, theirs: float) -> str:
    """How far a measured value is from the paper's.

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


def _row(name: str, metric: str, step: int, sample: Sample, theirs: float, facts: str) -> Entry:
    return {
        "model": name,
        "metric": metric,
        "step": step,
        "ours": sample.value,
        "half": sample.half,
        "paper": theirs,
        "words": in_words(sample.value, sample.half, theirs),
        "table": facts,
        "source": source(facts),
    }


def _tail(model: str) -> str:
    """A model's name as the tables have it: ``EleutherAI/pythia-70m`` and ``pythia-70m`` as ``70m``."""
    return model.rsplit("/", 1)[-1].removeprefix("pythia-").removesuffix("-deduped")


def against_paper(found: Sequence[Column], runs: Sequence[Trajectory] = ()) -> list[Entry]:
    """Rows for every model that the paper's tables 6, 1 and 3 (trained) or 5 (training) name.

    Args:
        found: the models compared; trained ones are set against the tables of trained models.
        runs: their trajectories, for the table over training.
    """
    rows = [row for column in found for row in _trained(column)]
    facts = table("paper_table5_training")
    for run in runs:
        if _tail(run.model) != "6.9b":
            continue
        for theirs in facts.to_dicts():
            at = [i for i, step in enumerate(run.steps) if step == theirs["step"]]
            for name, factor in TRAINING.items() if at else ():
                metric = "band_power_low" if name == "low_band_power_pct" else name
                if metric in run.metrics:
                    sample = Sample(float(run.metrics[metric][at[0]]), None, None, None, 0.0)
                    rows.append(
                        _row(
                            run.model,
                            metric,
                            theirs["step"],
                            sample,
                            theirs[name] * factor,
                            "paper_table5_training",
                        )
                    )
    return rows


def _trained(column: Column) -> list[Entry]:
    rows = []
    for facts in ("paper_table6_scaling", "paper_table1_models"):
        theirs = {_tail(str(row["model"])): row for row in table(facts).to_dicts()}.get(_tail(column.model))
        if theirs is None:
            continue
        for metric in TRAINED:
            name = metric.removeprefix("averaged_")
            if name in theirs and metric in column.samples:
                rows.append(
                    _row(column.model, metric, column.step, column.samples[metric], theirs[name], facts)
                )
        break
    return rows


def _when(row: Entry) -> str:
    return f" at step {row['step']}" if row["table"] == "paper_table5_training" else ""


def paper_sentences(rows: Sequence[Entry]) -> list[str]:
    """The deviations in words, model by model, and why they may be there."""
    if not rows:
        return ["The paper's tables name none of these models."]
    sentences = []
    for model in dict.fromkeys(row["model"] for row in rows):
        told = [
            f"{titled(row['metric'])} {number(row['ours'])} against {number(row['paper'])}"
            f"{_when(row)}: {row['words']}"
            for row in rows
            if row["model"] == model
        ]
        sentences.append(f"{model} against the paper: {'; '.join(told)}.")
    return [*sentences, CAUTION]
