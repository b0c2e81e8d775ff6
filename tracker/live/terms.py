"""What a watched training run is called, how it is watched, and what that has come to."""

from dataclasses import dataclass, field
from pathlib import Path

from tracker.errors import RequestError
from tracker.live.budget import Budget, Schedule
from tracker.wandb_sink import SinkOptions


@dataclass(frozen=True)
class Terms:
    """What a training run is called, and how it is watched.

    Raises:
        RequestError: a value that is not allowed.
    """

    store: Path = Path("tracker-store")
    name: str = "run"
    suite: str = "live"
    seed: int = 0
    every: int = 100
    early: bool = True
    share: float | None = 0.05
    sink: SinkOptions | None = None

    def __post_init__(self) -> None:
        Schedule(self.every, self.early)
        Budget(self.share)
        for field_name in ("name", "suite"):
            value = getattr(self, field_name)
            if not isinstance(value, str) or not value.strip():
                raise RequestError(f"{field_name}={value!r}: not a name; give a text that is not empty")
        if self.sink is not None:
            self.sink.validate()


@dataclass
class Account:
    """What watching has come to: how many measurements were taken, and what they cost."""

    measured: int = 0
    skipped: int = 0
    failed: int = 0
    measuring_seconds: float = 0.0
    training_seconds: float = 0.0
    alerts: int = 0
    sentences: list[str] = field(default_factory=list)
    """What the W&B publisher said at the end, and what else there was to say."""

    @property
    def share(self) -> float:
        """Measuring as a share of the time that training itself took."""
        return self.measuring_seconds / self.training_seconds if self.training_seconds else 0.0

    def __str__(self) -> str:
        """In one line, for people."""
        return (
            f"{self.measured} steps measured, {self.skipped} left out, {self.failed} failed, in "
            f"{self.measuring_seconds:.2f} s beside {self.training_seconds:.2f} s of training "
            f"({self.share:.1%}); alerts: {self.alerts}"
        )
