"""Names of ``tracker.console`` as commands import them."""

from tracker.console.output import (
    DONE,
    SOME_FAILED,
    make_console,
    readable_bytes,
    readable_time,
)
from tracker.console.output import print_alerts as tell_alerts
from tracker.console.output import print_findings as tell_findings
from tracker.console.output import print_holes as tell_holes
from tracker.console.output import print_line as say
from tracker.console.progress import Bars
from tracker.console.tables import audit_table, by_model, comparison_table, plan_table

__all__ = [
    "DONE",
    "SOME_FAILED",
    "Bars",
    "audit_table",
    "by_model",
    "comparison_table",
    "make_console",
    "plan_table",
    "readable_bytes",
    "readable_time",
    "say",
    "tell_alerts",
    "tell_findings",
    "tell_holes",
]
