"""The phase-transition dashboard in the user's W&B project: panels over log steps, grouped by model size."""

import re
from collections.abc import Collection, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracker.atomic import read_json, save_json
from tracker.errors import RequestError, TrackerError
from tracker.metrics.registry import checkpoint_columns, title_of
from tracker.wandb_sink.charts import HEAD_COLUMNS, HEAD_METRICS, HEADS, PHASE_COLUMNS, PHASES, Chart
from tracker.wandb_sink.connection import readable, run_bounded
from tracker.wandb_sink.findings import first_step_of, transition
from tracker.wandb_sink.ledger import ledger_folder
from tracker.wandb_sink.options import SinkOptions
from tracker.wandb_sink.rows import HISTOGRAMS, MAPS, STEP_PLUS_ONE, TOKENS

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Section, Workspace

NAME = "Training phases of attention (tracker)"
GROUP = "n_params"
"""Runs of one size are one line with a band: their seeds."""
CURVES = {
    "Over training: entropy and selectivity": (
        "spectral_entropy_normalised", "frequency_selectivity", "averaged_spectral_entropy",
        "averaged_frequency_selectivity",
    ),
    "Over training: bands": ("band_power_low", "band_power_mid", "band_power_high"),
    "Over training: scale sensitivity": (
        "scale_sensitivity_0.5", "scale_sensitivity_0.25", "averaged_scale_sensitivity_0.5",
        "averaged_scale_sensitivity_0.25",
    ),
    "What else changes, and when": (
        "loss", "in_context_score", "prefix_matching_score", "previous_token_score", "sink_share",
        "head_redundancy",
    ),
}  # fmt: skip
"""Metrics of each section of curves, the covariates last. Sections are named and ordered as on the page."""
OVER_TOKENS = ("spectral_entropy_normalised", "frequency_selectivity")
OVER_SIZE = ("spectral_entropy_normalised", "frequency_selectivity", "averaged_scale_sensitivity_0.5", "loss")
"""Metrics whose last value is drawn against the number of parameters."""
MAPPED = HEAD_METRICS[:2]
"""Metrics of which the workspace has a head map."""
CHART_SECONDS = 40.0
"""How long the server may take to make the custom charts."""
EXISTS = re.compile("exist|duplicate", re.IGNORECASE)
"""How a server says that it has a chart of this name, whose version makes it this one."""
LEGEND = (
    "`phases`, `thresholds` and `holes` of a run say in words what was found and what is missing; "
    "`last_step` is the step of its last values. Lines are the mean over the seeds of a size, bands reach "
    "from the lowest to the highest seed. The axis is step + 1, since step 0 has no place on a log axis."
)


def build_workspace(entity: str, project: str, charts: Collection[Chart] = (PHASES, HEADS)) -> "Workspace":
    """Build the workspace without saving it anywhere; needs no network.

    Args:
        entity: the W&B user or team.
        project: the W&B project.
        charts: the custom charts that the entity has.
    """
    from wandb_workspaces.expr import Config
    from wandb_workspaces.workspaces import RunsetSettings, Workspace, WorkspaceSettings

    return Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=_sections(_custom(entity, charts)),
        # Not the metrics' own step axis: it begins at 0, which has no place on a log axis.
        settings=WorkspaceSettings(x_axis=STEP_PLUS_ONE, max_runs=100),
        runset_settings=RunsetSettings(groupby=[Config(GROUP)]),
    )


def _custom(entity: str, charts: Collection[Chart]) -> dict[str, list[Any]]:
    """The panels of custom charts, by the section that they open."""

    def panel(chart: Chart, columns: Iterable[str], value: str = "") -> Any:
        import wandb_workspaces.reports.v2 as wr

        return wr.CustomChart(
            query={"summaryTable": {"tableKey": chart.table}},
            chart_name=f"{entity}/{chart.name}",
            chart_fields={name: name for name in columns} | ({"value": value} if value else {}),
            chart_strings={"title": chart.title, "metric": title_of(value) if value else ""},
        )

    phases = [panel(PHASES, PHASE_COLUMNS)] if PHASES in charts else []
    heads = [panel(HEADS, HEAD_COLUMNS, metric) for metric in MAPPED] if HEADS in charts else []
    return {"Findings": phases, "Heads by layer": heads}


def _sections(custom: dict[str, list[Any]]) -> "list[Section]":
    import wandb_workspaces.reports.v2 as wr
    from wandb_workspaces.workspaces import Section

    known = set(checkpoint_columns())
    curves = {title: [_curve(each) for each in names if each in known] for title, names in CURVES.items()}
    phases = [
        _against_size(transition("half_step"), "Step by which the transition is half way", log_y=True),
        *(
            _against_size(first_step_of(label), f"Step at which the {label} phase begins", log_y=True)
            for label in ("exploratory", "specialisation")
        ),
    ]
    findings = [wr.MarkdownPanel(markdown=LEGEND), wr.RunComparer(diff_only="split")]
    sizes = [_against_size(metric, f"{title_of(metric)} at the last step") for metric in OVER_SIZE]
    maps = [wr.MediaBrowser(title=title_of(metric), media_keys=[f"maps/{metric}"]) for metric in MAPS]
    spread = [
        _curve(f"std/{metric}", title=f"{title_of(metric)}: spread over heads") for metric in HISTOGRAMS[:3]
    ]
    *training, covariates = (
        Section(name=title, panels=panels, is_open=True) for title, panels in curves.items()
    )
    tokens = [_curve(metric, TOKENS) for metric in OVER_TOKENS]
    return [
        Section(name="Findings", panels=[*custom["Findings"], *phases, *findings], is_open=True),
        *training,
        Section(name="Over training: tokens", panels=tokens),
        Section(name="Heads by layer", panels=[*custom["Heads by layer"], *maps, *spread]),
        covariates,
        Section(name="Model size", panels=sizes, is_open=True),
    ]


def _curve(metric: str, axis: str = STEP_PLUS_ONE, *, title: str = "") -> Any:
    import wandb_workspaces.reports.v2 as wr

    return wr.LinePlot(
        title=title or title_of(metric),
        x=axis,
        y=[metric],
        log_x=True,
        title_x="step + 1" if axis == STEP_PLUS_ONE else "tokens",
        groupby=wr.Config(GROUP),
        groupby_aggfunc="mean",
        groupby_rangefunc="minmax",
        smoothing_factor=0,
        max_runs_to_show=100,
    )


def _against_size(summary: str, title: str, *, log_y: bool = False) -> Any:
    import wandb_workspaces.reports.v2 as wr

    return wr.ScatterPlot(
        title=title, x=wr.Config(GROUP), y=wr.SummaryMetric(summary), log_x=True, log_y=log_y
    )


def require_server(options: SinkOptions) -> None:
    """Check, before anything is sent, that there is a server to keep a workspace.

    Raises:
        RequestError: rows would not go to a server; says why.
    """
    from tracker.wandb_sink.client import sends_online

    if not sends_online(options):
        raise RequestError(
            f"workspace=true: a workspace lives on the W&B server, and sink.mode={options.mode} sends "
            "nothing there; use sink.mode=online and a key (`wandb login`)"
        )


def save_workspace(folder: Path, options: SinkOptions) -> list[str]:
    """Create the workspace in the user's project, or renew the one that was created before.

    Args:
        folder: the store's folder, which remembers which workspace of the project is tracker's, and which
            charts were made.
        options: which project.

    Returns:
        A sentence with its address, after one on each custom chart that the server refused.

    Raises:
        TrackerError: the server did not take it, with its reason.
    """
    from tracker.wandb_sink.client import default_entity

    path = ledger_folder(folder, options) / "workspace.json"
    kept = _remembered(path)
    try:
        entity = options.entity or default_entity()
        charts, refusals = _made_charts(entity, kept["charts"])
        workspace: Any = build_workspace(entity, options.project, charts)
        workspace._internal_name, workspace._internal_id = kept["name"], kept["id"]
        workspace.save()
        path.parent.mkdir(parents=True, exist_ok=True)
        ids = [f"{entity}/{chart.name}" for chart in charts]
        save_json(path, {"name": workspace._internal_name, "id": workspace._internal_id, "charts": ids})
    # The boundary to W&B: whatever its client raises becomes one sentence.
    except Exception as error:
        raise TrackerError(
            f"the W&B workspace was not saved: {readable(error)}; the rows are sent, and "
            f"`tracker stream store={folder} workspace=true` tries again"
        ) from error
    return [*refusals, f"W&B workspace: {workspace.url}"]


def _made_charts(entity: str, known: Collection[str]) -> tuple[list[Chart], list[str]]:
    """Make the custom charts that were not made before: those that there are, and why others are not."""
    from tracker.wandb_sink.client import make_chart

    new = [chart for chart in (PHASES, HEADS) if f"{entity}/{chart.name}" not in known]
    failures = run_bounded([partial(make_chart, entity, chart) for chart in new], CHART_SECONDS)
    refused = {
        chart.name: readable(failure)
        for chart, failure in zip(new, failures, strict=True)
        if failure is not None and not EXISTS.search(str(failure))
    }
    sentences = [
        f"W&B chart {name} was not made: {why}; the workspace goes without it"
        for name, why in refused.items()
    ]
    return [chart for chart in (PHASES, HEADS) if chart.name not in refused], sentences


def _remembered(path: Path) -> dict[str, Any]:
    """Return name and id of the workspace that was created before, and ids of charts; empty without one."""
    kept = {"name": "", "id": "", "charts": []}
    try:
        content = read_json(path)
        return kept | {
            "name": str(content["name"]),
            "id": str(content["id"]),
            "charts": content.get("charts", []),
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return kept
