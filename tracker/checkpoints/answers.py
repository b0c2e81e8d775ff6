"""Calls to the hub: which failures are tried again, and which error each of the others becomes."""

import errno
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
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

from tracker.checkpoints import pace
from tracker.checkpoints.pace import TooLong, TooSlow, bounded, in_time
from tracker.errors import CheckpointError, MissingCheckpoint

RETRIED = frozenset({408, 429, 500, 502, 503, 504})
TRIES = 5
BREAKS = 3
"""Consecutive broken connections after which a call is given up; counted apart from busy answers."""
LONGEST_WAIT = 300.0
"""Seconds; a hub that asks for a longer pause counts as unreachable."""

Answer = TypeVar("Answer")
Pause = Callable[[float], object]
"""Waits so many seconds; may raise where the answer is no longer needed."""


class UnknownRepository(CheckpointError):
    """The repository does not exist, or the caller has no access to it."""


class Unreachable(CheckpointError):
    """The hub did not answer; the cache may still hold what is needed."""


class DiskFull(CheckpointError):
    """There is no room for the files; the message says how much is missing."""


@dataclass(frozen=True)
class Subject:
    """What a call to the hub is about, as messages name it."""

    repo: str
    revision: str | None
    """None where the whole repository is asked about."""
    who: str
    """The configuration field, or the checkpoint's model, seed and step."""
    file: str | None = None
    """None where it is not about one file."""

    @property
    def where(self) -> str:
        """How messages begin."""
        place = f"{self.who}: {self.repo}" + (f" at {self.revision}" if self.revision else "")
        return f"{place}: {self.file}" if self.file else place


def ask(
    call: Callable[[], Answer], about: Subject, pause: Pause = time.sleep, within: float | None = None
) -> Answer:
    """Call the hub, again where it is busy (408, 429, 5xx) or the connection breaks.

    Args:
        call: one or several requests through huggingface_hub; safe to repeat.
        about: named in messages.
        pause: waits between tries.
        within: seconds in which an answer, of ``LARGEST_ANSWER`` bytes at most, has to be there whole;
            None: ``call`` has bounds of its own.

    Returns:
        What ``call`` returns.

    Raises:
        MissingCheckpoint: the revision does not exist.
        UnknownRepository: the repository does not exist, or needs a token.
        Unreachable: no network, offline mode, an answer that does not end, or still busy after ``TRIES``
            answers or ``BREAKS`` breaks.
        DiskFull: the disk is full.
        CheckpointError: anything else, with its cause.
    """
    busy = broken = 0
    while True:
        try:
            return call() if within is None else in_time(lambda: bounded(call), within, pause)
        except CheckpointError:
            raise
        except TooLong as error:
            raise CheckpointError(
                f"{about.where}: the hub's answer has more than {pace.LARGEST_ANSWER >> 20} MiB; "
                "check HF_ENDPOINT"
            ) from error
        except TooSlow as error:
            raise Unreachable(
                f"{about.where}: the hub's answer is not complete, and nothing more came in time; check "
                "the network and HF_ENDPOINT, then run the same command again"
            ) from error
        except Exception as error:
            cause = _cause(error)
            broken, busy = broken + _is_transport(cause), busy + (not _is_transport(cause))
            # The library has tried again on its own before it reports a file as not in the cache.
            wait = _wait(cause, busy, broken) if cause is error else None
            if wait is None or wait > LONGEST_WAIT:
                raise _translated(cause, about) from error
            pause(wait)


def _cause(error: Exception) -> Exception:
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
    """Seconds that the hub asks to wait: Retry-After, else its rate limit's reset."""
    if not isinstance(error, HfHubHTTPError):
        return None
    headers = error.response.headers
    text = headers.get("Retry-After", "").strip()
    if text.isdigit():
        return float(text)
    limit = parse_ratelimit_headers(headers)
    return float(limit.reset_in_seconds) if limit is not None and limit.remaining == 0 else None


def _wait(error: Exception, busy: int, broken: int) -> float | None:
    """Seconds until the next try; None where another try is of no use."""
    if _is_transport(error):
        return 0.5 * broken if broken < BREAKS else None
    if _status(error) not in RETRIED or busy >= TRIES:
        return None
    asked = _retry_after(error)
    return float(2 ** (busy - 1)) if asked is None else asked


def _translated(error: Exception, about: Subject) -> CheckpointError:
    where, status = about.where, _status(error)
    if isinstance(error, RevisionNotFoundError):
        return MissingCheckpoint(f"{where}: the repository has no revision {about.revision}")
    if isinstance(error, GatedRepoError):
        return UnknownRepository(
            f"{where}: the repository is gated; accept its terms on the hub, then log in with `hf auth login`"
        )
    if isinstance(error, RepositoryNotFoundError) or status == 401:
        without = "asked for without a valid token" if status == 401 else "closed to your token"
        return UnknownRepository(
            f"{where}: the repository does not exist, or is private and {without} ({status}); check the "
            "name, or log in with `hf auth login`"
        )
    if isinstance(error, HFValidationError):
        return UnknownRepository(
            f"{where}: invalid repository name, expected owner/name: {_described(error)}"
        )
    if isinstance(error, OfflineModeIsEnabled):
        return Unreachable(f"{where}: not in the cache, and HF_HUB_OFFLINE is set; unset it once")
    if status in RETRIED or _is_transport(error):
        return Unreachable(
            f"{where}: the hub does not answer ({_described(error)}); check the network and HF_ENDPOINT, "
            "then run the same command again"
        )
    # hf-xet reports a full disk as an error of its own that carries the system's words.
    full = isinstance(error, OSError) and error.errno == errno.ENOSPC
    if full or "No space left on device" in str(error):
        return DiskFull(f"{where}: the disk is full; free space, or set cache.folder to another disk")
    return CheckpointError(f"{where}: could not be fetched ({_described(error)}); run the same command again")


def _described(error: Exception) -> str:
    """An error's type and message, in one line, without the signatures that download addresses carry."""
    shown = "".join(each if each.isprintable() else " " for each in str(error))  # it may quote any answer
    text = re.sub(r"\?\S*", "", " ".join(shown.split()))
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
