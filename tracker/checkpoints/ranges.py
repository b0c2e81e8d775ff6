"""One file of a commit read by HTTP ranges; an answer that is not as it ought to be is refused."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from huggingface_hub import constants, hf_hub_url
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from tracker.checkpoints.answers import Subject
from tracker.checkpoints.listing import endpoint
from tracker.checkpoints.remote import RemoteFile
from tracker.errors import CheckpointError

_CHUNK = 1 << 16
"""Bytes that a broken connection loses at most."""


class Refused(CheckpointError):
    """The hub's answers to ranges are not what they ought to be; whole files may be."""


@dataclass
class Source:
    """One file of a commit, read by ranges; every answer is held against the first."""

    about: Subject
    commit: str
    file: RemoteFile
    etag: str = field(default="")

    def whole(self, file: RemoteFile) -> bytes:
        """Return a small file.

        Raises:
            Refused: it is longer than announced.
        """
        content = b""
        with self._asked(file, {}) as response:
            for chunk in response.iter_bytes(_CHUNK):
                content += chunk
                if len(content) > file.size:
                    raise Refused(f"{self.about.where}: {file.name} is longer than its {file.size} bytes")
        return content

    def range(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes from ``start`` to before ``stop``; all of them, or it raises.

        Raises:
            Refused: another range, length, commit or content is answered.
        """
        with self._asked(self.file, {"Range": f"bytes={start}-{stop - 1}"}) as response:
            wanted = f"bytes {start}-{stop - 1}/{self.file.size}"
            if response.status_code != 206 or response.headers.get("Content-Range") != wanted:
                raise Refused(f"{self.about.where}: asked for {wanted}, got another range")
            self._compare(response)
            left = stop - start
            for chunk in response.iter_bytes(_CHUNK):
                left -= len(chunk)
                if left < 0:
                    break
                yield chunk
            if left:
                raise Refused(f"{self.about.where}: a range arrived with {-left:+} bytes")

    def _compare(self, response: Any) -> None:
        hops = [*response.history, response]
        for header, known in (("X-Repo-Commit", self.commit), ("X-Linked-Etag", self.file.digest)):
            for told in (each.headers.get(header) for each in hops):
                if told is not None and told.removeprefix("W/").strip('"') != known:
                    raise Refused(f"{self.about.where}: {header} is {told[:80]!r}, announced was {known}")
        etag = response.headers.get("ETag", "")
        self.etag = self.etag or etag
        if etag != self.etag:
            raise Refused(f"{self.about.where}: the content changed while it was fetched")

    @contextmanager
    def _asked(self, file: RemoteFile, headers: Mapping[str, str]) -> Iterator[Any]:
        url = hf_hub_url(self.about.repo, file.name, revision=self.commit, endpoint=endpoint())
        sent = {**build_hf_headers(), **headers, "Accept-Encoding": "identity"}
        with get_session().stream(
            "GET", url, headers=sent, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
        ) as response:
            if response.status_code == 416:
                raise Refused(f"{self.about.where}: the hub refuses ranges of it")
            hf_raise_for_status(response)
            yield response
