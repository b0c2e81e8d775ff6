"""Files from the hub to its cache: fetched by huggingface_hub, with hf-xet where it can, then checked.

The library writes to a temporary file and renames it without ``fsync``, and believes what arrives over plain
HTTP; so a file counts as there only after its size and hash are the announced ones and it is on the disk. It
does not take up a file whose download was killed: that file starts over, the finished ones stay.
"""

import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from filelock import FileLock, Timeout
from huggingface_hub import constants, hf_hub_download

from tracker.checkpoints import cached
from tracker.checkpoints.announced import held_to
from tracker.checkpoints.answers import Subject, ask
from tracker.checkpoints.listing import RemoteFile, endpoint
from tracker.checkpoints.pace import PIECE, PIECE_SECONDS, TooSlow, in_time
from tracker.errors import CheckpointError

constants.DOWNLOAD_CHUNK_SIZE = min(constants.DOWNLOAD_CHUNK_SIZE, PIECE)
"""The library says nothing of a file before so much has arrived, and only then a download can be ended."""
FILES_AT_ONCE = 4
"""Files of one checkpoint that arrive side by side."""
_POLL = 0.05
_GRACE = 2.0
"""Seconds that a stopped download gets to clear away its temporary files."""


class Stopped(CheckpointError):
    """The sweep that wanted the file is ending."""


class Altered(CheckpointError):
    """A file's content is not what the hub announced."""


class CutShort(CheckpointError):
    """A file ends before the size that the hub announced."""


class Late(CheckpointError):
    """Nothing more of a file came for a long time."""


@dataclass(frozen=True)
class Request:
    """One checkpoint that is fetched."""

    about: Subject
    commit: str
    cache: Path
    stop: threading.Event = field(default_factory=threading.Event)
    """Ends the transfer early."""

    @property
    def repository(self) -> Path:
        """The repository's folder in the cache."""
        return cached.repository(self.about.repo, self.cache)

    @property
    def snapshot(self) -> Path:
        """The folder that models are loaded from."""
        return self.repository / "snapshots" / self.commit

    def pause(self, seconds: float) -> None:
        """Wait, at most until ``stop`` is set.

        Raises:
            Stopped: it is set.
        """
        if self.stop.wait(seconds):
            raise Stopped(f"{self.about.where}: fetching stopped because the sweep is ending")


@dataclass(frozen=True)
class Item:
    """One file of a checkpoint, and where it is to lie."""

    file: RemoteFile
    blob: Path
    lock: Path
    """Held while the file is fetched and checked, so that no two processes fetch it."""
    trusted: bool
    """Whether a blob that is there already was checked, or belongs to another program."""
    fetch: Callable[[Request, "Item"], int] | None = None
    """Brings it in another way than by the hub's own client, and returns the bytes received."""


def bring_all(request: Request, items: Iterable[Item]) -> int:
    """Fetch and check the files of a checkpoint, several at once.

    Returns:
        Bytes that came over the network.

    Raises:
        CheckpointError: a file arrived altered or cut short, the disk is full, or the hub does not answer.
        Stopped: ``request.stop`` was set meanwhile.
    """
    waiting: SimpleQueue[Item] = SimpleQueue()
    for item in items:
        waiting.put(item)
    received: list[int] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            while not failed:
                received.append(_bring(request, waiting.get_nowait()))
        except Empty:
            return
        except BaseException as error:  # raised again by the thread that waits
            failed.append(error)

    # Daemons, since a transfer of hf-xet and the library's own pauses cannot be ended from outside.
    threads = [threading.Thread(target=work, name="fetching", daemon=True) for _ in range(FILES_AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive() and not request.stop.is_set():
            thread.join(_POLL)
    if request.stop.is_set():
        for thread in threads:
            thread.join(_GRACE)
        request.pause(0)
    if failed:
        raise failed[0]
    return sum(received)


def _bring(request: Request, item: Item) -> int:
    """Fetch and check one file, unless it is there; what is there already costs no request."""
    bar, link = _counting_bar(request, item), request.snapshot / item.file.name
    received = 0
    with _turn(item.lock, request):
        there = item.blob.exists()
        if not there:
            remove_partial(request.about.repo, request.cache, item.blob.name)
            about = replace(request.about, file=item.file.name)
            if item.fetch is None:
                ask(lambda: _moving(request, item, bar), about, request.pause)
            else:
                received = item.fetch(request, item)
        if not (there and item.trusted):
            try:
                _check(request, item)
            except (Altered, CutShort):
                for path in (link, item.blob):
                    path.unlink(missing_ok=True)
                raise
        _link(link, item.blob)
    return bar.received + received


def _link(link: Path, blob: Path) -> None:
    target = os.path.relpath(blob, link.parent)
    if not link.is_symlink() or os.readlink(link) != target:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)


@contextmanager
def _turn(path: Path, request: Request) -> Iterator[None]:
    """Hold a lock file, waiting for it as long as the sweep is on."""
    lock = FileLock(path, timeout=0)
    while not lock.is_locked:
        try:
            lock.acquire()
        except Timeout:
            request.pause(_POLL)
    try:
        yield
    finally:
        lock.release()


def remove_partial(repo: str, cache: Path, blob: str) -> None:
    """Remove what killed downloads of a blob left, unless another program is fetching it at this moment."""
    parts = list((cached.repository(repo, cache) / "blobs").glob(f"{blob}*.incomplete"))
    if not parts:
        return
    lock = cached.library_lock(repo, cache, blob)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with suppress(Timeout), FileLock(lock, timeout=0):
        for part in parts:
            part.unlink(missing_ok=True)


def _moving(request: Request, item: Item, bar: Any) -> None:
    """Fetch a file as long as more of it comes, by this process or by one that is at it already."""
    parts, bar.left = f"{item.blob.name}*.incomplete", threading.Event()

    def progress() -> object:
        with suppress(FileNotFoundError):
            found = [part.stat() for part in item.blob.parent.glob(parts)]
            return bar.received, [(each.st_size, each.st_mtime_ns) for each in found]
        return None

    try:
        in_time(lambda: _fetch(request, item, bar), PIECE_SECONDS, request.pause, progress)
    except TooSlow as error:
        raise Late(
            f"{request.about.where}: {item.file.name}: less than {PIECE >> 20} MiB of it came in "
            f"{PIECE_SECONDS:g} s; check the network and HF_ENDPOINT, then run the same command again"
        ) from error
    finally:
        bar.left.set()


def _counting_bar(request: Request, item: Item) -> Any:
    """Make a progress bar class that shows nothing, counts bytes received and ends a stopped download."""

    class Bar:
        received = 0
        left = threading.Event()
        """Nobody waits any more for the download that begins next."""
        total = 0

        def __init__(self, **options: object) -> None:
            """Ignore the options, which are about what would be shown."""
            self.thread, self.left, self.arrived = threading.get_ident(), Bar.left, 0

        def __enter__(self) -> "Bar":
            return self

        def __exit__(self, *failure: object) -> None:
            self.close()

        def update(self, count: float | None = 1) -> None:
            self.arrived += int(count or 0)
            if threading.get_ident() != self.thread:  # hf-xet calls from a thread of its own, to no avail
                return
            request.pause(0)
            if self.left.is_set() or self.arrived > item.file.size:
                raise Altered(
                    f"{request.about.where}: {item.file.name} goes on after the {item.file.size} bytes that "
                    "the hub announced; nothing of it was kept; check HF_ENDPOINT"
                )

        def update_transfer(self, count: float) -> None:
            Bar.received += int(count)

        def set_postfix_str(self, text: str, refresh: bool = False) -> None: ...

        set_transfer_postfix_str = set_postfix_str

        def close(self) -> None: ...

    return Bar


def _fetch(request: Request, item: Item, bar: Any) -> None:
    where = f"{request.about.where}: {item.file.name}"
    try:
        with held_to(where, request.commit, item.file.digest):
            hf_hub_download(
                request.about.repo,
                item.file.name,
                revision=request.commit,
                cache_dir=request.cache,
                endpoint=endpoint(),
                tqdm_class=bar,
            )
    except OSError as error:
        short = re.search(r"Consistency check failed.* has size (\d+)", str(error))
        if short is None:
            raise
        raise _cut_short(request, item, short[1]) from error


def _check(request: Request, item: Item) -> None:
    """Compare a file with its announced size and hash, and put it on the disk for good."""
    file, size = item.file, item.blob.stat().st_size
    if size < file.size:
        raise _cut_short(request, item, str(size))
    with open(item.blob, "rb") as blob:
        # Git hashes a header before the content; a large file has the SHA-256 of the content alone.
        header = f"blob {size}\0".encode()
        sums = hashlib.sha256() if file.sha256 else hashlib.sha1(header, usedforsecurity=False)
        while chunk := blob.read(1 << 20):
            request.pause(0)
            sums.update(chunk)
        if size > file.size or (file.is_hashed and sums.hexdigest() != file.digest):
            raise Altered(
                f"{request.about.where}: {file.name} arrived altered (its hash starts "
                f"{sums.hexdigest()[:12]}, announced was {file.digest[:12]}); it was removed from the cache, "
                "run the same command again"
            )
        os.fsync(blob.fileno())


def _cut_short(request: Request, item: Item, size: str) -> CutShort:
    return CutShort(
        f"{request.about.where}: {item.file.name} arrived cut short ({size} bytes of {item.file.size}); "
        "run the same command again"
    )
