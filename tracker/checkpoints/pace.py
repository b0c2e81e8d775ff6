"""How long the hub may take, and how much it may say: a bound for each answer, and for each piece of a file.

The timeouts of an HTTP client begin anew with every byte, so a server that sends one a second is never late;
and what it sends is unpacked into memory, whatever that comes to.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from huggingface_hub import get_session

ANSWER_SECONDS = 120.0
"""In which a listing, or what the hub says of a file, has to be there whole."""
LARGEST_ANSWER = 256 << 20
"""Bytes of it, unpacked; that of a repository with a million files is smaller."""
PIECE = 1 << 20
"""Bytes of a file that count as progress."""
PIECE_SECONDS = 120.0
"""In which the next piece of a file, or its rest, has to arrive, 9 kB/s: a large file may take days."""
_POLL = 0.1

Answer = TypeVar("Answer")


class TooSlow(Exception):
    """The time of a call was over."""


class TooLong(Exception):
    """An answer has more bytes than any should."""


_BOUNDED: ContextVar[bool] = ContextVar("bounded", default=False)
"""Whether this thread asks for what may have ``LARGEST_ANSWER`` bytes at most."""


def look_at(hook: Callable[[Any], None]) -> None:
    """Have a function see every answer that huggingface_hub gets in this process, before its body is read."""
    hooks = get_session().event_hooks["response"]
    if hook not in hooks:
        hooks.append(hook)


def bounded(call: Callable[[], Answer]) -> Answer:
    """Return what a call returns.

    Raises:
        TooLong: an answer that it reads has more than ``LARGEST_ANSWER`` bytes.
    """
    look_at(_bound)
    token = _BOUNDED.set(True)
    try:
        return call()
    finally:
        _BOUNDED.reset(token)


def _bound(response: Any) -> None:
    if not _BOUNDED.get():
        return
    read = response.iter_bytes

    def counted(chunk_size: int | None = None) -> Iterator[bytes]:
        left = LARGEST_ANSWER
        for chunk in read(chunk_size):
            left -= len(chunk)
            if left < 0:
                raise TooLong
            yield chunk

    response.iter_bytes = counted


def in_time(
    call: Callable[[], Answer],
    seconds: float,
    pause: Callable[[float], object],
    progress: Callable[[], object] = lambda: None,
) -> Answer:
    """Return what a call returns, or leave it behind in a thread of its own when its time is over.

    Args:
        call: what may take too long.
        seconds: its time, which begins anew whenever ``progress`` changes.
        pause: is called with 0 again and again; may raise where the answer is no longer needed.
        progress: says how far the call is.

    Raises:
        TooSlow: nothing changed for ``seconds``.
    """
    ended: SimpleQueue[tuple[bool, Answer | BaseException]] = SimpleQueue()

    def run() -> None:
        try:
            ended.put((True, call()))
        except BaseException as error:  # raised again by the thread that waits
            ended.put((False, error))

    threading.Thread(target=run, name="asking", daemon=True).start()
    seen, since = progress(), time.monotonic()
    while True:
        try:
            good, found = ended.get(timeout=min(_POLL, seconds))
        except Empty:
            pause(0)
            if (now := progress()) != seen:
                seen, since = now, time.monotonic()
            if time.monotonic() - since > seconds:
                raise TooSlow from None
            continue
        if good:
            return found  # type: ignore[return-value]
        raise found  # type: ignore[misc]
