"""Is tracker right? Signals whose answers are known, independent witnesses, and curves with planted truth."""

from tracker.validate.agreement import agreement
from tracker.validate.detection import detection, runs_in_all
from tracker.validate.experiments import ground_truth
from tracker.validate.finding import Finding
from tracker.validate.tables import conditions_table, findings_table

__all__ = [
    "Finding",
    "agreement",
    "conditions_table",
    "detection",
    "findings_table",
    "ground_truth",
    "runs_in_all",
]
