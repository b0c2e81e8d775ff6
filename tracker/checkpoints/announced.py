"""The commit and hash that the hub names while a file is fetched are those announced, or hashes at least.

huggingface_hub makes paths of both as they arrive (``blobs/<ETag>``, ``snapshots/<commit>``), so a hub that
names ``../../../../x`` would have it write there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from tracker.checkpoints.pace import look_at
from tracker.checkpoints.remote import is_hash
from tracker.errors import CheckpointError


@dataclass(frozen=True)
class _Announced:
    where: str
    commit: str | None
    digest: str | None


_ANNOUNCED: ContextVar[_Announced | None] = ContextVar("announced", default=None)
"""Of the file that this thread fetches; other programs' requests in the same process are none of ours."""


@contextmanager
def held_to(where: str, commit: str | None = None, digest: str | None = None) -> Iterator[None]:
    """Refuse, for the length of a block, answers to this thread that name another commit or hash.

    Args:
        where: begins the message.
        commit: of the revision that is fetched; None: not known, any will do.
        digest: of the file; likewise.

    Raises:
        CheckpointError: an answer names something else; raised from within the request.
    """
    look_at(_compare)
    token = _ANNOUNCED.set(_Announced(where, commit, digest))
    try:
        yield
    finally:
        _ANNOUNCED.reset(token)


def _compare(response: Any) -> None:
    announced, told = _ANNOUNCED.get(), response.headers
    if announced is None or "X-Repo-Commit" not in told:
        return  # a content server's answer, of which no path is made
    etag = told.get("X-Linked-Etag") or told.get("ETag")
    named = [("commit", told["X-Repo-Commit"], announced.commit)]
    named += [("hash", etag.removeprefix("W/").strip('"'), announced.digest)] if etag is not None else []
    for kind, found, wanted in named:
        if found != wanted if wanted is not None else not is_hash(found):
            other = "which is none" if wanted is None else f"announced was {wanted}"
            raise CheckpointError(
                f"{announced.where}: the hub names the {kind} {found[:80]!r}, {other}; "
                "nothing of it was fetched; check HF_ENDPOINT"
            )
