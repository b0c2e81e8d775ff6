"""What a sweep tells while it runs: ``DIR/running/<name>.json``, for a dashboard that looks on.

The file goes when the sweep ends. One whose process has died is told as such, and goes with the next sweep.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tracker.atomic import save_json

WRITE_SECONDS = 0.5
"""Least time between two writes: bars move more often than anybody looks."""
TOUCH_SECONDS = 3.0
"""A sweep that has nothing new to tell touches its file so often."""
STALE_SECONDS = 15.0
"""A file of another machine that was not touched for so long belongs to nobody."""


class Telling:
    """The bars of one running sweep, as it last told them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bars: dict[str, dict[str, Any]] = {}
        self._doing = "beginning"
        self._changed = True

    def begin(self, doing: str) -> None:
        """Says what the sweep does now, ``measuring``; bars of what it did before go."""
        with self._lock:
            self._doing, self._bars, self._changed = doing, {}, True

    def moved(self, name: str, done: int, total: int, pace: str = "", note: str = "") -> None:
        """Tells of one bar: ``done`` of ``total``; ``pace`` and ``note`` as the console shows them."""
        with self._lock:
            self._bars[name] = {"name": name, "done": done, "total": total, "pace": pace, "note": note}
            self._changed = True

    def news(self) -> dict[str, Any] | None:
        """What there is to write; None where nothing has changed since the last call."""
        with self._lock:
            if not self._changed:
                return None
            self._changed = False
            return {"doing": self._doing, "bars": list(self._bars.values())}


@contextmanager
def telling(folder: Path) -> Iterator[Telling]:
    """Keeps a file of progress in a store's folder for the length of a block.

    What cannot be written is not told: a sweep never stops for those who look on.
    """
    path = folder / "running" / f"{uuid.uuid4().hex}.json"
    who = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
    told, ended = Telling(), threading.Event()
    _remove_dead(path.parent)

    def keep() -> None:
        touched = 0.0
        while True:
            news = told.news()
            with contextlib.suppress(OSError):
                if news is not None:
                    path.parent.mkdir(parents=True, exist_ok=True)  # a sweep that ends removes it
                    save_json(path, who | news)
                    touched = time.monotonic()
                elif time.monotonic() - touched > TOUCH_SECONDS:
                    path.touch()
                    touched = time.monotonic()
            if ended.wait(WRITE_SECONDS):
                return

    keeper = threading.Thread(target=keep, daemon=True)
    keeper.start()
    try:
        yield told
    finally:
        ended.set()
        keeper.join()
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
            path.parent.rmdir()


def _remove_dead(folder: Path) -> None:
    for path in folder.glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            if _is_dead(json.loads(path.read_text(encoding="utf-8"))):
                path.unlink()


def _is_dead(told: dict[str, Any]) -> bool:
    """Whether a sweep of this machine is gone; of other machines only their files' age tells."""
    if told["host"] != socket.gethostname():
        return False
    try:
        os.kill(int(told["pid"]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


class Watch:
    """Reads what every sweep of a store tells."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "running"
        self._touched: dict[str, tuple[int, float]] = {}

    def look(self) -> list[dict[str, Any]]:
        """Per sweep: doing, bars (name, done, total, pace, note), since, alive; the oldest first."""
        found = []
        for path in self._folder.glob("*.json"):
            try:
                stamp = path.stat().st_mtime_ns
                told = json.loads(path.read_text(encoding="utf-8"))
                alive = self._is_fresh(path.stem, stamp) and not _is_dead(told)
                found.append({key: told[key] for key in ("doing", "bars", "since")} | {"alive": alive})
            except (OSError, ValueError, KeyError, TypeError):  # it went, or is half of another version
                continue
        return sorted(found, key=lambda each: each["since"])

    def _is_fresh(self, name: str, stamp: int) -> bool:
        """Whether a file was touched lately, by this machine's own clock."""
        if self._touched.get(name, (0, 0.0))[0] != stamp:
            self._touched[name] = (stamp, time.monotonic())
        return time.monotonic() - self._touched[name][1] < STALE_SECONDS
