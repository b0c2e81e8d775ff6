"""Checkpoints of models: where they are, what their names mean, and their files on this machine.

Floor 2: knows the hub and folders, never what is measured.
"""

from pathlib import Path

from tracker.checkpoints import environment as environment  # before anything of Hugging Face is imported
from tracker.checkpoints import folder
from tracker.checkpoints.answers import Unreachable
from tracker.checkpoints.cache import CheckpointCache, Hold
from tracker.checkpoints.cached import cache_folder
from tracker.checkpoints.folder import discover as discover_folder
from tracker.checkpoints.folder import passed_over
from tracker.checkpoints.hub import declared
from tracker.checkpoints.hub import discover as discover_hub
from tracker.checkpoints.hub import find as find_on_hub
from tracker.checkpoints.hub import first as first_of
from tracker.checkpoints.listing import branches, inspect, look
from tracker.checkpoints.names import Labels
from tracker.checkpoints.parts import size
from tracker.checkpoints.reading import Found, Naming, expanded, read_repositories
from tracker.checkpoints.remote import Inspected, Listed, RemoteFile
from tracker.checkpoints.suites import (
    PYTHIA_STEPS,
    PYTHIA_TOKENS_PER_STEP,
    SUITES,
    Published,
    published,
)
from tracker.errors import MissingCheckpoint
from tracker.records import Checkpoint, Fetched

__all__ = [
    "PYTHIA_STEPS",
    "PYTHIA_TOKENS_PER_STEP",
    "SUITES",
    "CheckpointCache",
    "Found",
    "Hold",
    "Inspected",
    "Labels",
    "Listed",
    "Naming",
    "Published",
    "RemoteFile",
    "Unreachable",
    "absent",
    "branches",
    "cache_folder",
    "declared",
    "discover_folder",
    "discover_hub",
    "expanded",
    "fetch",
    "find_on_hub",
    "first_of",
    "inspect",
    "look",
    "passed_over",
    "published",
    "read_repositories",
    "size",
]


def absent(checkpoint: Checkpoint, reason: str | None) -> MissingCheckpoint:
    """Return the error of a checkpoint that its source is known not to have."""
    return MissingCheckpoint(f"{checkpoint.label}: {reason or 'its source has no such step'}")


def fetch(checkpoint: Checkpoint, *, cache_dir: str | Path | None = None) -> Fetched:
    """Make a checkpoint's files ready to be loaded, wherever they are.

    What comes from the hub goes into its cache and stays there; a sweep goes through ``CheckpointCache``,
    which can remove it again.

    Args:
        checkpoint: from any ``discover``, ``declared`` or ``published``.
        cache_dir: see ``cache_folder``.

    Returns:
        The folder to load from, and the commit or fingerprint of what is in it.

    Raises:
        MissingCheckpoint: it does not exist at its source.
        CheckpointError: it does, but cannot be measured; the message gives the reason.
    """
    if checkpoint.kind == "folder":
        return folder.fetch(checkpoint)
    cache = CheckpointCache(cache_folder(cache_dir))
    hold = cache.fetch(checkpoint)
    cache.release(hold)
    return hold.fetched
