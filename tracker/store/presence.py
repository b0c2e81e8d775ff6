"""A store that is deleted or moved while a command writes it: the command ends and says what is where."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tracker.errors import StoreError, TrackerError
from tracker.store.writer import Store


@contextmanager
def kept_in_sight(folder: Path) -> Iterator[Store]:
    """Yield a folder's store that writes nothing where another folder, or none, stands at its place.

    Raises:
        StoreError: the block ended and the store is gone; says where it is now, if that is known.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    store = Store(folder, os.fstat(descriptor).st_ino)
    try:
        yield store
        store.require_same()
    except (TrackerError, OSError) as error:
        try:
            store.require_same()
        except StoreError as gone:
            ended = "while the command ran, which has stopped"
            raise StoreError(f"{gone} {ended}; {_where(descriptor)}") from error
        raise
    finally:
        os.close(descriptor)


def _where(descriptor: int) -> str:
    place, again = "", "run the same command with its store="
    with suppress(OSError):
        place = os.readlink(f"/proc/self/fd/{descriptor}")
    if not place:
        return f"what was measured is where it went: {again}"
    if place.endswith(" (deleted)"):
        return "what was measured was deleted with it; run the same command to begin again"
    return f"what was measured is in {place}: {again}{place} to resume"
