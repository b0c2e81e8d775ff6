"""What a person sees in the terminal: progress while it runs, tables, charts, and lines of text."""

from tracker.console.charts import show_charts
from tracker.console.output import (
    DONE,
    SOME_FAILED,
    make_console,
    print_alerts,
    print_findings,
    print_holes,
    print_line,
    readable_bytes,
    readable_rate,
    readable_time,
)
from tracker.console.progress import Bars
from tracker.console.tables import audit_table, by_model, plan_table

__all__ = [
    "DONE",
    "SOME_FAILED",
    "Bars",
    "audit_table",
    "by_model",
    "make_console",
    "plan_table",
    "print_alerts",
    "print_findings",
    "print_holes",
    "print_line",
    "readable_bytes",
    "readable_rate",
    "readable_time",
    "show_charts",
]
