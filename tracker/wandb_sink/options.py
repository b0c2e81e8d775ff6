"""What the user chooses about W&B: the fields of ``conf/sink``."""

import math
from dataclasses import dataclass

from tracker.errors import RequestError, unknown_value

NAMES = ("wandb", "none")
MODES = ("auto", "online", "offline", "disabled")
LONGEST_NAME = 128
"""W&B refuses project, entity, group and run names that are longer."""
REFUSED = "/\\#?%:"
"""Characters that W&B refuses in a project's name."""


@dataclass(frozen=True)
class SinkOptions:
    """Where the results are sent, and how much of them."""

    name: str = "wandb"
    """``wandb``, or ``none``: nothing is sent."""
    project: str = "tracker"
    """The W&B project; it is created where it does not exist."""
    entity: str | None = None
    """The W&B user or team; None: the default one of the key."""
    mode: str = "auto"
    """``auto`` sends where there is a key and writes to disk where there is none; a sweep of the embedded
    suite then writes to disk."""
    histograms: bool = True
    """Whether every checkpoint carries histograms over heads."""
    maps: bool = True
    """Whether every checkpoint carries layer x head maps, as small images."""
    artifact: bool = True
    """Whether a run's records go to the server as a versioned artifact, when the run is closed."""
    order_wait: float = 60.0
    """No effect: rows are sent as they are measured. Accepted so that earlier requests still run."""
    init_timeout: float = 20.0
    """Seconds that W&B may take to answer before the rows go to disk instead."""
    finish_timeout: float = 30.0
    """Seconds that W&B may take at the end to accept what is still on its way."""

    @property
    def enabled(self) -> bool:
        """Whether anything is to be sent at all."""
        return self.name == "wandb" and self.mode != "disabled"

    def validate(self) -> "SinkOptions":
        """Check every field and return the options themselves.

        Raises:
            RequestError: a value is not allowed; names the field, the value and what is allowed.
        """
        if self.name not in NAMES:
            raise unknown_value("sink.name", self.name, NAMES)
        if self.mode not in MODES:
            raise unknown_value("sink.mode", self.mode, MODES)
        _check_name("sink.project", self.project)
        if self.entity is not None:
            _check_name("sink.entity", self.entity)
        for field in ("init_timeout", "finish_timeout"):
            seconds = getattr(self, field)
            if not (math.isfinite(seconds) and seconds > 0):
                raise RequestError(f"sink.{field}={seconds}: must be a positive number of seconds")
        return self


def _check_name(field: str, name: str) -> None:
    reason = None
    if not name.strip() or name != name.strip():
        reason = "is empty or has blanks around it"
    elif len(name) > LONGEST_NAME:
        reason = f"has {len(name)} characters"
    elif not name.isprintable():
        reason = "has characters that cannot be printed"
    elif set(name) & set(REFUSED):
        reason = "has characters that W&B refuses"
    elif set(name) == {"."}:
        reason = "is not a name"
    if reason:
        raise RequestError(
            f"{field}={name}: {reason}; allowed: 1 to {LONGEST_NAME} characters without any of {REFUSED}"
        )
