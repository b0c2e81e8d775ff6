"""What the curves show: phases over training, thresholds over model size, roles of heads, comparisons."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tracker.analysis.trajectories import Trajectory, trajectories

if TYPE_CHECKING:
    from tracker.analysis.phase_report import analyse_phases
    from tracker.analysis.phases import Phases, find_phases
    from tracker.analysis.report import analyse
    from tracker.analysis.schema import AnalysisReport, ChangePoint, Phase
    from tracker.analysis.thresholds import Threshold, Verdict, find_threshold, judge_threshold
    from tracker.analysis.transition_types import Transitions
    from tracker.analysis.transitions import find_transitions

__all__ = [
    "AnalysisReport",
    "ChangePoint",
    "Phase",
    "Phases",
    "Threshold",
    "Trajectory",
    "Transitions",
    "Verdict",
    "analyse",
    "analyse_phases",
    "find_phases",
    "find_threshold",
    "find_transitions",
    "judge_threshold",
    "trajectories",
]

_HOMES = {
    "AnalysisReport": "schema",
    "ChangePoint": "schema",
    "Phase": "schema",
    "Phases": "phases",
    "Threshold": "thresholds",
    "Verdict": "thresholds",
    "analyse": "report",
    "analyse_phases": "phase_report",
    "find_phases": "phases",
    "find_threshold": "thresholds",
    "find_transitions": "transitions",
    "Transitions": "transition_types",
    "judge_threshold": "thresholds",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used: ``text`` needs no scipy."""
    if name in _HOMES:
        return getattr(import_module(f"tracker.analysis.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'tracker.analysis' has no attribute {name!r}")
