"""A run that starts again, or goes on from an earlier step: what it left beyond that step is set aside."""

import os
import shutil
from pathlib import Path

from tracker.metrics.registry import FILE
from tracker.records import Unit
from tracker.store import Store


def set_aside(store: Store, unit: Unit, after: int, journal: Path) -> Path | None:
    """Move the records of a run beyond a step out of the way of those that are measured from there on.

    They are of weights that the run has left, and no trajectory may hold both. Nothing is deleted: what is
    moved is a store of its own, ``DIR/superseded/<number>``, that opens like any other, with a copy of the
    run's journal, which holds its alerts, and of what the store says of users' own metrics.

    Args:
        store: the store.
        unit: any unit of the run.
        after: records of later steps are moved.
        journal: the file of the run's journal.

    Returns:
        The folder of the store they are in now; None where there were none.

    Raises:
        OSError: they cannot be moved.
    """
    place = store.place(unit).parent
    left = [record for record in place.glob("step-*.*") if _step(record) > after]
    if not left:
        return None
    aside = _next_free(store.folder / "superseded")
    target = aside / place.relative_to(store.folder)
    target.mkdir(parents=True)
    for file in (journal, store.folder / FILE):
        if file.is_file():
            copy = aside / file.relative_to(store.folder)
            copy.parent.mkdir(exist_ok=True)
            shutil.copy2(file, copy)
    for record in left:
        os.rename(record, target / record.name)
    return aside


def _step(record: Path) -> int:
    return int(record.name.removeprefix("step-").partition(".")[0])


def _next_free(folder: Path) -> Path:
    numbers = [int(path.name) for path in folder.glob("*") if path.name.isdecimal()]
    return folder / str(max(numbers, default=0) + 1)
