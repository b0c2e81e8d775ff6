"""One file from the hub to this machine: taken up where it broke off, checked while it arrives.

A file is written to ``<blob>.incomplete`` under the system's lock of that very file, which ends with its
process, and gets its name only when its size and hash are what the hub announced.
"""

import fcntl
import hashlib
import os
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from threading import Event

from huggingface_hub import constants, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from tracker.checkpoints import answers
from tracker.checkpoints.listing import RemoteFile, endpoint
from tracker.errors import CheckpointError

PARTIAL = ".incomplete"
_CHUNK = 1 << 20
_LOCK_PAUSE = 0.05


class Stopped(CheckpointError):
    """Whoever wanted the file does not want it any more."""


@dataclass(frozen=True)
class Address:
    """What files are fetched for: names the place in requests and messages."""

    repo: str
    revision: str
    commit: str
    who: str
    """Model, seed and step."""
    stop: Event = field(default_factory=Event)
    """Ends the transfer early, within a chunk."""

    @property
    def where(self) -> str:
        """How messages begin."""
        return f"{self.who}: {self.repo} at {self.revision}"

    def pause(self, seconds: float) -> None:
        """Waits, but not on once ``stop`` is set.

        Raises:
            Stopped: it is.
        """
        if self.stop.wait(seconds):
            raise Stopped(f"{self.where}: not fetched any further, since the sweep is ending")


def bring(address: Address, file: RemoteFile, blob: Path) -> int:
    """Fetches one file, unless it is there or another process is just fetching it.

    Args:
        address: where it is and for whom.
        file: its name, size and hash, as the hub announced them.
        blob: where it is to lie.

    Returns:
        Bytes that came over the network.

    Raises:
        CheckpointError: it arrived altered or cut short, the disk is full, or the hub does not answer.
        Stopped: ``address.stop`` was set meanwhile.
    """
    partial = blob.with_name(blob.name + PARTIAL)
    while not blob.exists():
        with open(partial, "a+b", buffering=0) as out:
            _lock(out, address)
            if not _still_named(out, partial):
                continue  # whoever held the lock has finished it, or removed it
            arrival = _Arrival(address, file, out)
            try:
                arrival.take()
            except (Altered, CutShort, answers.DiskFull):
                partial.unlink(missing_ok=True)
                raise
            os.replace(partial, blob)
            return arrival.received
    return 0


class Altered(CheckpointError):
    """A file's content is not what the hub announced."""


class CutShort(CheckpointError):
    """A file ends before the size that the hub announced."""


def _lock(out: FileIO, address: Address) -> None:
    while True:
        try:
            fcntl.flock(out.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            address.pause(_LOCK_PAUSE)


def _still_named(out: FileIO, partial: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(out.fileno()), partial.stat())
    except FileNotFoundError:
        return False


class _Arrival:
    """The state of one file that is arriving: how much is there, and the hash of that."""

    def __init__(self, address: Address, file: RemoteFile, out: FileIO) -> None:
        self.address, self.file, self.out = address, file, out
        self.received = 0
        self._begin()

    def take(self) -> None:
        """Receives until the file is whole; what an earlier process left is used, unless it is false."""
        resumed = self._read_what_is_there() > 0
        self._receive_rest()
        if self._is_announced():
            return
        if resumed:
            self._start_over()
            self._receive_rest()
        if not self._is_announced():
            raise Altered(
                f"{self.address.where}: {self.file.name} arrived altered (its hash starts "
                f"{self.sums.hexdigest()[:12]}, announced was {(self.file.digest or '')[:12]}); it was "
                "removed from the cache, run the same command again"
            )
        os.fsync(self.out.fileno())

    def _begin(self) -> None:
        if self.file.sha256 is None:
            header = f"blob {self.file.size}\0".encode()
            self.sums = hashlib.sha1(header, usedforsecurity=False)
        else:
            self.sums = hashlib.sha256()
        self.size = 0

    def _start_over(self) -> None:
        self.out.truncate(0)
        self._begin()

    def _read_what_is_there(self) -> int:
        self.out.seek(0)
        while chunk := self.out.read(_CHUNK):
            self.sums.update(chunk)
            self.size += len(chunk)
        if self.size > self.file.size:
            self._start_over()
        return self.size

    def _is_announced(self) -> bool:
        return self.file.digest in (None, self.sums.hexdigest()) and self.size == self.file.size

    def _receive_rest(self) -> None:
        """Asks for what is missing, as long as each answer brings some of it nearer."""
        while self.size < self.file.size:
            before = self.size
            try:
                self._ask()
            except answers.Unreachable:
                if self.size == before:
                    raise
                continue
            if self.size == before:
                raise CutShort(
                    f"{self.address.where}: {self.file.name} arrived cut short ({self.size} bytes of "
                    f"{self.file.size}); run the same command again"
                )

    def _ask(self) -> None:
        to = self.address
        answers.ask(self._receive, repo=to.repo, revision=to.revision, who=to.who, pause=to.pause)

    def _receive(self) -> None:
        url = hf_hub_url(self.address.repo, self.file.name, revision=self.address.commit, endpoint=endpoint())
        headers = build_hf_headers() | {"Accept-Encoding": "identity"}
        if self.size:
            headers["Range"] = f"bytes={self.size}-"
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with get_session().stream(
            "GET", url, headers=headers, follow_redirects=True, timeout=timeout
        ) as response:
            try:
                hf_raise_for_status(response)
            except HfHubHTTPError as error:
                if error.response.status_code == 416:
                    return  # it has no more: the file there is shorter than announced
                raise
            if self.size and response.status_code != 206:
                self._start_over()  # this server knows no ranges
            for chunk in response.iter_bytes():
                self._write(chunk)

    def _write(self, chunk: bytes) -> None:
        self.address.pause(0)
        if self.size + len(chunk) > self.file.size:
            raise Altered(
                f"{self.address.where}: {self.file.name} arrived altered (more than the {self.file.size} "
                "bytes announced); it was removed from the cache, run the same command again"
            )
        rest = memoryview(chunk)
        while rest:
            rest = rest[self.out.write(rest) :]
        self.sums.update(chunk)
        self.size += len(chunk)
        self.received += len(chunk)
