"""Exceptions that cross packages, and the phrases their messages share."""

from collections.abc import Iterable


class TrackerError(Exception):
    """Base of every error that tracker raises on purpose."""


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


def counted(count: int, thing: str) -> str:
    """Return a count with its noun: ``1 change``, ``3 changes``."""
    return f"{count} {thing}{'s' * (count != 1)}"
