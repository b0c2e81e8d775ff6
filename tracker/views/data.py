"""The data of the dashboard as JSON: everything that the page shows, from the store and analysis.json."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tracker import facts
from tracker.analysis.axes import AXES, size_on
from tracker.analysis.labels import label_columns
from tracker.analysis.schema import (
    AnalysisReport,
    ChangeContext,
    RunPhases,
    RunTransitions,
    ThresholdEntry,
    to_dict,
)
from tracker.analysis.text.closing import findings, model_rows
from tracker.analysis.thresholds import ENOUGH
from tracker.checkpoints.audit import file as audit_file
from tracker.metrics.registry import Registry, checkpoint_columns, is_custom, metric_of, title_of
from tracker.store import SPECTRUM_BANDS, Results
from tracker.views.encode import LEVELS, MISSING, rounded_list
from tracker.views.head_maps import SPECTRUM_HIGH, SPECTRUM_LOW, head_maps, head_shapes, map_metrics
from tracker.views.palette import HEAT, PHASES, VERDICTS, line_colours
from tracker.views.paper import beside_paper, paper_points, paper_threshold
from tracker.views.prepared import (
    LAST_COMMON,
    LeadLag,
    Trajectories,
    move_role,
    name_of,
    read_report,
    spans,
    unread_sections,
)
from tracker.views.runs import Run, common_steps, holes_of, model_names, runs_of

SHORT_COMMIT = 8
AUDITED = ("step", "seed", "fault", "with", "file", "known", "sentence")
"""What the page shows of a finding."""
GROUPS = (
    (
        "Weights",
        r"(stable_rank|effective_rank|spectral_norm|outlier_ratio|rotary_\w+)_(q|k|v|o|qk|ov|mlp_\w+)$",
    ),
    ("Hidden states", r"state_|layer_sink"),
    ("Spectrum", r"spectral_|frequency_selectivity|band_power"),
    ("Position", r"positional_|position_spectrum|window_entropy|local_share"),
    ("Scale and wavelets", r"scale_sensitivity|wavelet_entropy|reconstruction"),
    ("Heads", r"previous_token|prefix_matching|sink_share|head_redundancy"),
    ("Theory checks", r"frame_|admissibility|refinement"),
    ("Language model", r"loss$|in_context"),
)
CUSTOM_GROUP = "Custom metrics"
PYTHIA_SUITES = ("pythia", "pythia-deduped", "polypythias")
"""Suites trained on Pythia's schedule; the landmarks' steps mean nothing elsewhere."""


def dashboard_data(
    results: Results,
    analysed: Mapping[str, Any] | None,
    *,
    served: bool = False,
    runs: list[Run] | None = None,
) -> dict[str, Any]:
    """Collect everything that the page shows.

    Args:
        results: an opened store.
        analysed: content of analysis.json; None or empty where nothing was analysed yet. Entries written by
            another version are left out, their sections named under ``unread``.
        served: for a page that asks a server for the maps and spectra it shows: they are left out.
        runs: ``runs_of(results)``, where it is known already.

    Returns:
        A dict of JSON types only, without NaN: series to four significant digits (half widths to two),
        head maps and spectra in eight bits (``maps``, with ``levels``, ``missing`` and their scales).

    Raises:
        StoreError: a table of the store cannot be read.
    """
    checkpoints = results.checkpoints() if runs is None else None
    runs = runs_of(results, checkpoints) if runs is None else runs
    report = read_report(analysed)
    alerts = (analysed or {}).get("alerts")
    alerts = alerts if isinstance(alerts, list | tuple) else ()
    maps = head_shapes(runs) if served else head_maps(results, runs)
    bands = {"count": SPECTRUM_BANDS, "low": SPECTRUM_LOW, "high": SPECTRUM_HIGH, "scale": "log10 of share"}
    data = {
        "unread": unread_sections(analysed, report),
        "alerts": [
            each for each in alerts if isinstance(each, dict) and isinstance(each.get("sentence"), str)
        ],
        "store": results.folder.name,
        "analysed": bool(analysed),
        "served": served,
        "metrics": _metrics(runs, results.registry),
        "map_metrics": map_metrics(runs),
        "axes": [{"name": name, "title": capital(title)} for name, title in AXES.items()],
        "landmarks": landmarks_of(runs),
        "audit": _audit(results, runs),
        "paper": beside_paper(runs) | {"points": paper_points(), "threshold": paper_threshold()},
        "enough_sizes": ENOUGH,
    }
    holes = holes_of(results, checkpoints)
    converted = to_dict(data | _models(runs, holes) | _colours(runs) | _report(runs, report))
    maps |= {"levels": LEVELS, "missing": MISSING, "bands": bands}
    return converted | {"runs": [_run(run) for run in runs], "maps": maps}


def _models(runs: list[Run], holes: list[dict[str, Any]]) -> dict[str, Any]:
    models, status = model_names(runs), Counter(hole["status"] for hole in holes)
    counts = {
        "models": len(models), "runs": len(runs), "checkpoints": sum(len(run.steps) for run in runs),
        "failed": status["failed"], "missing": status["missing"], "damaged": status["damaged"],
    }  # fmt: skip
    named = [{"suite": suite, "model": model} for suite, model in models]
    return {"models": named, "counts": counts, "holes": holes}


def _colours(runs: list[Run]) -> dict[str, Any]:
    number = len(model_names(runs))
    return {
        "colours": {theme: line_colours(number, theme) for theme in ("light", "dark")},
        "heat": {theme: list(colours) for theme, colours in HEAT.items()},
        "phase_colours": PHASES,
        "verdicts": VERDICTS,
    }


def _report(runs: list[Run], report: AnalysisReport) -> dict[str, Any]:
    """The sections of analysis.json, and which run of each is shown first."""
    trajectories = Trajectories.of(runs, report)
    lead_lag = LeadLag.of(trajectories, report)
    shown = trajectories.shown or (runs[-1] if runs else None)
    shared = common_steps(runs)
    return {
        "panels": trajectories.metrics,
        "shared_steps": shared,
        "shown": {
            "run": shown.key if shown else "",
            "phases": trajectories.shown.key if trajectories.shown else "none",
            "lead_lag": lead_lag.shown.key if lead_lag.shown else "",
        },
        "findings": [{"heading": heading, "text": text} for heading, text in findings(report)],
        "model_rows": [to_dict(row) for row in model_rows(report)],
        "transitions": [_transitions(entry) for entry in report.transitions if entry.steps],
        "summary": report.summary,
        "phases": [_phases(entry) for entry in report.phases],
        "lead_lag": [_change(change) for change in report.lead_lag],
        "covariates": [{"name": name, "title": title_of(name)} for name in lead_lag.covariates],
        "thresholds": [_threshold(each, shared) for each in report.thresholds],
        "roles": [to_dict(entry) | {"key": _key(entry)} for entry in report.roles],
        "encodings": [to_dict(entry) for entry in report.encodings],
    }


def _key(entry: Any) -> str:
    return "/".join(map(str, name_of(entry)))


def _phases(entry: RunPhases) -> dict[str, Any]:
    kept = {name: to_dict(getattr(entry, name)) for name in ("phases", "change_points", "sentence")}
    return kept | {"key": _key(entry), "spans": to_dict(spans(entry.phases))}


def _transitions(entry: RunTransitions) -> dict[str, Any]:
    """The moves of the joint curve with their dates, and what entropy and selectivity do in the main one."""
    structure, found = entry.structure, []
    for move in structure.moves:
        dates = [
            {"between": [each.step_low, each.step_high], "interval": each.interval}
            for each in (move.onset, move.half, move.end)
        ]
        kept = {name: getattr(move, name) for name in ("pace", "octaves", "open_start", "open_end")}
        levels = _levels(entry) if move is structure.main else []
        found.append(kept | {"role": move_role(structure, move), "dates": dates, "levels": levels})
    turns = [to_dict(turn) for turn in structure.turns]
    note = structure.note if structure.p_value is None else None
    return {"key": _key(entry), "moves": to_dict(found), "turns": turns, "note": note}


def _levels(entry: RunTransitions) -> list[dict[str, Any]]:
    mains = [(name, entry.curves[name].main) for name in label_columns(list(entry.curves)) or ()]
    return [
        {"title": title_of(name), "start": move.start, "finish": move.finish} for name, move in mains if move
    ]


def _change(change: ChangeContext) -> dict[str, Any]:
    by_metric = change.contributions
    heads = by_metric.get("frequency_selectivity") or by_metric.get("spectral_entropy")
    return to_dict(change) | {"key": _key(change), "contributions": to_dict(heads)}


def _threshold(threshold: ThresholdEntry, shared: list[int]) -> dict[str, Any]:
    step = shared[-1] if threshold.step == LAST_COMMON and shared else threshold.step
    return to_dict(threshold) | {"step": step}


def _audit(results: Results, runs: list[Run]) -> list[dict[str, Any]]:
    """What audit.json says of the repositories and folders shown, as far as the page shows it."""
    shown = {audit_file.placed(run.facts["repo"]) for run in runs}
    return [
        {
            "repo": repo, "checked": len(entry["checked"]),
            "disagreements": entry.get("disagreements", []),
            "findings": [{key: finding.get(key) for key in AUDITED} for finding in entry["findings"]],
        }
        for repo, audit in audit_file.read(results.folder).items() if repo in shown
        for entry in [audit.as_json()]
    ]  # fmt: skip


def _short(commit: str | None) -> str | None:
    """A commit's first characters; those of a folder's fingerprint follow its prefix."""
    if not commit:
        return None
    prefix, dash, digits = commit.rpartition("-")
    return f"{prefix}{dash}{digits[:SHORT_COMMIT]}"


def _metrics(runs: list[Run], registry: Registry) -> list[dict[str, Any]]:
    present = {name for run in runs for name in run.series}
    described = []
    for name in checkpoint_columns(registry):
        if name in present:
            metric = metric_of(name, registry)
            described.append({
                "name": name, "title": title_of(name, registry), "unit": metric.unit,
                "meaning": metric.meaning, "source": metric.source, "level": metric.level,
                "group": _group(name),
            })  # fmt: skip
    return described


def _group(name: str) -> str:
    bare = name.removeprefix("averaged_")
    group = next((title for title, pattern in GROUPS if re.match(pattern, bare)), "Other")
    group = CUSTOM_GROUP if is_custom(name) else group
    return f"{group}, averaged signal" if bare != name else group


def _run(run: Run) -> dict[str, Any]:
    return {
        "key": run.key, "suite": run.suite, "model": run.model, "seed": run.seed, "label": run.label,
        "rank": run.rank, "order": run.order, "steps": run.steps.tolist(),
        "tokens": rounded_list(run.tokens, 12),
        "facts": to_dict(run.facts | {"all_heads": size_on(run.facts, "all_heads")}),
        "suspects": run.suspects,
        "commits": [_short(commit) for commit in run.commits],
        "series": {
            name: {"mean": rounded_list(series.mean), "half": rounded_list(series.half, 2),
                   "q25": rounded_list(series.q25), "q75": rounded_list(series.q75)}
            for name, series in run.series.items()
        },
    }  # fmt: skip


def capital(title: str) -> str:
    """Return a title with a large first letter and all others as they are."""
    return title[:1].upper() + title[1:]


def landmarks_of(runs: list[Run]) -> list[dict[str, Any]]:
    """List landmarks that hold for at least one run: name, step_low, step_high, source, runs (their keys)."""
    found = []
    for row in facts.table("landmarks").to_dicts():
        keys = [run.key for run in runs if run.suite in PYTHIA_SUITES and _applies(row["models"], run.model)]
        if keys:
            shown = {name: row[name] for name in ("name", "step_low", "step_high", "source")}
            found.append(shown | {"runs": keys})
    return found


def _applies(models: str, model: str) -> bool:
    sizes = facts.table("pythia_suite")["size"].to_list()
    named = re.findall(r"\d+(?:\.\d+)?[mb]", models)
    if not named:
        return True
    size = re.search(r"\d+(?:\.\d+)?[mb]", model)
    if size is None or size.group() not in sizes:
        return False
    return sizes.index(named[0]) <= sizes.index(size.group()) <= sizes.index(named[-1])
