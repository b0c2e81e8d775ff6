"""The heartbeat of a process that writes a store: one file in ``DIR/.running``, touched every few seconds.

The file says which process keeps it and what that process is doing. Reservations of units are hard links to
it (``tracker.engines.reservations``), so one touch renews them all, and its content is rewritten in place.
"""

import contextlib
import errno
import json
import os
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

from tracker.records import digest

BEAT_SECONDS = 5.0
"""How often a heartbeat is touched."""
WRITE_SECONDS = 0.5
"""Minimum time between two writes of its content."""
STALE_SECONDS = 30.0
"""A heartbeat that has not been touched for longer is dead."""
TRIES = 8
"""How often a heartbeat is made whose folder others remove at the same moment."""
FOLDER, SUFFIX = ".running", ".json"


class Heartbeat:
    """Keeps a file that shows that this process is alive, for the length of a ``with`` block.

    A file that cannot be written is tried again with the next beat: nothing stops for those who look on.
    ``beat`` and ``report`` may be called from several threads.
    """

    def __init__(self, store: Path) -> None:
        """Touch nothing before the block begins.

        Args:
            store: the folder of the store.
        """
        self.folder = store / FOLDER
        self.path = self.folder / f"{uuid.uuid4().hex}{SUFFIX}"
        self._content: dict[str, Any] = _this_process() | {"since": time.time()}
        self._lock = threading.Lock()
        self._changed = False
        self._ended = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="heartbeat", daemon=True)

    def __enter__(self) -> "Heartbeat":
        with contextlib.suppress(OSError):
            self.beat()
            for path in self.folder.glob(f"*{SUFFIX}"):
                if self.outlived(path):
                    path.unlink(missing_ok=True)
        self._keeper.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._keeper.join()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
            self.folder.rmdir()

    def report(self, **content: Any) -> None:
        """Add to what the file says of this process, in place of earlier values of the same names."""
        with self._lock:
            self._content |= content
            self._changed = True

    def beat(self) -> float:
        """Touch the file, making it if absent; return the time by the file server's clock.

        Raises:
            OSError: the folder cannot be written.
        """
        for _ in range(TRIES):
            try:
                os.utime(self.path)
                return self.path.stat().st_mtime
            except FileNotFoundError:
                with contextlib.suppress(FileNotFoundError, FileExistsError):  # removed by one that has ended
                    self.folder.mkdir(exist_ok=True)  # never the store's: it may have been moved away
                    self.path.write_bytes(self._encoded())
        raise FileNotFoundError(errno.ENOENT, "is removed again and again", str(self.path))

    def outlived(self, path: Path) -> bool:
        """Return whether another heartbeat, or a link to one, is dead, by the file server's clock."""
        try:
            content, touched = read_heartbeat(path)
        except FileNotFoundError:
            return False
        except OSError:
            content, touched = None, path.stat().st_mtime if path.exists() else 0.0
        return is_dead(content, self.beat() - touched)

    def _keep(self) -> None:
        beaten = time.monotonic()
        while True:
            with contextlib.suppress(OSError):
                if self._changed:
                    self._rewrite()
                    beaten = time.monotonic()
                elif time.monotonic() - beaten > BEAT_SECONDS:
                    self.beat()
                    beaten = time.monotonic()
            if self._ended.wait(WRITE_SECONDS):
                return

    def _rewrite(self) -> None:
        try:
            with open(self.path, "r+b") as file:
                file.write(self._encoded())
                file.truncate()
        except FileNotFoundError:  # this process stood still until others took it for dead
            self.beat()
        except OSError:
            self._changed = True  # written with the next beat
            raise

    def _encoded(self) -> bytes:
        with self._lock:
            self._changed = False
            return json.dumps(self._content).encode()


def read_heartbeat(path: Path) -> tuple[dict[str, Any] | None, float]:
    """Read a heartbeat, or a link to one: its content, and when it was touched last.

    Returns:
        None in place of content that is damaged, or being written at this moment.

    Raises:
        OSError: it is gone or cannot be read.
    """
    with open(path, "rb") as file:  # opening asks the server; a mere stat may be cached
        touched, text = os.fstat(file.fileno()).st_mtime, file.read()
    try:
        content, _ = json.JSONDecoder().raw_decode(text.decode())  # a longer one's end may stand behind it
    except (ValueError, RecursionError):
        return None, touched
    return (content if isinstance(content, dict) else None), touched


def name_of_process() -> str:
    """Name this process so that others can see by the name alone whether it has ended."""
    me = _this_process()
    return f"{digest(me['machine'])}-{me['pid']}-{me['started']}"


def has_ended(name: str) -> bool:
    """Return whether a process was one of this machine's and has ended, by its ``name_of_process``."""
    machine, _, process = name.partition("-")
    pid, _, started = process.partition("-")
    if _machine() is None or machine != digest(_machine()) or not pid.isdecimal():
        return False
    return _started(int(pid)) != started


def is_dead(content: dict[str, Any] | None, silence: float) -> bool:
    """Return whether a heartbeat's process has ended.

    Args:
        content: of the heartbeat; None if it could not be read.
        silence: seconds since it was touched last.
    """
    return _ended_here(content) or abs(silence) > STALE_SECONDS  # a copied store is stamped in the future


def _ended_here(content: dict[str, Any] | None) -> bool:
    """Return whether a process was one of this machine's and has ended; of others only silence is known."""
    if content is None or content.get("machine") is None or content["machine"] != _machine():
        return False
    pid = content.get("pid")
    return isinstance(pid, int) and _started(pid) != content.get("started")


def _this_process() -> dict[str, Any]:
    return {"machine": _machine(), "pid": os.getpid(), "started": _started(os.getpid())}


def _machine() -> str | None:
    """Name this boot of this machine and, within it, the processes that see each other; None off Linux."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """When a process began, in ticks of this machine: its number alone may have gone to another."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
