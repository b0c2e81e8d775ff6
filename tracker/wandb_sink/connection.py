"""Whether rows go to the W&B server or to disk: by the user's choice, the key, and the server's answer."""

import contextlib
import logging
import netrc
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from tracker.wandb_sink.options import SinkOptions

logger = logging.getLogger(__name__)
OFFLINE = "offline"
"""Stands for the server's address where rows only go to disk."""
DEFAULT_SERVER = "https://api.wandb.ai"
ANSWER_SECONDS = 3.0
"""How long the server may take to give any answer, before anything else waits for it."""
RETRY_SECONDS = 20.0
"""How often a server that did not answer is asked again."""
MODE_OF_ENVIRONMENT = {"offline": "offline", "dryrun": "offline", "disabled": "disabled",
                       "online": "online", "run": "online", "shared": "online"}  # fmt: skip
"""By value of ``WANDB_MODE``; other values count as not set."""


def resolve_mode(options: SinkOptions, server: str) -> str:
    """Return ``online``, ``offline`` or ``disabled``.

    ``mode=auto`` follows ``WANDB_MODE`` where it is set, else it is online if there is a key for the server.

    Args:
        options: the user's choice, which wins over the environment.
        server: address of the W&B server.
    """
    if not options.enabled:
        return "disabled"
    if options.mode != "auto":
        return options.mode
    asked = MODE_OF_ENVIRONMENT.get(os.environ.get("WANDB_MODE", "").strip().lower())
    return asked or ("online" if has_key(server) else "offline")


def offline_unless_asked(options: SinkOptions) -> SinkOptions:
    """Return options that send nothing to a server unless they, or ``WANDB_MODE``, ask for it.

    For what somebody runs to look around: a key on the machine is no request to upload a demonstration.
    """
    asked = os.environ.get("WANDB_MODE", "").strip().lower() in MODE_OF_ENVIRONMENT
    return options if asked or options.mode != "auto" else replace(options, mode="offline")


def destination(options: SinkOptions, folder: Path) -> str:
    """Say where rows will go, before W&B's client is imported: ``W&B: offline, DIR/wandb``."""
    mode = resolve_mode(options, os.environ.get("WANDB_BASE_URL") or DEFAULT_SERVER)
    if mode == "online":
        return f"W&B: {'/'.join(filter(None, (options.entity, options.project)))}"
    return "W&B: nothing" if mode == "disabled" else f"W&B: offline, {folder / 'wandb'}"


def has_key(server: str) -> bool:
    """Return whether this machine has credentials for a server: environment, token file or netrc."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    named = os.environ.get("NETRC")
    for name in [named] if named else ["~/.netrc", "~/_netrc"]:
        try:
            # Not authenticators(): a netrc may have a default entry, which says nothing about W&B.
            if urlsplit(server).netloc in netrc.netrc(Path(name).expanduser()).hosts:
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def readable(error: BaseException) -> str:
    """Return an error of W&B's client on one line, without the key should it quote it."""
    text = " ".join(str(error).split()) or type(error).__name__
    key = os.environ.get("WANDB_API_KEY")
    return (text.replace(key, "***") if key else text)[:300]


def run_bounded(tasks: Sequence[Callable[[], object]], seconds: float) -> list[Exception | None]:
    """Run tasks side by side and return what each failed with, None where it did not.

    Args:
        tasks: what to call; one that takes longer is left to itself, and failed with TimeoutError.
        seconds: for all of them together.
    """
    failures: dict[int, Exception | None] = {}

    def carry_out(number: int) -> None:
        try:
            tasks[number]()
            failures[number] = None
        # Whatever W&B raises is reported, and must not cost the other tasks.
        except Exception as error:
            failures[number] = error

    threads = [threading.Thread(target=carry_out, args=(n,), daemon=True) for n in range(len(tasks))]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = TimeoutError(f"did not take everything in {seconds:g} s")
    return [failures.get(number, late) for number in range(len(tasks))]


def reachable(server: str) -> bool:
    """Return whether anything answers at an address within ``ANSWER_SECONDS``.

    Any answer counts, also a refusal or a wrong certificate. The request goes through the environment's
    proxies, as W&B's own client does, and in a thread: resolving a name without a network may take a minute.
    """
    import requests  # a dependency of wandb

    def ask() -> None:
        with contextlib.suppress(requests.exceptions.SSLError):
            requests.head(server, timeout=ANSWER_SECONDS)

    return run_bounded([ask], ANSWER_SECONDS) == [None]


class Connection:
    """Where rows go now. After a failure to disk, until a server that had not answered does."""

    def __init__(self, options: SinkOptions, address: str) -> None:
        self._address = address
        self.mode = resolve_mode(options, address)
        self.failure: str | None = None
        """Why W&B is not used now; None while it is."""
        self._lost_at: float | None = None
        """When the server was last found not to answer, on the monotonic clock; None where it is not gone."""
        if self.mode == "online" and not has_key(address):
            # Checked here, since W&B's client would ask at the terminal and wait for an answer.
            self.fail(PermissionError("there is no key for it; `wandb login` stores one"))

    @property
    def server(self) -> str:
        """The server's address, or ``OFFLINE``."""
        return self._address if self.mode == "online" else OFFLINE

    def check(self) -> bool:
        """Ask whether the server answers; takes seconds, not the minutes of a client that tries again."""
        answered = reachable(self._address)
        if not answered:
            self._lost_at = time.monotonic()
        elif self.mode == "online":
            self._lost_at = None
        return answered

    def fail(self, error: BaseException) -> None:
        """Go on offline, remembering the first reason."""
        self.mode = "offline"
        if self.failure is None:
            self.failure = f"{self._address}: {readable(error)}"
            logger.warning("W&B failed: %s", self.failure)

    def recover(self) -> bool:
        """Go online again where the server had not answered and now does; it is asked only now and then."""
        if self.mode == "online" or self._lost_at is None:
            return False
        if time.monotonic() - self._lost_at < RETRY_SECONDS or not self.check():
            return False
        self.mode, self.failure, self._lost_at = "online", None, None
        logger.warning("W&B answers again: %s", self._address)
        return True
