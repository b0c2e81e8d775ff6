"""One publisher per store: two would send the same rows twice."""

import fcntl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tracker.errors import TrackerError

WAIT_SECONDS = 20.0
"""How long to wait for another publisher that may just be ending."""
PAUSE_SECONDS = 0.2


@contextmanager
def publisher_lock(folder: Path, follow: threading.Event | None) -> Iterator[None]:
    """Holds ``DIR/wandb/publisher.lock``; the system releases it when its process ends, however it ends.

    Args:
        folder: the store's folder.
        follow: while this event is not set there is no hurry, since whoever holds the lock sends the
            records meanwhile; else the wait is ``WAIT_SECONDS`` long.

    Raises:
        TrackerError: another publisher still holds it.
    """
    path = folder / "wandb" / "publisher.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        deadline = time.monotonic() + WAIT_SECONDS
        while not _locked(file.fileno()):
            if follow is not None and not follow.is_set():
                deadline = time.monotonic() + WAIT_SECONDS
            if time.monotonic() > deadline:
                raise TrackerError(
                    f"store={folder}: another publisher is sending it to W&B and sends every record; "
                    f"run `tracker stream store={folder}` when it has ended to make sure"
                )
            time.sleep(PAUSE_SECONDS)
        yield


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
