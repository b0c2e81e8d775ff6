"""Phases of training: change points over several metrics together, on the log-step axis.

T: checkpoints; D: metrics; S: sequences of the probe.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tracker.analysis.changes import ALARM, LEVEL, SHORTEST, SIMULATIONS, judge_changes, phase_breaks
from tracker.analysis.curves import Curves, checked_steps, gather_curves
from tracker.analysis.intervals import (
    bootstrap_spans,
    bracket_confidence,
    change_intervals,
    noise_draws,
    resampled_means,
)
from tracker.analysis.labels import (
    Span,
    evidence_of,
    joint_score,
    label_columns,
    label_spans,
    spans_of,
    with_peak,
)
from tracker.analysis.noise import sample_variance
from tracker.analysis.schema import ChangePoint, Phase
from tracker.analysis.segments import Segments
from tracker.errors import RequestError

FEWEST = 5
"""Checkpoints below which no phases are looked for."""
CRITERION = (
    "levels or straight drifts by least squares over z-scored metrics on log2(step + 1), at least "
    f"{SHORTEST} checkpoints a phase; a change must save what noise saves in {ALARM:.0%} of curves, and at "
    f"most {LEVEL:.0%} of {SIMULATIONS} simulated straight or sigmoid drifts (at least half the log-step "
    "range wide) may fit phases as well"
)


@dataclass(frozen=True)
class Phases:
    """What ``find_phases`` found; ``note`` says what is missing, and what was left out."""

    steps: tuple[int, ...]
    metrics: tuple[str, ...]
    change_points: tuple[ChangePoint, ...]
    phases: tuple[Phase, ...]
    p_value: float | None
    """Share of simulated smooth drifts that fit phases as well as the data; None where nothing was tested."""
    note: str | None
    criterion: str = CRITERION


def _phase(curves: Curves, span: Span, label: str | None = None, peak: int | None = None) -> Phase:
    low, high = span
    columns = label_columns(curves.names)
    evidence = {}
    if columns is not None:
        entropy, selectivity = curves.column(columns[0]), curves.column(columns[1])
        evidence = evidence_of(columns, entropy, selectivity, curves.steps, span)
    peak_step = int(curves.steps[peak]) if peak is not None and low <= peak <= high else None
    return Phase(label, int(curves.steps[low]), int(curves.steps[high]), peak_step, evidence)


def _one_phase(curves: Curves, p_value: float | None, note: str | None = None) -> Phases:
    phases = (_phase(curves, (0, len(curves.steps) - 1)),) if len(curves.steps) else ()
    notes = "; ".join(each for each in (note, curves.note) if each) or None
    return Phases(tuple(map(int, curves.steps)), curves.names, (), phases, p_value, notes)


def _labelled(curves: Curves, breaks: tuple[int, ...]) -> tuple[Phase, ...]:
    spans = spans_of(breaks, len(curves.steps))
    columns = label_columns(curves.names)
    labels: Sequence[str | None] = [None] * len(spans)
    peak = None
    if columns is not None:
        labels, peak = label_spans(curves.column(columns[0]), curves.column(columns[1]), spans)
    return tuple(
        _phase(curves, span, label, peak if label == "exploratory" else None)
        for span, label in zip(spans, labels, strict=True)
    )


@dataclass(frozen=True)
class _Scaled:
    """Curves z-scored on the log-step axis, and the noise that sequences show."""

    curves: Curves
    position: np.ndarray
    centre: np.ndarray
    spread: np.ndarray
    floor: np.ndarray | None

    def z(self, values: np.ndarray) -> np.ndarray:
        """Values (..., T, D) in units of each metric's spread over the run."""
        return (values - self.centre) / self.spread

    def breaks(self, values_TD: np.ndarray, penalty: float) -> tuple[int, ...]:
        """Where phases part, a turning point counted to the rise that leads up to it."""
        found = phase_breaks(self.position, self.z(values_TD), penalty)
        columns = label_columns(self.curves.names)
        if columns is None:
            return found
        entropy, selectivity = (values_TD[:, self.curves.names.index(name)] for name in columns)
        return with_peak(found, joint_score(entropy, selectivity))


def _scaled(curves: Curves) -> _Scaled:
    centre, spread = curves.values.mean(axis=0), curves.values.std(axis=0)
    floor = None
    if curves.samples is not None:
        floor = np.array([sample_variance(each) for each in curves.samples]) / spread**2
    return _Scaled(curves, np.log2(curves.steps + 1.0), centre, spread, floor)


def _change_points(scaled: _Scaled, breaks: tuple[int, ...], penalty: float, resamples: int,
                   seed: int) -> tuple[ChangePoint, ...]:  # fmt: skip
    """Each break with its confidence and its interval."""
    curves, steps = scaled.curves, scaled.curves.steps
    if curves.samples is None:
        return tuple(ChangePoint(int(steps[at - 1]), int(steps[at]), None) for at in breaks)
    values = scaled.z(curves.values)
    drawn = resampled_means(curves.samples, resamples, seed)
    found = [scaled.breaks(curve, penalty) for curve in drawn]
    shares, bootstrapped = bracket_confidence(found, breaks), bootstrap_spans(found, breaks)
    segments = Segments(scaled.position, values, penalty, SHORTEST)
    left = values - segments.fitted(breaks)
    noise = noise_draws(left, segments.parameters(breaks), scaled.z(drawn) - values, seed)
    tested = change_intervals(scaled.position, values, breaks, noise, penalty, SHORTEST)
    spans = [(min(a[0], b[0]), max(a[1], b[1])) for a, b in zip(tested, bootstrapped, strict=True)]
    return tuple(
        ChangePoint(int(steps[at - 1]), int(steps[at]), share, (int(steps[low - 1]), int(steps[high])))
        for at, share, (low, high) in zip(breaks, shares, spans, strict=True)
    )


def _searched(curves: Curves, resamples: int, seed: int) -> Phases:
    scaled = _scaled(curves)
    found = judge_changes(scaled.position, scaled.z(curves.values), scaled.floor, seed)
    if not found.shown:
        return _one_phase(curves, found.p_value)
    breaks = scaled.breaks(curves.values, found.penalty)
    points = _change_points(scaled, breaks, found.penalty, resamples, seed)
    phases = _labelled(curves, breaks)
    return Phases(tuple(map(int, curves.steps)), curves.names, points, phases, found.p_value, curves.note)


def find_phases(
    steps: Sequence[int] | np.ndarray,
    metrics: Mapping[str, object],
    *,
    resamples: int = 200,
    seed: int = 0,
) -> Phases:
    """Find change points over all metrics together, and the phases between them.

    Every metric is z-scored; places are log2(step + 1). How many changes there are is decided by
    ``Phases.criterion``. Labels need ``spectral_entropy`` and ``frequency_selectivity``, or both with the
    prefix ``averaged_``.

    Args:
        steps: (T,) training steps, rising.
        metrics: name -> (T,) means, or (T, S) with the same S sequences at every checkpoint.
        resamples: bootstrap draws over sequences for the confidence of each bracket.
        seed: of the draws and of the simulated drifts.

    Returns:
        Phases. With fewer than five checkpoints, or nothing that varies, there is no change point and
        ``note`` says what to measure.

    Raises:
        RequestError: steps are no rising list of whole numbers; no metric is given; a metric has another
            length than steps, or holds no numbers.

    Example:
        >>> steps = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256]
        >>> found = find_phases(steps, {"loss": [7.0, 7.1, 7.0, 6.9, 7.0, 3.0, 3.1, 3.0, 2.9, 3.0]})
        >>> [(point.step_low, point.step_high) for point in found.change_points]
        [(8, 16)]
    """
    places = checked_steps(steps)
    if not metrics:
        raise RequestError("metrics: none given; at least one curve is needed to look for phases")
    curves = gather_curves(places, metrics)
    if len(curves.steps) < FEWEST:
        note = (
            f"phases need at least {FEWEST} checkpoints, better 10 or more spread evenly over log steps "
            f"({len(curves.steps)} measured)"
        )
        return _one_phase(curves, None, note)
    if not curves.names:
        note = "phases need a metric that is defined and varies; measure checkpoints where one does"
        return _one_phase(curves, None, note)
    return _searched(curves, resamples, seed)
