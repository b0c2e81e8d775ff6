"""When curves move: onset, half and end of every move beyond noise, turning points, and what comes back."""

from tracker.analysis.transition_types import CurveTransitions, Move, Passing, Transitions, Turn
from tracker.analysis.transitions.find import find_transitions

__all__ = ["CurveTransitions", "Move", "Passing", "Transitions", "Turn", "find_transitions"]
