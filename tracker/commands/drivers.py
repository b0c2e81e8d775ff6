"""``tracker drivers``: gradients, curvature and composition of heads beside the change of their spectra."""

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from tracker.commands.results import chosen_results as view
from tracker.commands.results import write_report as write_json
from tracker.config import Config
from tracker.console.terminal import DONE, SOME_FAILED, say
from tracker.errors import CheckpointError, RequestError

if TYPE_CHECKING:
    from tracker.planning.resolve import ResolvedSweep
    from tracker.records import Checkpoint

DRIVERS = {
    "gradient": "gradient norm per head",
    "gradient_unevenness": "its largest over its mean",
    "sharpness": "largest eigenvalue of the loss's Hessian",
    "curvature": "curvature along the path",
    "composition": "strongest composition of two heads",
}
"""What is measured at each checkpoint, on the probe's sequences."""
LANCZOS_STEPS = 12


def drivers(config: Config, console: Console) -> int:
    """What may drive the spectral change of each stored run, checkpoint by checkpoint, over seeds."""
    from tracker.planning.resolve import resolve

    surveyed = resolve(config)
    spectral = view(config).checkpoints(
        ["suite", "model", "seed", "step", "status", "spectral_entropy", "frequency_selectivity"]
    )
    stored = {row[:4]: row[5:] for row in spectral.filter(status="ok").iter_rows()}
    runs: dict[tuple[str, str, int], list[Checkpoint]] = {}
    for planned in surveyed.plan.units:
        at = planned.unit.checkpoint
        if (at.suite, at.model, at.seed, at.step) in stored:
            runs.setdefault((at.suite, at.model, at.seed), []).append(at)
    if not any(len(members) > 3 for members in runs.values()):
        raise RequestError(
            f"{config.store}: no run of this request has four measured checkpoints; sweep first"
        )
    entries, failed = [], False
    for (_, model, seed), members in runs.items():
        if len(members) < 4:
            continue
        try:
            entries.append(_run(surveyed, members, stored))
        except CheckpointError as error:  # of this run alone: the others are worked out all the same
            say(console, f"{model} seed {seed}: {error}")
            failed = True
            continue
        console.print(drivers_table(entries[-1]))
    links = [_link(entry) for entry in entries]
    sentences = driver_sentences(entries, links)
    for sentence in sentences:
        say(console, sentence)
    write_json(config.store / "drivers.json", {"runs": entries, "links": links, "sentences": sentences})
    say(console, f"Details: {config.store / 'drivers.json'}")
    return SOME_FAILED if failed else DONE


def _run(surveyed: "ResolvedSweep", members: "list[Checkpoint]", stored: dict[Any, Any]) -> dict[str, Any]:
    """Every checkpoint of one run, in order of steps."""
    import torch

    from tracker.engines.load import load_with_probe

    rows, before = [], None
    for at in sorted(members, key=lambda each: each.step):
        model, ids = load_with_probe(surveyed, at, "float32")
        weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
        path = None if before is None else weights - before
        entropy, selectivity = stored[at.suite, at.model, at.seed, at.step]
        told = {"step": at.step, "spectral_entropy": entropy, "frequency_selectivity": selectivity}
        rows.append(told | _measured(model, ids, path))
        before = weights
    first = members[0]
    return {"suite": first.suite, "model": first.model, "seed": first.seed, "checkpoints": rows}


def _measured(model: Any, ids: Any, path: Any) -> dict[str, Any]:
    """The drivers of one checkpoint.

    Args:
        model: loaded, of GPT-NeoX's body.
        ids: of the probe, shape (S, n).
        path: its weights less those of the checkpoint before, shape (P,); None at the first.
    """
    import torch

    from tracker.models.drivers import Curvature, composition, gradient_norms

    curvature, norms = Curvature(model, ids), gradient_norms(model, ids)
    pairs = torch.stack(list(composition(model).values()))
    pairs = pairs[pairs.isfinite()]  # none in a model of one layer
    return {
        "gradient": float(norms.mean()),
        "gradient_unevenness": float(norms.max() / norms.mean()) if norms.any() else None,
        "gradient_by_head": norms.tolist(),
        "sharpness": curvature.sharpness(LANCZOS_STEPS),
        "curvature": curvature.along(path) if path is not None and path.any() else None,
        "composition": float(pairs.max()) if len(pairs) else None,
    }


def _link(entry: dict[str, Any]) -> dict[str, Any]:
    """Rank correlation of each driver with the spectral change up to the next checkpoint, in one run."""
    rows = [row for row in entry["checkpoints"] if row["spectral_entropy"] is not None]
    doublings = [np.log2((after["step"] + 1) / (row["step"] + 1)) for row, after in pairwise(rows)]
    speed = [
        abs(after["spectral_entropy"] - row["spectral_entropy"]) / by
        for (row, after), by in zip(pairwise(rows), doublings, strict=True)
    ]
    found: dict[str, Any] = {name: entry[name] for name in ("suite", "model", "seed")}
    for name in DRIVERS:
        known = [
            (row[name], pace) for row, pace in zip(rows[:-1], speed, strict=True) if row[name] is not None
        ]
        values = np.array(known)
        flat = len(known) < 4 or bool(np.ptp(values, axis=0).min() == 0)
        ranked: Any = None if flat else stats.spearmanr(values[:, 0], values[:, 1])
        found[name] = None if flat else float(ranked.statistic)
    return found


def driver_sentences(entries: list[dict[str, Any]], links: list[dict[str, Any]]) -> list[str]:
    """Per model, which drivers go along with the spectral change in all of its seeds."""
    told = []
    for model in dict.fromkeys((each["suite"], each["model"]) for each in links):
        own = [each for each in links if (each["suite"], each["model"]) == model]
        parts = [
            _range(title, known)
            for name, title in DRIVERS.items()
            if (known := [each[name] for each in own if each[name] is not None])
        ]
        chance = (
            "One seed tells no common sign"
            if len(own) == 1
            else f"Chance alone gives {len(own)} seeds one sign in {0.5 ** (len(own) - 1):.0%} of cases"
        )
        told.append(
            f"{model[1]}, {len(own)} seed{'s' * (len(own) > 1)}: rank correlation with how fast spectral "
            f"entropy moves up to the next checkpoint, per doubling of the step: {'; '.join(parts)}. "
            f"{chance}, and what goes along with a change need not drive it."
        )
    return told


def _range(title: str, known: list[float]) -> str:
    low, high = min(known), max(known)
    if len(known) == 1:
        return f"{title} {low:.2f}"
    same = "one sign in all" if low > 0 or high < 0 else "no sign in common"
    return f"{title} {low:.2f} to {high:.2f} ({same})"


def drivers_table(entry: dict[str, Any]) -> Table:
    """Checkpoints as rows."""
    title = f"{entry['model']} seed {entry['seed']}"
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    columns = ("spectral_entropy", "frequency_selectivity", *DRIVERS)
    for name in ("step", *columns):
        table.add_column(name, justify="right")
    for row in entry["checkpoints"]:
        cells = ("" if row[name] is None else f"{row[name]:.3g}" for name in columns)
        table.add_row(str(row["step"]), *cells)
    return table
