"""Stored results against what the paper's mechanisms need: where they stop holding, and at which step.

Heads that specialise differ in their spectral entropy; position and content trade off, so that positional
and spectral entropy are anticorrelated; a wavelet frame loses nothing; and once training has settled, so
has the sensitivity to scale (arXiv 2410.18067, sections 3.3 to 3.5).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import polars as pl

from tracker.analysis.schema import Condition, RunPhases
from tracker.analysis.text import number
from tracker.errors import counted

RUN = ["suite", "model", "seed"]
SPREAD = "spectral_entropy_std"
CORRELATION = "averaged_position_spectrum_correlation"
RECONSTRUCTION = ("reconstruction_error", "averaged_reconstruction_error")
SENSITIVITY = "scale_sensitivity_0.5"
FEWEST_SETTLED = 2
"""Checkpoints after the last change below which nothing can move."""


@dataclass(frozen=True)
class Limits:
    """Where each condition breaks; the fields of the configuration's section ``validate``."""

    entropy_spread: float
    """Least standard deviation of spectral entropy over heads, nats."""
    correlation: float
    """The mean averaged correlation stays below this."""
    reconstruction: float
    """Largest reconstruction error."""
    settled: float
    """Most that S(0.5) moves between neighbouring checkpoints after the last change."""


def _values(rows: pl.DataFrame, column: str) -> list[tuple[int, float]]:
    """(step, value) where the column has a finite value, by rising step."""
    if column not in rows.columns:
        return []
    kept = rows.select("step", pl.col(column).cast(pl.Float64)).filter(pl.col(column).is_finite())
    return [(int(step), float(value)) for step, value in kept.sort("step").iter_rows()]


Judge = Callable[[float], bool]


class _Run:
    """One model and seed, and what its sentences begin with."""

    def __init__(self, key: tuple[Any, ...], rows: pl.DataFrame, last_change: int | None) -> None:
        self.suite, self.model, self.seed = str(key[0]), str(key[1]), int(key[2])
        self.rows, self.last_change = rows, last_change
        self.last_step = int(rows["step"].max())  # type: ignore[arg-type]

    def row(self, condition: str, steps: Iterable[int], value: float | None, limit: float,
            passed: bool | None, text: str) -> Condition:  # fmt: skip
        sentence = f"{self.model} seed {self.seed}: {text}"
        return Condition(
            self.suite, self.model, self.seed, condition, tuple(steps), value, limit, passed, sentence
        )

    def trained(self, condition: str, column: str, limit: float, holds: Judge, text: str) -> Condition:
        """A condition on trained models: judged at the last checkpoint, earlier breaks are counted."""
        values = dict(_values(self.rows, column))
        if self.last_step == 0:
            why = f"{condition} not judged: only step 0 is measured, and this is asked of trained models"
            return self.row(condition, (), None, limit, None, why)
        if self.last_step not in values:
            why = f"{condition} not judged: undefined at the last checkpoint, step {self.last_step}"
            return self.row(condition, (), None, limit, None, why)
        value = values.pop(self.last_step)
        earlier = sum(not holds(each) for each in values.values())
        counts = f"; {earlier} of {len(values)} earlier checkpoints broke it" if values else ""
        sentence = f"{text.format(value=number(value))} at its last checkpoint, step {self.last_step}{counts}"
        return self.row(condition, (self.last_step,), value, limit, holds(value), sentence)

    def reconstructed(self, column: str, limit: float) -> Condition:
        """Every checkpoint: what the wavelet transform there and back loses."""
        condition = column.replace("_", " ")
        values = _values(self.rows, column)
        if not values:
            return self.row(condition, (), None, limit, None, f"{condition} not judged: not measured")
        step, worst = max(values, key=lambda pair: pair[1])
        broken = [at for at, value in values if value > limit]
        where = counted(len(broken), "checkpoint")
        relation = f"above {number(limit)} at {where}" if broken else "the largest of all"
        sentence = f"{condition} {number(worst)} at step {step}, {relation}"
        return self.row(condition, broken or (step,), worst, limit, not broken, sentence)

    def settled(self, limit: float) -> Condition:
        """S(0.5) between neighbouring checkpoints from the last detected change on."""
        condition = "scale sensitivity settled"
        if self.last_change is None:
            why = f"{condition} not judged: no change is detected, so there is no time after the last one"
            return self.row(condition, (), None, limit, None, why)
        values = [pair for pair in _values(self.rows, SENSITIVITY) if pair[0] >= self.last_change]
        if len(values) < FEWEST_SETTLED:
            why = f"{condition} not judged: fewer than 2 checkpoints from the last change on"
            return self.row(condition, (), None, limit, None, why)
        moves = [(before, step, abs(value - old)) for (before, old), (step, value) in pairwise(values)]
        before, step, largest = max(moves, key=lambda move: move[2])
        broken = [end for _, end, move in moves if move > limit]
        sentence = (
            f"S(0.5) moves by {number(largest)} from step {before} to {step}, after the last change detected "
            f"(by step {self.last_change}); {len(broken)} of {len(moves)} moves are above {number(limit)}"
        )
        return self.row(condition, broken or (step,), largest, limit, not broken, sentence)


def _last_changes(phases: Sequence[RunPhases]) -> dict[tuple[Any, ...], int]:
    """By run, where its last named phase ends; without one, the first checkpoint after its last change."""
    last = {}
    for entry in phases:
        if entry.change_points:
            moving = [phase.last_step for phase in entry.phases if phase.label not in (None, "initial")]
            steps = moving or [point.step_high for point in entry.change_points]
            last[entry.suite, entry.model, entry.seed] = max(steps)
    return last


def break_conditions(
    checkpoints: pl.DataFrame, phases: Sequence[RunPhases], limits: Limits
) -> list[Condition]:
    """Judge every condition on every model and seed, in the order of the table.

    Spread over heads and correlation are claims about trained models: they are judged at the last measured
    checkpoint of each model and seed, and earlier ones are only counted.

    Args:
        checkpoints: the store's checkpoint table; only rows with status ok count.
        phases: the phases of every run, for the last detected change of each run.
        limits: where the conditions break.

    Returns:
        Five conditions per run that has a measurement: spread, correlation, reconstruction of rows and of
        averaged signals, and S(0.5) after the last change.
    """
    changes = _last_changes(phases)
    found: list[Condition] = []
    measured = checkpoints.filter(pl.col("status") == "ok")
    for key, rows in measured.group_by(RUN, maintain_order=True):
        run = _Run(key, rows, changes.get(key))
        spread = "standard deviation of spectral entropy over heads {value} nats (at least "
        found.append(
            run.trained("spread over heads", SPREAD, limits.entropy_spread,
                        lambda value: value >= limits.entropy_spread,
                        f"{spread}{number(limits.entropy_spread)})")
        )  # fmt: skip
        found.append(
            run.trained("position-spectrum correlation", CORRELATION, limits.correlation,
                        lambda value: value < limits.correlation,
                        "mean averaged correlation of positional and spectral entropy {value} (below "
                        f"{number(limits.correlation)})")
        )  # fmt: skip
        found += [run.reconstructed(column, limits.reconstruction) for column in RECONSTRUCTION]
        found.append(run.settled(limits.settled))
    return found


def alerts_of(conditions: Iterable[Condition]) -> tuple[Condition, ...]:
    """Return the conditions that broke, as they stand under ``alerts`` in analysis.json."""
    return tuple(each for each in conditions if each.passed is False)
