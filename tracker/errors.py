"""Exceptions that cross packages, and the phrases their messages share."""

import os
import re
from collections.abc import Iterable

INTERRUPTIONS = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""What always passes. Everything else is a failure, a Rust panic (a BaseException) included."""
_BEARER = re.compile(r"(?i)(bearer\s+)[^\s\"',;]+")
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}")
_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY")


def redact(text: str) -> str:
    """Return a text without the tokens of this process's environment and without bearer tokens."""
    for name in _SECRETS:
        secret = os.environ.get(name, "").strip()
        if len(secret) >= 8:  # a shorter one would cut ordinary words
            text = text.replace(secret, "[redacted]")
    return _TOKEN.sub("[redacted]", _BEARER.sub(r"\1[redacted]", text))


class TrackerError(Exception):
    """Base of every error that tracker raises on purpose. Its message holds no secret."""

    def __init__(self, *parts: object) -> None:
        """Make an error whose texts are cut by ``redact``."""
        super().__init__(*(redact(part) if isinstance(part, str) else part for part in parts))


class RequestError(TrackerError):
    """The request itself is wrong: names the field, the value and what is allowed. Exit code 2."""


class Finished(TrackerError):
    """There is nothing left to do; says so. Exit code 0."""


class CheckpointError(TrackerError):
    """One checkpoint cannot be measured. It is recorded as failed with this reason; the sweep goes on."""


class MissingCheckpoint(CheckpointError):
    """The planned checkpoint does not exist at its source. It is recorded as missing."""


class StoreError(TrackerError):
    """The store holds something that cannot be read, or cannot be combined."""


def unknown_value(field: str, value: object, allowed: object) -> RequestError:
    """Return the error for a value that a field does not accept.

    Args:
        field: the configuration field, as the user writes it (``suite.models``).
        value: what was given.
        allowed: an iterable of accepted values, or a phrase describing them.
    """
    if isinstance(allowed, str):
        return RequestError(f"{field}={value}: invalid value; expected {allowed}")
    known = list(map(str, allowed))  # type: ignore[call-overload]
    expected = f"one of {', '.join(known)}{closest(str(value), known)}"
    return RequestError(f"{field}={value}: invalid value; expected {expected}")


def closest(given: str, known: Iterable[str]) -> str:
    """Return ``; did you mean X?`` for what is nearest to a misspelt name; empty where nothing is near.

    Example:
        >>> closest("swep", ["sweep", "plan"]), closest("x", ["sweep"])
        ('; did you mean sweep?', '')
    """
    from difflib import get_close_matches

    near = get_close_matches(given, list(known), n=1)
    return f"; did you mean {near[0]}?" if near and near[0] != given else ""


def printable(text: str) -> str:
    """Return text without control characters, which a terminal would obey: each stands as ``\\x1b``."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


MOST_NEAREST = 6
"""Steps that a message names as the nearest ones."""


def known_steps(wanted: Iterable[int], present: Iterable[int]) -> str:
    """Return the steps that there are, in brief, and which of them are nearest to those that there are not.

    Example:
        >>> known_steps([3, 8], [0, 1, 2, 4, 8])
        'steps: 0, 1, 2, 4, 8; nearest: 2, 4'
    """
    known = sorted(present)
    texts, ends = [str(step) for step in known], set[int]()
    for step in set(wanted) - set(known):
        below, above = [each for each in known if each < step], [each for each in known if each > step]
        ends |= {*below[-1:], *above[:1]}
    shown = ", ".join(texts if len(texts) <= 12 else [*texts[:8], "...", *texts[-3:]]) or "none"
    near = ", ".join(map(str, sorted(ends)[:MOST_NEAREST]))
    return f"steps: {shown}" + (f"; nearest: {near}" if near else "")


def counted(count: int, thing: str) -> str:
    """Return a count with its noun: ``1 change``, ``3 changes``."""
    return f"{count} {thing}{'s' * (count != 1)}"


CUDA_FAULTS = ("CUDA error", "CUDA driver error", "HIP error", "cuDNN error", "CUBLAS_STATUS")
"""In messages of errors after which CUDA fails every later call of a process, unlike out of memory."""


def needs_new_process(error: BaseException | None) -> bool:
    """Return whether CUDA fails every later call of the process that raised an error.

    Args:
        error: its causes count too.
    """
    while error is not None:
        named = type(error).__name__ == "AcceleratorError"
        if named or (isinstance(error, RuntimeError) and any(each in str(error) for each in CUDA_FAULTS)):
            return True
        error = error.__cause__ or error.__context__
    return False
