"""Views of a store: the dashboard and the figures. Made from the store and analysis.json alone."""

from tracker.views.dashboard import write_dashboard
from tracker.views.data import dashboard_data
from tracker.views.figure_files import write_figures
from tracker.views.figure_scale import scale_figure
from tracker.views.figures import measurement_figure, phase_figure

__all__ = [
    "dashboard_data",
    "measurement_figure",
    "phase_figure",
    "scale_figure",
    "write_dashboard",
    "write_figures",
]
