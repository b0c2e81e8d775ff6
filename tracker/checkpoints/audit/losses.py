"""Checkpoints of a store whose measured loss is that of a far other step."""

from pathlib import Path

from tracker.analysis.losses import misnamed, published_curve
from tracker.checkpoints.audit.file import placed
from tracker.checkpoints.audit.findings import UNLIKE_LOSS, Finding
from tracker.store.ledger import Ledger
from tracker.store.reader import Results

RUN = ("suite", "model", "seed", "probe", "conventions", "dtype")
"""What checkpoints have in common whose losses can be compared."""


def loss_findings(store: Path, place: str) -> list[Finding]:
    """Compare the losses that a store holds of one repository or folder, run by run.

    Args:
        store: its folder; nothing is found where there is none.
        place: the repository or folder.
    """
    records = Ledger(store).refreshed().places if store.is_dir() else []
    own = tuple(path for path, each in records if placed(each.repo) == placed(place) and each.status == "ok")
    if not own:
        return []
    rows = Results(store, own).checkpoints().select(*RUN, "step", "revision", "commit", "loss")
    found: dict[tuple[int, int], Finding] = {}
    for (_, _, seed, *_), run in rows.sort("step").group_by(*RUN, maintain_order=True):
        losses = run["loss"].cast(float).fill_null(float("nan")).to_list()
        for each in misnamed(run["step"].to_list(), losses, published_curve(place)):
            row = next(row for row in run.iter_rows(named=True) if row["step"] == each.step)
            found[seed, each.step] = Finding(
                each.step,
                UNLIKE_LOSS,
                f"{row['revision']}: {each.sentence}",
                other=each.like,
                revision=row["revision"],
                commit=row["commit"],
                seed=seed,
            )
    return list(found.values())
