"""Phases of training: the stretches between the transitions of the joint curve, named after what it does.

T: checkpoints; S: sequences of the probe; K: seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tracker.analysis.curves import checked_steps
from tracker.analysis.labels import evidence_of, label_columns
from tracker.analysis.schema import ChangePoint, Extent, Phase
from tracker.analysis.transition_types import CurveTransitions, Move, Passing, Transitions
from tracker.analysis.transitions import find_transitions
from tracker.errors import RequestError

CRITERION = (
    "moves of the joint curve (entropy up, selectivity and low-band power down, in standard deviations; "
    "without them the first principal component) between windows of checkpoints that differ by more than "
    "noise alone does anywhere in 95% of simulated curves; phases part at the onset of a move, where a rise "
    "turns, and where a move has come 90% of its way"
)


@dataclass(frozen=True)
class Phases:
    """What ``find_phases`` found; ``note`` says what is missing, and what was left out."""

    steps: tuple[int, ...]
    metrics: tuple[str, ...]
    change_points: tuple[ChangePoint, ...]
    phases: tuple[Phase, ...]
    p_value: float | None
    """Share of noise alone in which the clearest move would be seen; None where nothing was tested."""
    note: str | None
    criterion: str = CRITERION
    transitions: Transitions = field(default_factory=Transitions)
    """The moves of every metric, and of all together, that phases were read from."""


def find_phases(
    steps: Sequence[int] | np.ndarray,
    metrics: Mapping[str, object],
    *,
    resamples: int = 400,
    seed: int = 0,
) -> Phases:
    """Find the phases of training from the transitions of all metrics together.

    ``initial`` is the plateau before the first move. ``exploratory`` runs from the onset of the joint fall of
    selectivity and rise of entropy to its turning point, or to its end. ``specialisation`` is what follows a
    turning point where the way back exceeds noise. Other stretches have no label; labels need
    ``spectral_entropy`` and ``frequency_selectivity``, or both with the prefix ``averaged_``.

    Args:
        steps: (T,) training steps, rising.
        metrics: name -> (T,) means, (T, S) with the same S sequences at every checkpoint, or (T, S, K).
        resamples: curves drawn for the confidence of each bracket.
        seed: of the draws.

    Returns:
        Phases. With fewer than three checkpoints, or nothing that varies, there is no change point and
        ``note`` says why.

    Raises:
        RequestError: steps are no rising list of whole numbers; no metric is given; a metric has another
            length than steps, or holds no numbers.

    Example:
        >>> steps = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256]
        >>> found = find_phases(steps, {"loss": [7.0, 7.1, 7.0, 6.9, 7.0, 3.0, 3.1, 3.0, 2.9, 3.0]})
        >>> [(point.step_low, point.step_high) for point in found.change_points]
        [(8, 16)]
    """
    if not metrics:
        raise RequestError("metrics: none given; at least one curve is needed to look for phases")
    return phases_of(find_transitions(steps, metrics, draws=resamples, seed=seed), metrics)


def phases_of(found: Transitions, metrics: Mapping[str, object]) -> Phases:
    """Read phases from the transitions of ``metrics``.

    Args:
        found: from ``find_transitions``.
        metrics: what it was given, for the values in each phase.
    """
    steps = checked_steps(found.steps)
    cuts = _cuts(steps, found.structure)
    firsts = [0, *[int(np.searchsorted(steps, cut.point.step_high)) for cut in cuts]]
    labels = ["initial" if cuts else None, *[cut.label for cut in cuts]]
    columns = label_columns(list(metrics))
    phases = []
    for number, (first, end) in enumerate(zip(firsts, [*firsts[1:], len(steps)], strict=True)):
        label = labels[number] if columns is not None else None
        turn = cuts[number].point.step_low if number < len(cuts) and cuts[number].turning else None
        phases.append(
            Phase(
                label,
                int(steps[first]),
                int(steps[end - 1]),
                turn if label == "exploratory" else None,
                _evidence(columns, metrics, steps, slice(first, end)),
            )
        )
    return Phases(
        tuple(map(int, steps)),
        tuple(name for name in metrics if found.curves[name].p_value is not None),
        tuple(cut.point for cut in cuts),
        tuple(phases),
        found.structure.p_value,
        _note(found),
        transitions=found,
    )


@dataclass(frozen=True)
class _Cut:
    """Where one phase ends and the next begins, and what the next is called."""

    point: ChangePoint
    label: str | None
    turning: bool = False


def _cuts(steps: np.ndarray, joint: CurveTransitions) -> list[_Cut]:
    """The onset of the first move and of every rise, where rises turn, and both ends of every plateau."""
    cuts: list[_Cut] = []
    risen = False
    before: Move | None = None
    for move in joint.moves:
        risen = risen or move.direction == "up"
        label = "exploratory" if move.direction == "up" else "specialisation" if risen else None
        turn = joint.ending_at(before) if before else None
        if turn is not None and move.direction == "up":
            cuts.append(_Cut(_point(move.onset), label))
        elif turn is not None:
            after = int(steps[np.searchsorted(steps, turn.step, side="right")])
            point = ChangePoint(turn.step, after, None, turn.interval)
            cuts.append(_Cut(point, label, turning=True))
        else:
            if before is not None:
                cuts.append(_Cut(_point(before.end), None))
            cuts.append(_Cut(_point(move.onset), label))
        before = move
    if before is not None and not before.open_end and before.end.step_high < steps[-1]:
        cuts.append(_Cut(_point(before.end), None))
    return _rising(cuts)


def _rising(cuts: list[_Cut]) -> list[_Cut]:
    """Those that leave every phase a checkpoint."""
    kept: list[_Cut] = []
    for cut in cuts:
        if not kept or cut.point.step_high > kept[-1].point.step_high:
            kept.append(cut)
    return kept


def _point(passing: Passing) -> ChangePoint:
    return ChangePoint(passing.step_low, passing.step_high, passing.support, passing.interval)


def _evidence(
    columns: tuple[str, str] | None, metrics: Mapping[str, object], steps: np.ndarray, span: slice
) -> dict[str, Extent]:
    if columns is None:
        return {}
    entropy, selectivity = (_means(metrics[name], len(steps)) for name in columns)
    return evidence_of(columns, entropy, selectivity, steps, span)


def _means(values: object, points: int) -> np.ndarray:
    array = np.asarray(values, dtype=float).reshape(points, -1)
    defined = np.isfinite(array)
    counts = defined.sum(axis=1)
    sums = np.where(defined, array, 0.0).sum(axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _note(found: Transitions) -> str | None:
    """What was left out, or why nothing could be told."""
    if found.structure.p_value is None:
        return found.structure.note
    notes: dict[str, list[str]] = {}
    for name, curve in found.curves.items():
        if curve.note:
            notes.setdefault(curve.note, []).append(name)
    return "; ".join(f"{', '.join(names)}: {note}" for note, names in notes.items()) or None
