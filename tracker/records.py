"""The frozen records that cross seams: what to measure, how, and what became of it."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

Status = Literal["ok", "failed", "missing"]
RecordId = tuple[str, str, int, int, str]
"""Suite, model, seed, step and key: what the ledger knows a unit by."""
Stamp = tuple[int, int]
"""Inode and time of change, in ns, of a record's folder."""
State = Literal["done", "to do", "retry", "missing", "known missing"]


def digest(value: object, length: int = 12) -> str:
    """First ``length`` hex digits of the SHA-256 of ``value`` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def tracker_version() -> str:
    """The installed version; ``0+source`` where the package is used from its source folder alone."""
    try:
        return version("training-tracker")
    except PackageNotFoundError:
        return "0+source"


@dataclass(frozen=True)
class Checkpoint:
    """One training checkpoint: where it is and what its name says. Nothing is fetched to make one."""

    suite: str
    model: str
    seed: int
    step: int
    kind: Literal["hub", "folder"]
    """``hub``: location is a repository id; ``folder``: location is a directory on this machine."""
    location: str
    revision: str
    """The branch or tag of the repository, ``branch:folder`` where it is a folder in it, or the name of the
    checkpoint's folder below ``location``."""
    tokens_seen: int | None = None
    identity: str | None = None
    """Stands for ``location`` in the key where the place may move (the embedded suite); else None."""
    commit: str | None = None
    """Pinned commit of the revision, where the source has already reported it."""
    exists: bool | None = None
    """False where the source is known not to have it; None where nobody has asked yet."""

    @property
    def branch(self) -> str:
        """What the hub is asked for: the revision without a folder in it."""
        return self.revision.partition(":")[0]

    @property
    def subfolder(self) -> str:
        """The folder in the branch that holds it; empty where the whole branch does."""
        return self.revision.partition(":")[2] if self.kind == "hub" else ""

    @property
    def label(self) -> str:
        """How messages name it: ``70m seed 0 step 512``."""
        return f"{self.model} seed {self.seed} step {self.step}"


@dataclass(frozen=True)
class ProbeSource:
    """Where the token sequences come from; exactly one of text, dataset and ids, or none for the default."""

    text: str | None = None
    """A text file, or a .jsonl file of documents."""
    dataset: str | None = None
    """A data set repository on the hub, with ``file`` (.txt, .jsonl or .parquet) and ``revision`` in it."""
    file: str | None = None
    revision: str = "main"
    field: str = "text"
    """The field of a .jsonl or .parquet file that holds the text."""
    ids: str | None = None
    """A .npy or .json file of token ids, shape (sequences, n), used as they are."""
    tokenizer: str | None = None
    """A folder with the tokenizer, where the checkpoints do not carry their own."""


@dataclass(frozen=True)
class ProbeSpec:
    """What is known of the probe before any tokenizer is loaded; part of every unit's key."""

    name: str
    text_digest: str
    """SHA-256 of the text or of the ids, or of the data set's address."""
    n: int
    """Tokens per sequence."""
    number: int
    """Sequences."""
    seed: int = 0
    """Seed of everything random in the probe (prefix-matching blocks)."""
    bos: bool = False
    """Whether the tokenizer's beginning-of-sequence token is put in front of each sequence."""
    target_error: float | None = None
    """Relative standard error at which no more of the sequences are measured; None: all are."""
    loss: bool = True
    """Whether loss and in-context score are measured, which take the vocabulary head."""

    @property
    def identity(self) -> dict[str, object]:
        """What keys and labels are made of; a field added later leaves them as they were by its default."""
        later = {"target_error": None, "loss": True}
        return {name: value for name, value in asdict(self).items() if later.get(name, ...) != value}

    @property
    def label(self) -> str:
        """Value of the ``probe`` column: name, size and digest."""
        return f"{self.name}-{self.number}x{self.n}-{digest(self.identity, 8)}"


CONVENTION_CHOICES: dict[str, tuple[str, ...]] = {
    "window": ("hann", "hamming", "blackman", "rectangular"),
    "mode": ("symmetric", "reflect", "constant", "periodic", "zero"),
    "sample": ("stride", "prefix", "random"),
    "align": ("interpolate", "gather", "dilate"),
    "averaging": ("received", "last", "lag"),
}
"""The named conventions that ``tracker.metrics`` offers."""


@dataclass(frozen=True)
class Conventions:
    """Every choice that the paper leaves open; results with different ones are never mixed."""

    preset: str = "paper"
    window: str = "hann"
    n_fft: int | None = None
    """None: the next power of two at or above the number of keys."""
    wavelet: str = "db2"
    mode: str = "symmetric"
    alphas: tuple[float, ...] = (0.5, 0.25)
    sample: str = "stride"
    align: str = "interpolate"
    averaging: str = "received"
    """Which reduction over queries gives the ``averaged_`` columns: received, last or lag."""
    windows: tuple[int, ...] = (16, 32, 64)
    span: int = 16
    queries: int | None = None
    """None: every query row; else that many, evenly spaced."""
    block: int = 50
    """Length of the block written twice for prefix matching."""
    theory_tokens: int = 96
    """Tokens of the one sequence that the theory checks look at; 0 leaves them out."""
    metrics: tuple[str, ...] = ()
    """Custom metrics, each with the digest of its source (``tracker.metrics.registry``)."""

    @property
    def identity(self) -> dict[str, object]:
        """What keys and labels are made of; without custom metrics they are what they always were."""
        return {name: value for name, value in asdict(self).items() if name != "metrics" or value}

    @property
    def label(self) -> str:
        """Value of the ``conventions`` column: the preset's name and the digest of every field."""
        return f"{self.preset}-{digest(self.identity, 8)}"


@dataclass(frozen=True)
class Unit:
    """One checkpoint to be measured in one way; ``key`` names its record in the store."""

    checkpoint: Checkpoint
    probe: ProbeSpec
    conventions: Conventions
    dtype: str = "float32"

    @property
    def key(self) -> str:
        """Twelve hex digits, known before anything is fetched (design: interfaces, store)."""
        source = self.checkpoint.identity or self.checkpoint.location
        return digest(
            [source, self.checkpoint.revision, self.probe.identity, self.conventions.identity, self.dtype]
        )

    @property
    def id(self) -> RecordId:
        """Key and name: one branch may be a checkpoint of two suites, and is then measured for both."""
        at = self.checkpoint
        return at.suite, at.model, at.seed, at.step, self.key

    def identity(self, status: Status) -> dict[str, object]:
        """The columns that every table carries."""
        at = self.checkpoint
        return {
            "suite": at.suite,
            "model": at.model,
            "seed": at.seed,
            "step": at.step,
            "probe": self.probe.label,
            "conventions": self.conventions.label,
            "status": status,
        }


@dataclass(frozen=True)
class Recorded:
    """What the ledger knows of one unit: the first columns of its checkpoint table."""

    key: str
    status: Status
    reason: str | None
    commit: str | None
    seconds: float | None
    token_digest: str | None
    suite: str
    model: str
    seed: int
    step: int
    probe: str
    conventions: str
    repo: str
    dtype: str | None
    n_layers: int | None = None
    n_heads: int | None = None
    d_model: int | None = None
    stamp: Stamp | None = field(default=None, compare=False)
    """Of the record's folder: another record of the same unit has another."""

    @property
    def id(self) -> RecordId:
        """Key and name, as of the unit that it is of."""
        return self.suite, self.model, self.seed, self.step, self.key


@dataclass(frozen=True)
class PlannedUnit:
    """A unit and what is to be done about it."""

    unit: Unit
    state: State
    reason: str | None = None
    seen: Stamp | None = None
    """Of the record that the plan was made by; None where there was none. Any other record is newer."""

    @property
    def pending(self) -> bool:
        """Whether a sweep would touch it."""
        return self.state in ("to do", "retry", "missing")


@dataclass(frozen=True)
class Outcome:
    """What became of a unit in this sweep."""

    unit: Unit
    status: Status
    reason: str | None
    seconds: float
    elsewhere: bool = False
    """Whether another sweep on the same store measured it meanwhile."""


@dataclass(frozen=True)
class Fetched:
    """A checkpoint whose files lie on this machine."""

    checkpoint: Checkpoint
    path: Path
    commit: str | None
    """The hub's commit, or for a folder a fingerprint of its weight files."""


@dataclass(frozen=True)
class Measurement:
    """All that one unit yields: the four tables of design.md (polars dataframes) of one checkpoint."""

    heads: Any
    layers: Any
    sequences: Any
    checkpoint: Any

    @property
    def summary(self) -> Any:
        """The one-row checkpoint table."""
        return self.checkpoint
