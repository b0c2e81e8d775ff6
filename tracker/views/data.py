"""The data of the dashboard: everything the page shows, as plain JSON, from the store and analysis.json."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tracker.analysis.axes import AXES, size_on
from tracker.analysis.lead_lag import COVARIATES
from tracker.checkpoints.audit import file as audit_file
from tracker.metrics.registry import DESCRIBED, checkpoint_columns, metric_of, title_of
from tracker.store import SPECTRUM_BANDS, Results
from tracker.views.encode import LEVELS, MISSING, plain, rounded_list
from tracker.views.glance import glance
from tracker.views.head_maps import SPECTRUM_HIGH, SPECTRUM_LOW, head_maps, head_shapes, map_metrics
from tracker.views.landmarks import landmarks_of
from tracker.views.palette import HEAT, PHASES, line_colours
from tracker.views.runs import Run, holes_of, model_names, runs_of

FIRST_SIGHT = ("spectral_entropy", "frequency_selectivity", "band_power_low", "loss")
"""Metrics of the four panels that the page opens with."""
SHORT_COMMIT = 8
AUDITED = ("step", "seed", "fault", "with", "file", "known", "sentence")
"""What the page tells of a finding."""
GROUPS = (
    ("Spectrum", r"spectral_|frequency_selectivity|band_power"),
    ("Position", r"positional_|position_spectrum|window_entropy|local_share"),
    ("Scale and wavelets", r"scale_sensitivity|wavelet_entropy|reconstruction"),
    ("Heads", r"previous_token|prefix_matching|sink_share|head_redundancy"),
    ("Theory checks", r"frame_|admissibility|refinement"),
    ("Language model", r"loss$|in_context"),
)
OWN_GROUP = "Own metrics"


def dashboard_data(
    results: Results,
    analysed: Mapping[str, Any] | None,
    *,
    served: bool = False,
    runs: list[Run] | None = None,
) -> dict[str, Any]:
    """Everything the page shows.

    Args:
        results: an opened store.
        analysed: content of analysis.json; None or empty where nothing was analysed yet.
        served: for a page that asks a server for the maps and spectra it shows: they are left out.
        runs: ``runs_of(results)``, where it is known already.

    Returns:
        A dict of JSON types only, without NaN: series to four significant digits (half widths to two),
        head maps and spectra in eight bits (``maps``, with ``levels``, ``missing`` and their scales).

    Raises:
        StoreError: a table of the store cannot be read.
    """
    runs = runs_of(results) if runs is None else runs
    holes = holes_of(results)
    analysis: dict[str, Any] = plain(analysed or {})
    models = model_names(runs)
    bands = {"count": SPECTRUM_BANDS, "low": SPECTRUM_LOW, "high": SPECTRUM_HIGH, "scale": "log10 of share"}
    data = {
        "store": results.folder.name,
        "probe": _only(results, "probe"),
        "conventions": _only(results, "conventions"),
        "summary": list(analysis.get("summary", [])),
        "alerts": list(analysis.get("alerts", [])),
        "analysed": bool(analysis),
        "counts": _counts(runs, holes),
        "metrics": _metrics(runs),
        "first_sight": list(FIRST_SIGHT),
        "models": [{"suite": suite, "model": model} for suite, model in models],
        "colours": {theme: line_colours(len(models), theme) if models else [] for theme in ("light", "dark")},
        "heat": {theme: list(colours) for theme, colours in HEAT.items()},
        "phase_colours": PHASES,
        "runs": [_run(run) for run in runs],
        "served": served,
        "map_metrics": map_metrics(runs),
        "maps": (head_shapes(runs) if served else head_maps(results, runs))
        | {"levels": LEVELS, "missing": MISSING, "bands": bands},
        "glance": glance(analysis),
        "phases": list(analysis.get("phases", [])),
        "lead_lag": list(analysis.get("lead_lag", [])),
        "covariates": [{"name": name, "title": title_of(name)} for name in COVARIATES],
        "thresholds": list(analysis.get("thresholds", [])),
        "roles": list(analysis.get("roles", [])),
        "encodings": list(analysis.get("encodings", [])),
        "axes": [{"name": name, "title": capital(title)} for name, title in AXES.items()],
        "landmarks": landmarks_of(runs),
        "holes": holes,
        "audit": _audit(results, runs),
    }
    return plain(data)


def _audit(results: Results, runs: list[Run]) -> list[dict[str, Any]]:
    """What audit.json says of the repositories and folders shown, as far as the page tells it."""
    shown = {run.facts["repo"] for run in runs}
    return [
        {
            "repo": repo, "checked": len(entry["checked"]), "disagreements": entry["disagreements"],
            "findings": [{key: finding[key] for key in AUDITED} for finding in entry["findings"]],
        }
        for repo, audit in audit_file.read(results.folder).items() if repo in shown
        for entry in [audit.as_json()]
    ]  # fmt: skip


def _only(results: Results, column: str) -> str | None:
    values = results.checkpoints([column])[column].unique().to_list()
    return values[0] if values else None


def _counts(runs: list[Run], holes: list[dict[str, Any]]) -> dict[str, int]:
    status = Counter(hole["status"] for hole in holes)
    return {
        "models": len(model_names(runs)), "runs": len(runs),
        "checkpoints": sum(len(run.steps) for run in runs),
        "failed": status["failed"], "missing": status["missing"],
    }  # fmt: skip


def _metrics(runs: list[Run]) -> list[dict[str, Any]]:
    present = {name for run in runs for name in run.series}
    described = []
    for name in checkpoint_columns():
        if name in present:
            metric = metric_of(name)
            described.append({
                "name": name, "title": title_of(name), "unit": metric.unit, "meaning": metric.meaning,
                "source": metric.source, "level": metric.level, "group": _group(name),
            })  # fmt: skip
    return described


def _group(name: str) -> str:
    bare = name.removeprefix("averaged_")
    group = next((title for title, pattern in GROUPS if re.match(pattern, bare)), "Other")
    group = OWN_GROUP if bare in DESCRIBED else group
    return f"{group}, averaged signal" if bare != name else group


def _run(run: Run) -> dict[str, Any]:
    return {
        "key": run.key, "suite": run.suite, "model": run.model, "seed": run.seed, "label": run.label,
        "rank": run.rank, "steps": run.steps, "tokens": rounded_list(run.tokens, 12),
        "facts": run.facts | {"all_heads": size_on(run.facts, "all_heads")},
        "suspects": run.suspects,
        "commits": [commit[:SHORT_COMMIT] if commit else None for commit in run.commits],
        "series": {
            name: {"mean": rounded_list(series.mean), "half": rounded_list(series.half, 2),
                   "q25": rounded_list(series.q25), "q75": rounded_list(series.q75)}
            for name, series in run.series.items()
        },
    }  # fmt: skip


def capital(title: str) -> str:
    """A title with a large first letter and all others as they are."""
    return title[:1].upper() + title[1:]
