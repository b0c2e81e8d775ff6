"""Exceptions that cross packages, and the phrases their messages share."""


class TrackerError(Exception):
    """Base of every error that tracker raises on purpose."""


class RequestError(TrackerError):
    """The request itself is wrong: names the field, the value and what is allowed. Exit code 2."""


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
    expected = allowed if isinstance(allowed, str) else f"one of {', '.join(map(str, allowed))}"  # type: ignore[call-overload]
    return RequestError(f"{field}={value}: invalid value; expected {expected}")


def printable(text: str) -> str:
    """Return text without control characters, which a terminal would obey: each stands as ``\\x1b``."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def counted(count: int, thing: str) -> str:
    """Return a count with its noun: ``1 change``, ``3 changes``."""
    return f"{count} {thing}{'s' * (count != 1)}"
