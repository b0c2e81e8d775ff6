"""The phase-transition dashboard in the user's W&B project: panels over log steps, grouped by model size."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tracker.columns import checkpoint_columns, title_of
from tracker.sinks.maps import MAPS
from tracker.sinks.options import SinkOptions
from tracker.sinks.rows import HISTOGRAMS, STEP_PLUS_ONE, TOKENS
from tracker.store import safe_name

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Section, Workspace

NAME = "Training phases of attention (tracker)"
GROUP = "n_params"
"""Runs of one size are one line with a band: their seeds."""
CURVES = {
    "Phases: entropy and selectivity": (
        "spectral_entropy_normalised", "frequency_selectivity", "averaged_spectral_entropy",
        "averaged_frequency_selectivity",
    ),
    "Bands": ("band_power_low", "band_power_mid", "band_power_high"),
    "Scale": (
        "scale_sensitivity_0.5", "scale_sensitivity_0.25", "averaged_scale_sensitivity_0.5",
        "averaged_scale_sensitivity_0.25",
    ),
    "What the model can do": (
        "loss", "in_context_score", "prefix_matching_score", "previous_token_score", "sink_share",
        "head_redundancy",
    ),
}  # fmt: skip
"""Metrics of each section of curves."""
OVER_SIZE = ("spectral_entropy_normalised", "frequency_selectivity", "averaged_scale_sensitivity_0.5", "loss")
"""Metrics whose last value is drawn against the number of parameters."""


def build_workspace(entity: str, project: str) -> "Workspace":
    """The workspace, not saved anywhere; needs no network.

    Args:
        entity: the W&B user or team.
        project: the W&B project.
    """
    import wandb_workspaces.reports.v2 as wr
    from wandb_workspaces.workspaces import RunsetSettings, Workspace, WorkspaceSettings

    return Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[*_curves(), _over_tokens(), _over_size(), _heads(), _found()],
        # Not the metrics' own step axis: it begins at 0, which has no place on a log axis.
        settings=WorkspaceSettings(x_axis=STEP_PLUS_ONE, max_runs=100),
        runset_settings=RunsetSettings(groupby=[wr.Config(GROUP)]),
    )


def _curves() -> "list[Section]":
    from wandb_workspaces.workspaces import Section

    known = set(checkpoint_columns())
    return [
        Section(
            name=title,
            panels=[_curve(metric, STEP_PLUS_ONE, log=True) for metric in metrics if metric in known],
            is_open=True,
        )
        for title, metrics in CURVES.items()
    ]


def _curve(metric: str, axis: str, *, log: bool):  # noqa: ANN202  # a pydantic class made at run time
    import wandb_workspaces.reports.v2 as wr

    return wr.LinePlot(
        title=title_of(metric),
        x=axis,
        y=[metric],
        log_x=log,
        title_x="step + 1" if axis == STEP_PLUS_ONE else "tokens",
        groupby=wr.Config(GROUP),
        groupby_aggfunc="mean",
        groupby_rangefunc="minmax",
        smoothing_factor=0,
        max_runs_to_show=100,
    )


def _over_tokens() -> "Section":
    from wandb_workspaces.workspaces import Section

    metrics = ("spectral_entropy_normalised", "frequency_selectivity")
    return Section(name="Over tokens", panels=[_curve(metric, TOKENS, log=True) for metric in metrics])


def _over_size() -> "Section":
    import wandb_workspaces.reports.v2 as wr
    from wandb_workspaces.workspaces import Section

    panels = [
        wr.ScatterPlot(
            title=f"{title_of(metric)} at the last step",
            x=wr.Config(GROUP),
            y=wr.SummaryMetric(metric),
            log_x=True,
        )
        for metric in OVER_SIZE
    ]
    return Section(name="Against parameters", panels=panels, is_open=True)


def _heads() -> "Section":
    import wandb_workspaces.reports.v2 as wr
    from wandb_workspaces.workspaces import Section

    maps = [wr.MediaBrowser(title=title_of(metric), media_keys=[f"maps/{metric}"]) for metric in MAPS]
    spread = [_curve(f"std/{metric}", STEP_PLUS_ONE, log=True) for metric in HISTOGRAMS[:3]]
    return Section(name="Heads: layer x head maps, spread over heads", panels=[*maps, *spread])


def _found() -> "Section":
    import wandb_workspaces.reports.v2 as wr
    from wandb_workspaces.workspaces import Section

    panels = [
        wr.RunComparer(diff_only=False, layout=wr.Layout(w=24, h=8)),
        wr.MarkdownPanel(
            markdown="Phases, thresholds and holes of each run stand in its summary under `phases`, "
            "`thresholds` and `holes`, in words; `last_step` is the step of its last values."
        ),
    ]
    return Section(name="Phases, thresholds and holes", panels=panels, is_open=True)


def view_file(folder: Path, options: SinkOptions, entity: str) -> Path:
    """Where it is kept which workspace of a project is tracker's, so that the next time renews it."""
    names = (safe_name(entity), safe_name(options.project))
    return folder.joinpath("wandb", "sent", *names, "workspace.json")


def remembered(path: Path) -> tuple[str, str] | None:
    """Name and id of the workspace that was made before; None where there was none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return str(content["name"]), str(content["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
