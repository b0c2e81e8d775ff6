"""Views of a store: the dashboard and the figures. Made from the store and analysis.json alone."""

from tracker.views.dashboard import write_dashboard
from tracker.views.data import dashboard_data
from tracker.views.figure_files import write_figures
from tracker.views.figure_scale import compare_figure, scale_figure
from tracker.views.figures import phase_figure
from tracker.views.measurement import measurement_figure, measurement_html

__all__ = [
    "compare_figure",
    "dashboard_data",
    "measurement_figure",
    "measurement_html",
    "phase_figure",
    "scale_figure",
    "write_dashboard",
    "write_figures",
]
