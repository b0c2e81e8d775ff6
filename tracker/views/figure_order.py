"""What else changes around each change of the spectrum, and the state of every planned checkpoint."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from tracker.analysis.schema import ChangeContext, Lag
from tracker.errors import counted
from tracker.metrics.registry import title_of
from tracker.views.figure_style import (
    INK,
    SOFT,
    empty_figure,
    literal,
    name_rows,
    place,
    style,
    training_axis,
)
from tracker.views.palette import PHASES, VERDICTS
from tracker.views.prepared import Checkpoints, LeadLag
from tracker.views.runs import Run

MARKERS = {"before": "<", "with": "o", "after": ">", "cannot tell": "o", "still": "_"}
"""Shapes separate the verdicts without colour."""
PALE = ("cannot tell", "still")
STATES = {
    "measured": ("o", "#2f93a6"),
    "suspect": ("o", "#b06a00"),
    "failed": ("x", INK),
    "missing": ("|", SOFT),
    "damaged": ("x", SOFT),
}


def draw_lead_lag(view: LeadLag) -> Figure:
    """Draw the covariates of one run around its changes, and how they lie to the transition in every run."""
    if view.shown is None:
        return empty_figure("No change was found, so nothing precedes or follows one.")
    names = view.covariates
    with style():
        figure = Figure(figsize=(9.2, 1.3 + 0.42 * len(names)), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[1.7, 1], sharey=True)
        _changes(left, view.shown, view.of_run(view.shown), names)
        _orders(right, view)
        handles = [
            Line2D([], [], marker=marker, color=_colour(verdict), ls="", ms=6,
                   label=VERDICTS[verdict]["name"],
                   mfc="none" if verdict == "cannot tell" else _colour(verdict),
                   mec=SOFT if verdict in PALE else _colour(verdict))
            for verdict, marker in MARKERS.items()
        ]  # fmt: skip
        figure.legend(
            handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8
        )
    return figure


def _colour(verdict: str) -> tuple[float, float, float, float]:
    """As on the page's light theme; pale where nothing is claimed."""
    return to_rgba(VERDICTS[verdict]["light"], 0.25 if verdict in PALE else 1.0)


def _changes(axes: Axes, run: Run, changes: Sequence[ChangeContext], names: Sequence[str]) -> None:
    for change in changes:
        low, high = map(float, place([change.step_low, change.step_high]))
        axes.axvspan(low, high, color=PHASES["exploratory"]["light"], alpha=0.2, lw=0)
    for turn, change in enumerate(changes):
        offset = (turn - (len(changes) - 1) / 2) * 0.2
        for name, covariate in change.covariates.items():
            if covariate.verdict in MARKERS and name in names:
                _mark(axes, names.index(name) + offset, change, covariate)
    training_axis(axes, int(run.steps[-1]), zero=0 in run.steps)
    name_rows(axes, [title_of(name) for name in names])
    axes.set_title(f"{literal(run.label)}: {counted(len(changes), 'change')} (shaded)")


def _mark(axes: Axes, y: float, change: ChangeContext, covariate: Lag) -> None:
    verdict, colour = covariate.verdict, _colour(covariate.verdict)
    ends = place(covariate.bracket or (change.step_low, change.step_high))
    if covariate.bracket:
        axes.plot(ends, [y, y], color=colour, lw=2.2, solid_capstyle="butt")
    pale = verdict in PALE
    axes.plot(ends.mean(), y, MARKERS[verdict], color=SOFT if pale or not covariate.bracket else colour,
              ms=5.5, mfc="none" if pale else colour)  # fmt: skip


def _orders(axes: Axes, view: LeadLag) -> None:
    """Octaves from each run's transition to each covariate, at 90 %; runs in the order of the report."""
    shift = 0.7 / max(1, len(view.changes) - 1)
    for order, change in enumerate(view.changes):
        for row, name in enumerate(view.covariates):
            lag = change.covariates.get(name)
            if lag is None or lag.interval is None:
                continue
            y = row + (order * shift - 0.35 if len(view.changes) > 1 else 0.0)
            axes.plot(lag.interval, [y, y], color=_colour(lag.verdict), lw=2, solid_capstyle="butt")
    axes.axvline(0, color=SOFT, lw=0.9, ls=":")
    axes.grid(False)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("octaves from the transition's half (90 %)")
    axes.set_title(f"Earlier or later, in {counted(len(view.changes), 'run')}")


def draw_checkpoints(view: Checkpoints) -> Figure:
    """Draw every planned checkpoint by run and step, with its state; suspect ones are hollow."""
    table = view.table
    if table.is_empty():
        return empty_figure("This store holds no checkpoint.")
    rows = {name: row for row, name in enumerate(view.labels)}
    with style():
        figure = Figure(figsize=(9.2, 1.2 + 0.24 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for state, (marker, colour) in STATES.items():
            part = table.filter(state=state)
            if part.is_empty():
                continue
            y = [rows[row] for row in part.select("suite", "model", "seed").iter_rows()]
            size, fill = (3.6 if state == "measured" else 5.5), ("none" if state == "suspect" else colour)
            label = f"{state}: {part.height}"
            axes.plot(place(part["step"]), y, marker, color=colour, ms=size, ls="", mfc=fill, label=label)
        training_axis(axes, int(table["step"].max()), zero=0 in table["step"])  # type: ignore[arg-type]
        name_rows(axes, list(view.labels.values()))
        axes.grid(False)
        figure.legend(loc="outside upper right", ncols=5, frameon=False, fontsize=8)
    return figure
