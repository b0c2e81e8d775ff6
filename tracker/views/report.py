"""What analysis.json says, as records that page, figures and tables share.

The file may be of another version: keys that it lacks take their defaults, and an entry without the keys
that identify it is left out, its section named in ``Report.unread``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from itertools import groupby
from typing import Any, TypeVar

from tracker.views.encode import plain

Kind = TypeVar("Kind")
RunName = tuple[str, str, int]
"""Suite, model and seed."""
ROLE_KEYS = ("suite", "model", "seed", "steps", "heads", "counts", "sentence")
ENCODING_KEYS = ("suite", "reference", "models", "differences", "sentences")


@dataclass(frozen=True)
class Phase:
    """A phase of one run, from one measured step to another."""

    label: str | None
    first_step: int
    last_step: int
    peak_step: int | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ChangePoint:
    """A change between two neighbouring checkpoints; ``confidence`` is its bootstrap support."""

    step_low: int
    step_high: int
    confidence: float | None = None


@dataclass(frozen=True)
class OfRun:
    """Something found of one run."""

    suite: str
    model: str
    seed: int

    @property
    def name(self) -> RunName:
        """Suite, model and seed."""
        return self.suite, self.model, self.seed


@dataclass(frozen=True)
class RunPhases(OfRun):
    """Phases and change points of one run."""

    steps: tuple[int, ...] = ()
    phases: tuple[Phase, ...] = ()
    change_points: tuple[ChangePoint, ...] = ()
    p_value: float | None = None
    sentence: str = ""

    @property
    def is_labelled(self) -> bool:
        """Whether any phase has a name."""
        return any(phase.label for phase in self.phases)

    @property
    def spans(self) -> list[Phase]:
        """The labelled phases, neighbours of one label (with a change between them) as one."""
        groups = [list(group) for _, group in groupby(self.phases, key=lambda phase: phase.label)]
        return [
            Phase(group[0].label, group[0].first_step, group[-1].last_step)
            for group in groups
            if group[0].label
        ]


@dataclass(frozen=True)
class Covariate:
    """When a covariate changes beside one change of the spectrum.

    ``lag`` counts measured checkpoints, with its 90 % ``interval``; ``bracket`` holds the two steps
    between which the covariate itself changes.
    """

    verdict: str
    lag: int | None = None
    interval: tuple[int, int] | None = None
    bracket: tuple[int, int] | None = None


@dataclass(frozen=True)
class Change(OfRun):
    """A change of one run's spectrum, its covariates, and the heads that make it up."""

    step_low: int
    step_high: int
    covariates: Mapping[str, Covariate] = field(default_factory=dict)
    contributions: Mapping[str, Any] | None = None
    landmarks: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Threshold:
    """What was found of one metric over one axis of size; ``low`` is None where no threshold is claimed."""

    metric: str
    axis: str
    step: int | str
    low: float | None = None
    high: float | None = None
    interval: tuple[float, float] | None = None
    effect: float | None = None
    p_value: float | None = None
    p_corrected: float | None = None
    shape: str | None = None
    aicc: float | None = None
    best_axes: tuple[str, ...] = ()
    sizes: int | None = None
    sentence: str = ""


@dataclass(frozen=True)
class Report:
    """The sections of analysis.json that views show."""

    phases: tuple[RunPhases, ...] = ()
    changes: tuple[Change, ...] = ()
    thresholds: tuple[Threshold, ...] = ()
    roles: tuple[Mapping[str, Any], ...] = ()
    encodings: tuple[Mapping[str, Any], ...] = ()
    summary: tuple[str, ...] = ()
    alerts: tuple[Mapping[str, Any], ...] = ()
    unread: tuple[str, ...] = ()
    """Sections with entries of another version, which are left out."""


def read_report(analysis: Mapping[str, Any] | None) -> Report:
    """Read the content of analysis.json, NaN as None; an empty report where there is none."""
    content: dict[str, Any] = plain(analysis or {})
    unread: list[str] = []

    def entries(section: str, read: Callable[[Mapping[str, Any]], Kind]) -> tuple[Kind, ...]:
        found = []
        for entry in content.get(section) or ():
            try:
                found.append(read(entry))
            except (AttributeError, KeyError, TypeError, ValueError):
                unread.append(section)
        return tuple(found)

    return Report(
        phases=entries("phases", _run_phases),
        changes=entries("lead_lag", _change),
        thresholds=entries("thresholds", lambda entry: _record(Threshold, entry)),
        roles=entries("roles", lambda entry: _holding(entry, ROLE_KEYS)),
        encodings=entries("encodings", lambda entry: _holding(entry, ENCODING_KEYS)),
        summary=entries("summary", str),
        alerts=entries("alerts", lambda entry: _holding(entry, ("sentence",))),
        unread=tuple(dict.fromkeys(unread)),
    )


def _record(kind: type[Kind], entry: Mapping[str, Any], **read: Any) -> Kind:
    """A record of the keys that it knows; ``read`` replaces nested entries.

    Raises:
        TypeError: a key without a default is absent.
    """
    known = {each.name for each in fields(kind)}  # type: ignore[arg-type]
    return kind(**{key: value for key, value in entry.items() if key in known} | read)


def _run_phases(entry: Mapping[str, Any]) -> RunPhases:
    return _record(
        RunPhases,
        entry,
        phases=tuple(_record(Phase, each) for each in entry.get("phases", ())),
        change_points=tuple(_record(ChangePoint, each) for each in entry.get("change_points", ())),
    )


def _change(entry: Mapping[str, Any]) -> Change:
    covariates = {name: _record(Covariate, each) for name, each in entry.get("covariates", {}).items()}
    heads = entry.get("carriers") or {}
    contributions = heads.get("frequency_selectivity") or heads.get("spectral_entropy")
    return _record(Change, entry, covariates=covariates, contributions=contributions)


def _holding(entry: Mapping[str, Any], keys: tuple[str, ...]) -> Mapping[str, Any]:
    """The entry as it is.

    Raises:
        KeyError: it lacks one of the keys.
    """
    for key in keys:
        entry[key]
    return entry
