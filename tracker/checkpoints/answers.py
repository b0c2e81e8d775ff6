"""What the hub's answers mean: which are asked again, and which error each becomes."""

import errno
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import parse_ratelimit_headers

from tracker.errors import CheckpointError, MissingCheckpoint

RETRIED = frozenset({408, 429, 500, 502, 503, 504})
TRIES = 5
BREAKS = 3
"""So many broken connections in a row of tries, counted apart from answers that ask to come again."""
LONGEST_WAIT = 300.0
"""Seconds; a hub that asks for more is not waited for."""

Answer = TypeVar("Answer")
Pause = Callable[[float], object]
"""Waits so many seconds; may return or raise earlier where nobody needs the answer any more."""


class UnknownRepository(CheckpointError):
    """The repository does not exist, or not for whoever asks."""


class Unreachable(CheckpointError):
    """The hub did not answer; what is in the cache may still serve."""


class DiskFull(CheckpointError):
    """There is no room for the files; says how much is missing."""


def ask(
    call: Callable[[], Answer], *, repo: str, revision: str | None, who: str, pause: Pause = time.sleep
) -> Answer:
    """Calls the hub, again where it is busy (408, 429, 5xx) or the connection breaks.

    Args:
        call: one or several requests through huggingface_hub; safe to repeat.
        repo: named in messages.
        revision: likewise; None where the whole repository is asked about.
        who: what the request is for, in front of every message.
        pause: waits between tries.

    Returns:
        What ``call`` returns.

    Raises:
        MissingCheckpoint: the revision does not exist.
        UnknownRepository: nor does the repository, or only with a token.
        Unreachable: no network, offline mode, or still busy after ``TRIES`` answers or ``BREAKS`` breaks.
        CheckpointError: anything else, with its cause.
    """
    place = repo if revision is None else f"{repo} at {revision}"
    busy = broken = 0
    while True:
        try:
            return call()
        except CheckpointError:
            raise
        except Exception as error:
            root = _root(error)
            if _is_transport(root):
                broken += 1
            else:
                busy += 1
            wait = _wait(root, busy, broken)
            if wait is None or wait > LONGEST_WAIT:
                raise _translated(root, repo, revision, f"{who}: {place}") from error
            pause(wait)


def _root(error: Exception) -> Exception:
    # "Not in the cache" only says that the hub failed before; why it failed is the cause.
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        return error.__cause__
    return error


def _is_transport(error: Exception) -> bool:
    # By module, since huggingface_hub changed its HTTP library once already and re-exports none.
    library = type(error).__module__.partition(".")[0]
    return library in ("httpx", "httpx2") and not isinstance(error, HfHubHTTPError)


def _status(error: Exception) -> int | None:
    return error.response.status_code if isinstance(error, HfHubHTTPError) else None


def _retry_after(error: Exception) -> float | None:
    """Seconds that the hub asks to wait: Retry-After (seconds or a date), else its rate limit's reset."""
    if not isinstance(error, HfHubHTTPError):
        return None
    headers = error.response.headers
    text = headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    limit = parse_ratelimit_headers(headers)
    if limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def _wait(error: Exception, busy: int, broken: int) -> float | None:
    """Seconds until the next try; None where another try is of no use."""
    if _is_transport(error):
        return 0.5 * broken if broken < BREAKS else None
    if _status(error) not in RETRIED or busy >= TRIES:
        return None
    asked = _retry_after(error)
    return float(2 ** (busy - 1)) if asked is None else asked


def _translated(error: Exception, repo: str, revision: str | None, where: str) -> CheckpointError:
    status = _status(error)
    if isinstance(error, RevisionNotFoundError):
        return MissingCheckpoint(f"{where}: the repository has no revision {revision}")
    if isinstance(error, GatedRepoError):
        return UnknownRepository(
            f"{where}: the repository is gated; accept its terms on the hub, then log in with `hf auth login`"
        )
    if isinstance(error, RepositoryNotFoundError) or status == 401:
        return UnknownRepository(f"{where}: {_no_access(status)}")
    if isinstance(error, HFValidationError):
        return UnknownRepository(f"{where}: not the name of a repository (owner/name): {_said(error)}")
    if isinstance(error, OfflineModeIsEnabled):
        return Unreachable(f"{where}: not in the cache, and HF_HUB_OFFLINE forbids to ask; unset it once")
    if status in RETRIED or _is_transport(error):
        return Unreachable(
            f"{where}: the hub does not answer ({_said(error)}); check the network and HF_ENDPOINT, "
            "then run the same command again"
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return DiskFull(f"{where}: the disk is full; free space, or set cache.folder to another disk")
    return CheckpointError(f"{where}: could not be fetched ({_said(error)}); run the same command again")


def _no_access(status: int | None) -> str:
    if status == 401:
        return (
            "no such repository, or a private one that was asked for without a valid token (401 covers "
            "both); check the name, or log in with `hf auth login`"
        )
    return "no such repository, or a private one that your token does not open (404); check the name"


def _said(error: Exception) -> str:
    # Addresses of downloads carry signatures in their query, which do not belong in a record.
    text = re.sub(r"\?\S*", "", " ".join(str(error).split()))
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
