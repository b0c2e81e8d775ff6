"""Where a model that the paper does not name lies among the trained models of its tables, on either signal.

The paper states no signal, so every metric is placed on both: which of them lies among the paper's models
says which signal a table is likely to have been made from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tracker.analysis.comparison import Column, Sample
from tracker.facts import table

SIGNALS = ("averaged_", "")
SMALL = ("14m", "70m", "160m")
"""The paper's models under 410M, where it places a threshold."""
MIDDLE = (0.25, 0.75)
_PAIRED = ("scale_sensitivity_0.5", "scale_sensitivity_0.25", "position_spectrum_correlation")
_SPECTRAL = ("spectral_entropy", "frequency_selectivity")
_SCALING, _MODELS = "paper_table6_scaling", "paper_table1_models"
_HEADS, _WINDOWS = "paper_table3_heads", "paper_table2_window_entropy"
_Source = tuple[str, str]
"""A table and its column."""
PUBLISHED: dict[str, tuple[_Source, ...]] = {
    **{name: ((_SCALING, name), (_MODELS, name)) for name in _PAIRED},
    **{name: ((_SCALING, name), (_HEADS, f"{name}_mean")) for name in _SPECTRAL},
    **{f"{name}_std": ((_HEADS, f"{name}_std"),) for name in _SPECTRAL},
    **{f"window_entropy_{width}": ((_WINDOWS, f"window_{width}"),) for width in (16, 32, 64)},
}
"""Metric -> where the paper prints it; of a model in two tables the first counts. ``_std``: over heads."""


@dataclass(frozen=True)
class PaperRange:
    """What the paper prints of one metric, over its models of 410M and more, and over the smaller ones."""

    models: int
    median: float
    middle: tuple[float, float]
    """Between which half of them lie."""
    least: float
    largest: float
    small: tuple[float, float] | None
    """Least and largest of those under 410M."""
    tables: tuple[str, ...]


@dataclass(frozen=True)
class Placed:
    """One metric of one model among the paper's."""

    model: str
    metric: str
    step: int
    ours: float
    half: float | None
    paper: PaperRange
    place: str
    """``middle half``, ``range``, ``below`` or ``above`` of the paper's models of 410M and more."""


def paper_range(metric: str) -> PaperRange:
    """Gather what the paper's tables print of a metric, whatever the signal.

    Args:
        metric: one of ``PUBLISHED``.
    """
    printed: dict[str, float] = {}
    for name, column in PUBLISHED[metric]:
        rows = table(name).select("model", column).iter_rows()
        printed = {str(model).removeprefix("pythia-"): float(value) for model, value in rows} | printed
    small = [value for model, value in printed.items() if model in SMALL]
    large = np.array([value for model, value in printed.items() if model not in SMALL])
    low, high = np.quantile(large, MIDDLE)
    return PaperRange(
        models=len(large),
        median=float(np.median(large)),
        middle=(float(low), float(high)),
        least=float(large.min()),
        largest=float(large.max()),
        small=(min(small), max(small)) if small else None,
        tables=tuple(name for name, _ in PUBLISHED[metric]),
    )


def place_among(value: float, paper: PaperRange) -> str:
    """Say where a value lies among the paper's models of 410M and more."""
    if paper.middle[0] <= value <= paper.middle[1]:
        return "middle half"
    if paper.least <= value <= paper.largest:
        return "range"
    return "below" if value < paper.least else "above"


def paper_columns() -> list[str]:
    """Return the columns that are placed, both signals, without those over heads."""
    return [f"{signal}{name}" for signal in SIGNALS for name in PUBLISHED if not name.endswith("_std")]


def among_paper(found: Sequence[Column], named: Sequence[str] = ()) -> list[Placed]:
    """Place every model among the paper's trained models.

    Args:
        found: the models with the columns of ``paper_columns``.
        named: models that the paper's tables name, which are left out.
    """
    ranges = {metric: paper_range(metric) for metric in PUBLISHED}
    return [
        Placed(
            column.model, f"{signal}{metric}", column.step, sample.value, sample.half, paper,
            place_among(sample.value, paper),
        )
        for column in found if column.model not in named
        for signal in SIGNALS
        for metric, paper in ranges.items()
        if (sample := _sample(column.samples, f"{signal}{metric}")) is not None
    ]  # fmt: skip


def _sample(samples: Mapping[str, Sample], name: str) -> Sample | None:
    """A measured column, or the spread over heads of one."""
    if not name.endswith("_std"):
        return samples.get(name)
    whole = samples.get(name.removesuffix("_std"))
    return Sample(whole.spread) if whole is not None and whole.spread is not None else None
