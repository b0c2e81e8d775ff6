"""Which W&B run a record belongs to: one per suite, model, seed, probe and conventions."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from tracker.records import Recorded, digest
from tracker.wandb_sink.options import LONGEST_NAME


@dataclass(frozen=True, order=True)
class RunIdentity:
    """One training run measured in one way; everything W&B calls it follows from these five."""

    suite: str
    model: str
    seed: int
    probe: str
    conventions: str

    @classmethod
    def of(cls, record: Recorded) -> "RunIdentity":
        """Return the run that a record belongs to."""
        return cls(record.suite, record.model, record.seed, record.probe, record.conventions)

    @property
    def id(self) -> str:
        """The run's id in W&B: the same at all times and on every machine, and safe in any address."""
        return digest(asdict(self), 16)

    @property
    def name(self) -> str:
        """How people read it: ``70m seed 0``."""
        seed = f" seed {self.seed}"
        return f"{self.model[: LONGEST_NAME - len(seed)]}{seed}"

    @property
    def group(self) -> str:
        """Runs of one suite stand together."""
        return self.suite[:LONGEST_NAME]

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"{self.model} seed {self.seed} of suite {self.suite}"


SWEEP_ID = "WANDB_SWEEP_ID"
NAMES_OF_A_RUN = (
    SWEEP_ID, "WANDB_SWEEP_PARAM_PATH", "WANDB_RUN_ID", "WANDB_NAME", "WANDB_RUN_NAME", "WANDB_RUN_GROUP",
    "WANDB_JOB_TYPE", "WANDB_JOB_NAME", "WANDB_RESUME", "WANDB_RESUME_FROM", "WANDB_FORK_FROM",
    "WANDB_LAUNCH", "WANDB_LAUNCH_CONFIG_PATH", "WANDB_CONFIG_PATHS",
)  # fmt: skip
"""Variables by which an agent or a launcher names one run; ours are many, each with its own name."""


@contextmanager
def without_foreign_names() -> Iterator[str | None]:
    """Hide from W&B's client, for the length of a block, what the environment says one run is called.

    Yields:
        The id of the W&B sweep whose agent started this process; None where none did.
    """
    hidden = {name: os.environ.pop(name) for name in NAMES_OF_A_RUN if name in os.environ}
    try:
        yield hidden.get(SWEEP_ID)
    finally:
        os.environ.update(hidden)
