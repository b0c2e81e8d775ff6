"""Views of a store: the dashboard and the figures. Made from the store and analysis.json alone."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracker.views.dashboard import write_dashboard
    from tracker.views.data import dashboard_data
    from tracker.views.figure_files import write_figures
    from tracker.views.figure_scale import compare_figure, scale_figure
    from tracker.views.figures import phase_figure
    from tracker.views.measurement import measurement_figure, measurement_html, measurement_text

__all__ = [
    "compare_figure",
    "dashboard_data",
    "measurement_figure",
    "measurement_html",
    "measurement_text",
    "phase_figure",
    "scale_figure",
    "write_dashboard",
    "write_figures",
]

_HOMES = {
    "compare_figure": "figure_scale",
    "dashboard_data": "data",
    "measurement_figure": "measurement",
    "measurement_html": "measurement",
    "measurement_text": "measurement",
    "phase_figure": "figures",
    "scale_figure": "figure_scale",
    "write_dashboard": "dashboard",
    "write_figures": "figure_files",
}


def __getattr__(name: str) -> Any:
    """Load a view when it is first used: the page needs no matplotlib."""
    if name in _HOMES:
        return getattr(import_module(f"tracker.views.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'tracker.views' has no attribute {name!r}")
