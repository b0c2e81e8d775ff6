"""What the curves say: phases over training, thresholds over model size, and when neither can be told."""

from tracker.analysis.phases import ChangePoint, Phase, Phases, find_phases
from tracker.analysis.report import analyse, analyse_phases
from tracker.analysis.thresholds import Threshold, Verdict, find_threshold, judge_threshold
from tracker.analysis.trajectories import Trajectory, trajectories

__all__ = [
    "ChangePoint",
    "Phase",
    "Phases",
    "Threshold",
    "Trajectory",
    "Verdict",
    "analyse",
    "analyse_phases",
    "find_phases",
    "find_threshold",
    "judge_threshold",
    "trajectories",
]
