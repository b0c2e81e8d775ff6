"""The transitions of models side by side: when each begins, is half way and ends, and which comes first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from tracker.analysis.labels import label_columns
from tracker.analysis.order import lag_of
from tracker.analysis.phase_report import PHASE_METRICS, find_run, seed_changes
from tracker.analysis.schema import Lag
from tracker.analysis.trajectories import Trajectory
from tracker.analysis.transition_types import CurveTransitions, Move


@dataclass(frozen=True)
class ModelTransition:
    """The main move of one model's frequency structure; of the mean over its seeds where it has several."""

    model: str
    seeds: int
    structure: Move | None
    """None where nothing moves beyond noise."""
    moves: Mapping[str, Move] = field(default_factory=dict)
    """Spectral entropy and frequency selectivity; every metric where these are not measured."""
    lag: Lag | None = None
    """Of its half to that of the first model that has a transition."""


def model_transitions(runs: Sequence[Trajectory]) -> list[ModelTransition]:
    """Find the transition of every model, and how much earlier or later than the first model's it comes.

    Args:
        runs: of one suite or several, those of a model next to each other.
    """
    found: list[ModelTransition] = []
    first: Move | None = None
    for _, members in groupby(runs, key=lambda run: (run.suite, run.model)):
        name, seeds, curves, structure = _curves_of(list(members))
        columns = label_columns(list(curves)) or [each for each in PHASE_METRICS if each in curves]
        moves = {each: move for each in columns if (move := curves[each].main)}
        main = structure.main
        lag = lag_of(first, structure) if first is not None and main is not None else None
        found.append(ModelTransition(name, seeds, main, moves, lag))
        first = first or main
    return found


def _curves_of(runs: list[Trajectory]) -> tuple[str, int, Mapping[str, CurveTransitions], CurveTransitions]:
    each = [find_run(run) for run in runs]
    together = seed_changes(each)
    found = together[0] if together and together[0].curves else each[0].transitions
    return runs[0].model, len(runs), found.curves, found.structure
