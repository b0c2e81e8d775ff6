"""The exceptions that cross floors. Each message says what failed, why, and what to do."""


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
    """The one sentence for a value that is not among the allowed ones.

    Args:
        field: the configuration field, as the user writes it (``suite.models``).
        value: what was given.
        allowed: an iterable of allowed values, or a sentence describing them.
    """
    known = allowed if isinstance(allowed, str) else ", ".join(str(item) for item in allowed)  # type: ignore[union-attr]
    return RequestError(f"{field}={value}: not known; allowed: {known}")
