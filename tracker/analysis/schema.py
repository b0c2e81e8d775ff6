"""The typed content of ``analysis.json``: what the analysis reports."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from tracker.analysis.json_types import from_dict, stored_as, to_dict
from tracker.analysis.transition_types import CurveTransitions


@dataclass(frozen=True)
class ChangePoint:
    """A change after ``step_low`` and at or before ``step_high``, which are neighbouring checkpoints."""

    step_low: int
    step_high: int
    confidence: float | None = None
    """Share of bootstrap resamples over sequences with the same bracket; None without samples."""
    interval: tuple[int, int] | None = None
    """Checkpoints (low, high] that hold the change at 90 %, by a likelihood-ratio test and by the bootstrap
    over sequences: every place that either allows. None without samples: scatter alone does not show it."""

    @property
    def reach(self) -> tuple[int, int]:
        """Where the change may lie: its interval, or the bracket where it has none."""
        return self.interval or (self.step_low, self.step_high)

    def overlaps(self, other: "ChangePoint") -> bool:
        """Whether both may lie at one place."""
        (low, high), (other_low, other_high) = self.reach, other.reach
        return low < other_high and other_low < high


@dataclass(frozen=True)
class Extent:
    """A metric at the first and last checkpoint of a phase, and its extremum within it."""

    first: float
    last: float
    extremum: float
    extremum_step: int


@dataclass(frozen=True)
class Phase:
    """A segment of training; ``label`` is None where nothing names it."""

    label: str | None
    first_step: int
    last_step: int
    peak_step: int | None = None
    evidence: Mapping[str, Extent] = field(default_factory=dict)
    """Spectral entropy and frequency selectivity over the phase, as far as both are measured."""


@dataclass(frozen=True)
class LeftOut:
    """A checkpoint without a usable measurement."""

    step: int
    reason: str


@dataclass(frozen=True)
class RunPhases:
    """The phases of one model and seed."""

    suite: str
    model: str
    seed: int
    steps: tuple[int, ...] = ()
    metrics: tuple[str, ...] = ()
    criterion: str = ""
    change_points: tuple[ChangePoint, ...] = ()
    phases: tuple[Phase, ...] = ()
    p_value: float | None = None
    note: str | None = None
    left_out: tuple[LeftOut, ...] = ()
    sentence: str = ""

    @property
    def name(self) -> str:
        """How sentences name the run."""
        return f"{self.model} seed {self.seed}"


@dataclass(frozen=True)
class RunTransitions:
    """The moves of every metric and covariate of one model and seed."""

    suite: str
    model: str
    seed: int
    steps: tuple[int, ...] = ()
    curves: Mapping[str, CurveTransitions] = field(default_factory=dict)
    structure: CurveTransitions = field(default_factory=CurveTransitions)
    """The joint curve, in standard deviations."""
    note: str | None = None


@dataclass(frozen=True)
class SharedChange(ChangePoint):
    """A change of the mean over seeds, and in how many of them a change overlaps it."""

    seeds: int = 0


@dataclass(frozen=True)
class Lag:
    """How a covariate's largest move lies to the main move of the frequency structure."""

    verdict: str = "undefined"
    """By the halves of both: before, with, after, cannot tell, still (no move beyond noise), undefined."""
    lag: float | None = None
    """Octaves of training from the half of the reference to that of the covariate."""
    interval: tuple[float, float] | None = None
    """90 % interval of ``lag``."""
    bracket: tuple[int, int] | None = None
    """Checkpoints between which the covariate is half way."""
    direction: str | None = None
    """up or down."""
    start: float | None = None
    finish: float | None = None
    """The covariate's levels before and after its move."""
    onset: tuple[int, int] | None = None
    """Checkpoints between which its move begins."""
    onset_verdict: str | None = None
    onset_interval: tuple[float, float] | None = None
    """The same for the onsets of both."""
    smallest: float | None = None
    """The smallest lasting shift that would have been seen."""


@dataclass(frozen=True)
class SeedChanges:
    """Changes of the mean curve over the seeds of one model."""

    suite: str
    model: str
    seeds: tuple[int, ...]
    steps: tuple[int, ...] = ()
    change_points: tuple[SharedChange, ...] = ()
    p_value: float | None = None
    note: str | None = None
    curves: Mapping[str, CurveTransitions] = field(default_factory=dict)
    """Moves of the mean over seeds; their noise is what seeds differ by."""
    structure: CurveTransitions = field(default_factory=CurveTransitions)
    covariates: Mapping[str, Lag] = field(default_factory=dict)
    """How the covariates' moves lie to that of the structure, over seeds."""


@dataclass(frozen=True)
class Landmark:
    """A published event of a suite that may lie within a change's interval."""

    name: str
    step_low: int
    step_high: int
    source: str


@dataclass(frozen=True)
class HeadShare:
    """One head's share of a change of the mean over heads; shares of all heads add up to 1."""

    layer: int
    head: int
    share: float


@dataclass(frozen=True)
class LayerShare:
    """One layer's share of a change, and its lag to the change of the whole model in octaves."""

    layer: int
    share: float
    lag: float
    interval: tuple[float, float] | None
    verdict: str


@dataclass(frozen=True)
class HeadContributions:
    """Which heads and layers account for a change."""

    heads: tuple[HeadShare, ...]
    """The largest contributors."""
    half_by: int
    """Smallest number of heads that account for half of the change."""
    of: int
    """Heads of the model."""
    layers: tuple[LayerShare, ...]


@dataclass(frozen=True)
class ChangeContext:
    """What else moves around the main move of one run."""

    suite: str
    model: str
    seed: int
    step_low: int
    step_high: int
    """Checkpoints between which the joint curve is half way."""
    covariates: Mapping[str, Lag] = field(default_factory=dict)
    landmarks: tuple[Landmark, ...] = ()
    contributions: Mapping[str, HeadContributions | None] = field(
        default_factory=dict, metadata=stored_as("carriers")
    )


@dataclass(frozen=True)
class ModelLeftOut:
    """A model that a threshold could not use."""

    model: str
    reason: str


@dataclass(frozen=True)
class LeaveOneOut:
    """Whether a threshold stays without each model in turn."""

    kept: int
    """Models without which it stays."""
    of: int
    moved_by: tuple[str, ...] = ()
    """Models without which the step lies elsewhere, or a smooth trend fits as well."""


@dataclass(frozen=True)
class Shift:
    """How likely a level, a smooth trend and a step over model size are, and where a step is."""

    level: float
    smooth: float
    step: float
    """Posterior weights; equal before."""
    odds: float
    """Of a trend of either kind against none."""
    step_odds: float
    """Of a step against a smooth trend."""
    gap: tuple[float, float]
    """Neighbouring sizes between which a step is likeliest."""
    gap_interval: tuple[float, float]
    """Sizes that hold it at 90 %."""
    effect: float
    """Mean beyond less mean up to there."""
    effect_interval: tuple[float, float]
    """90 % interval, over the places where it may be."""
    told: bool
    """Whether the odds against no trend are large enough to say so."""
    stepped: bool = False
    """Whether the odds of a step against a smooth trend are large enough to call it one."""


@dataclass(frozen=True)
class EndToEnd:
    """The difference of the largest model from the smallest."""

    difference: float
    interval: tuple[float, float] | None = None
    """90 % interval; None where neither seeds nor sequences show the noise."""
    over: str | None = None
    """What the interval is over: seeds or sequences."""


@dataclass(frozen=True)
class ShiftStability:
    """What the odds become without each model in turn."""

    odds: tuple[float, float]
    """Least and most of a trend against none."""
    step_odds: tuple[float, float]
    """Least and most of a step against a smooth trend."""
    weakest: str
    """The model without which the odds of a trend are least."""


@dataclass(frozen=True)
class ThresholdEntry:
    """One metric over one axis of model size; ``low`` is None where no threshold is claimed."""

    suite: str
    metric: str
    axis: str
    step: int | None = None
    models: tuple[str, ...] = ()
    scale: tuple[float, ...] = ()
    values: tuple[float, ...] = ()
    spread: tuple[float | None, ...] = ()
    """Standard deviation over sequences, per model."""
    seeds: tuple[int, ...] = ()
    """Seeds behind each value."""
    left_out: tuple[ModelLeftOut, ...] = ()
    sizes: int = 0
    """Different sizes on the axis."""
    low: float | None = None
    high: float | None = None
    interval: tuple[float, float] | None = None
    effect: float | None = None
    p_value: float | None = None
    p_corrected: float | None = None
    factor: float | None = None
    confidence: float | None = None
    shape: str | None = None
    aicc: float | None = None
    best_axes: tuple[str, ...] | None = None
    leave_one_out: LeaveOneOut | None = None
    trend: EndToEnd | None = None
    shift: Shift | None = None
    stability: ShiftStability | None = None
    confounded: str | None = None
    main: bool = True
    """Whether the summary reports it: a main metric over non-embedding parameters."""
    sentence: str = ""

    @property
    def told(self) -> bool:
        """Whether it says that the metric goes with size: a threshold, or odds that are large enough."""
        return self.low is not None or (self.shift is not None and self.shift.told)


@dataclass(frozen=True)
class Band:
    """A metric's mean over seeds at each step, and the half width of its interval."""

    mean: tuple[float | None, ...]
    half: tuple[float | None, ...]


@dataclass(frozen=True)
class EncodedModel:
    """One model of a comparison of position encodings, its seeds together."""

    model: str
    encoding: str
    own_body: bool
    """Whether it differs from the others in more than its encoding."""
    seeds: tuple[int, ...]
    steps: tuple[int, ...]
    metrics: Mapping[str, Band]
    phases: Mapping[str, int]
    """Phase label -> seeds that show it."""


@dataclass(frozen=True)
class EncodingDifference:
    """How one model differs from the reference in one metric, paired by seed."""

    model: str
    metric: str
    step: int
    difference: float
    half: float | None
    seeds: int
    p_value: float | None
    relative: float
    p_corrected: float | None = None
    matters: bool = False


@dataclass(frozen=True)
class EncodingComparison:
    """Models of one shape that differ in their position encoding."""

    suite: str
    reference: str
    models: tuple[EncodedModel, ...]
    differences: tuple[EncodingDifference, ...] = ()
    sentences: tuple[str, ...] = ()


@dataclass(frozen=True)
class Twin:
    """Two checkpoints that hold the same weights by design, and the metric that differs most."""

    model: str
    seed: int
    suites: tuple[str, str]
    steps: tuple[int, int]
    metric: str
    difference: float
    """Relative to the larger of the two values."""
    same: bool


@dataclass(frozen=True)
class Controls:
    """Controls of the measurement itself."""

    twins: tuple[Twin, ...] = ()


@dataclass(frozen=True)
class Condition:
    """One assumption of the paper judged on one model and seed."""

    suite: str
    model: str
    seed: int
    condition: str
    steps: tuple[int, ...]
    """Steps at which it breaks; where it holds, the step of ``value``; for moves, where they end."""
    value: float | None
    """The number judged; None where there is none to judge."""
    limit: float
    passed: bool | None
    """None where it cannot be judged; ``sentence`` says why."""
    sentence: str


@dataclass(frozen=True)
class HeadRole:
    """One head at the last checkpoint."""

    layer: int
    head: int
    role: str
    margin: float | None = None
    """Lower confidence bound of its score, as a share of the way from chance to a perfect head."""
    band: str | None = None
    band_share: float | None = None
    scale: float | None = None
    """Tokens per period at the median of its power."""
    birth: tuple[int, int] | None = None
    """Steps between which it takes the role for good; the first measured one twice where it has it there."""


@dataclass(frozen=True)
class ModelRoles:
    """The roles of the heads of one model and seed."""

    suite: str
    model: str
    seed: int
    step: int
    steps: tuple[int, ...] = ()
    heads: tuple[HeadRole, ...] = ()
    counts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Role -> heads that have it at each of ``steps``."""
    sentence: str = ""


@dataclass(frozen=True)
class AnalysisReport:
    """The content of ``analysis.json``."""

    probe: str = ""
    conventions: str = ""
    transitions: tuple[RunTransitions, ...] = ()
    phases: tuple[RunPhases, ...] = ()
    seeds: tuple[SeedChanges, ...] = ()
    lead_lag: tuple[ChangeContext, ...] = ()
    thresholds: tuple[ThresholdEntry, ...] = ()
    encodings: tuple[EncodingComparison, ...] = ()
    controls: Controls = field(default_factory=Controls)
    summary: tuple[str, ...] = ()
    alerts: tuple[Condition, ...] = ()
    roles: tuple[ModelRoles, ...] = ()
    made_of: str = ""
    """A digest of the rows, settings and code that it was made of; empty where it is not kept."""
    damaged: tuple[str, ...] = ()
    """Records that were left out, since their files are not those that were written: path and reason."""
    suspicious: tuple[str, ...] = ()
    """Sentences on checkpoints whose loss fits a far other step, so that they may hold other weights."""

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``analysis.json`` in JSON's types; what is not finite becomes None."""
        return to_dict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Read a stored report of this or an earlier version.

        Keys that are missing take their default, keys that are not known are ignored, and an entry that
        lacks what identifies it (suite, model, seed ...) is left out.

        Args:
            content: the content of ``analysis.json``.

        Example:
            >>> report = AnalysisReport.from_dict({"phases": [{"suite": "s", "model": "m", "seed": 0}, {}]})
            >>> [(entry.model, entry.change_points) for entry in report.phases]
            [('m', ())]
        """
        return from_dict(cls, content if isinstance(content, Mapping) else {})
