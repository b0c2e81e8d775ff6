"""Checkpoints of a store whose measured loss is that of a far other step."""

from pathlib import Path

from tracker.analysis.losses import misnamed, published_curve
from tracker.checkpoints.audit.file import placed
from tracker.checkpoints.audit.findings import UNLIKE_LOSS, Finding
from tracker.store.ledger import Ledger
from tracker.store.reader import Results

RUN = ("suite", "model", "seed", "probe", "conventions", "dtype")
"""What checkpoints have in common whose losses can be compared."""


def loss_findings(store: Path) -> dict[str, list[Finding]]:
    """Compare the losses that a store holds, run by run; a run may lie in one repository a step.

    Args:
        store: its folder; nothing is found where there is none.

    Returns:
        Repository or folder, as ``placed``, -> findings on its checkpoints.
    """
    records = Ledger(store).refreshed().places if store.is_dir() else []
    measured = tuple(path for path, each in records if each.status == "ok")
    found: dict[str, dict[tuple[int, int], Finding]] = {}
    rows = Results(store, measured).checkpoints().select(*RUN, "step", "repo", "revision", "commit", "loss")
    for _, run in rows.sort("step").group_by(*RUN, maintain_order=True):
        losses = run["loss"].cast(float).fill_null(float("nan")).to_list()
        curve = published_curve(run["repo"][0])
        for each in misnamed(run["step"].to_list(), losses, curve):
            row = run.row(run["step"].to_list().index(each.step), named=True)
            own = found.setdefault(placed(row["repo"]), {})
            own[row["seed"], each.step] = Finding(
                each.step,
                UNLIKE_LOSS,
                f"{row['revision']}: {each.sentence}",
                other=each.like,
                revision=row["revision"],
                commit=row["commit"],
                seed=row["seed"],
            )
    return {place: list(own.values()) for place, own in found.items()}
