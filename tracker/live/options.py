"""What a monitored training run is called, when and on what it is measured, and where alerts go."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from numbers import Real
from typing import Any

from tracker.analysis.instability import Instability
from tracker.config import unknown_field
from tracker.errors import unknown_value
from tracker.live.budget import Budget, Schedule
from tracker.records import Conventions
from tracker.wandb_sink import SinkOptions


@dataclass(frozen=True)
class ProbeOptions:
    """The default probe's size, and how it is measured: as the arguments of ``tracker.track``."""

    number: int = 16
    """Sequences."""
    n: int = 96
    """Tokens per sequence; at most the model's positions are used."""
    target_error: float | None = None
    """Relative standard error of the means at which no more sequences are measured."""
    conventions: Mapping[str, Any] = field(default_factory=dict)
    """Fields of ``Conventions`` that differ from their defaults."""


@dataclass(frozen=True)
class WatchOptions:
    """How a training run is monitored.

    Raises:
        RequestError: a value that is not allowed.
    """

    name: str | None = None
    """Of the run in the store. None: ``run``; of a Trainer its ``run_name``, else that of ``output_dir``."""
    suite: str = "live"
    seed: int | None = None
    """None: 0; of a Trainer its own."""
    every: int = 100
    """Steps between measurements."""
    early: bool = True
    """Whether steps 0, 1, 2, 4 ... below ``every`` are measured too."""
    share: float | None = 0.05
    """Most of the training's time that measuring may take. None: everything that is due is measured."""
    total_steps: int | None = None
    """Length of the training, where it is known: early measurements may then be taken in advance of the time
    that pays for them. A Trainer knows its own."""
    sink: SinkOptions | None = None
    """Where W&B is to hold a run of tracker's own, as of a sweep; None: no such run."""
    on_alert: Callable[[Instability], None] | None = None
    """Called with each alert."""
    probe: ProbeOptions = ProbeOptions()

    def __post_init__(self) -> None:
        if self.share is not None and not isinstance(self.share, Real):
            raise unknown_value("share", repr(self.share), "a number above 0, up to 1, or None")
        if self.total_steps is not None and not isinstance(self.total_steps, Real):
            raise unknown_value("total_steps", repr(self.total_steps), "a number of steps, or None")
        if self.sink is not None and not isinstance(self.sink, SinkOptions):
            raise unknown_value("sink", repr(self.sink), "tracker.SinkOptions(...), or None")
        Schedule(self.every, self.early)
        Budget(self.share)
        for name in ("name", "suite"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value.strip()):
                raise unknown_value(name, repr(value), "a text that is not empty")
        if self.sink is not None:
            self.sink.validate()

    def named(self, name: str, seed: int) -> "WatchOptions":
        """Return the options with a name and a seed where they have none."""
        return replace(self, name=self.name or name, seed=seed if self.seed is None else self.seed)


def with_fields(options: WatchOptions | None, given: Mapping[str, Any]) -> WatchOptions:
    """Return options with some fields replaced.

    Args:
        options: None: the defaults.
        given: fields of ``WatchOptions``, of ``ProbeOptions`` and of ``Conventions``, by name.

    Raises:
        RequestError: an unknown field, or a value that is not allowed.
    """
    options = options or WatchOptions()
    own, probe, conventions = (_names(kind) for kind in (WatchOptions, ProbeOptions, Conventions))
    for name in given:
        if name not in own | probe | conventions:
            raise unknown_field(name, own | probe | conventions)
    changed = replace(options, **{name: value for name, value in given.items() if name in own})
    of_probe = {name: value for name, value in given.items() if name in probe}
    of_conventions = {name: value for name, value in given.items() if name in conventions}
    if of_conventions:
        of_probe["conventions"] = {**changed.probe.conventions, **of_conventions}
    return replace(changed, probe=replace(changed.probe, **of_probe)) if of_probe else changed


def _names(kind: type[Any]) -> set[str]:
    return {each.name for each in fields(kind)}
