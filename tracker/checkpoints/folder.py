"""Checkpoints in folders on this machine: a Trainer's output, saved branches, one saved model."""

import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from tracker.atomic import read_json
from tracker.checkpoints import files, names
from tracker.checkpoints.names import Labels
from tracker.checkpoints.reading import unread_note
from tracker.errors import CheckpointError, MissingCheckpoint, RequestError
from tracker.records import Checkpoint, Fetched

_SEED = re.compile(r"seed-(\d+)")


def discover(
    path: str | Path, labels: Labels | None = None, *, step: int | None = None, pattern: str | None = None
) -> list[Checkpoint]:
    """Find the checkpoints in a folder, by names alone.

    Three layouts are read: step folders (``step1000``, ``checkpoint-500``, ...) below ``path``, also where
    a Trainer left its final model beside them; one model folder, which holds config.json; several
    model folders, each with step folders. ``seed-<k>`` folders may stand between model and steps.

    Args:
        path: the folder.
        labels: recorded with each checkpoint; model (default: the folder's name) only where there is one.
        step: of a single model folder; default: trainer_state.json's global_step, else 0.
        pattern: the user's own regular expression for step folders, see ``names.compiled``.

    Returns:
        Ordered by model, seed and step; ``location`` is the absolute folder that holds the step folders.

    Raises:
        RequestError: no such folder, nothing in it, two folders for one step, or a field that
            does not suit the layout.
    """
    root = Path(os.path.abspath(Path(path).expanduser()))
    if not root.is_dir() or not os.access(root, os.R_OK | os.X_OK):
        raise RequestError(f"suite.path={path}: no such folder, or not one that you may read")
    names.compiled(pattern)
    given = labels or Labels()
    own = replace(given, suite=given.suite or "folder", model=given.model or root.name)
    found = _steps_or_seeds(root, own, pattern)
    if found:
        if step is not None:
            raise RequestError(
                f"suite.step={step}: is for a folder that is one checkpoint, but {root} holds step folders "
                f"({files.listed(checkpoint.revision for checkpoint in found)})"
            )
    elif (root / files.CONFIG).is_file():
        step = _recorded_step(root) if step is None else step
        found = [_checkpoint(root, own, names.Named(step))]
    else:
        found = _models(root, own, given.model, pattern)
    return _ordered(found)


def passed_over(found: Iterable[Checkpoint], path: str | Path) -> list[str]:
    """Say which folders beside step folders hold a model, but no step in their name.

    Args:
        found: from ``discover``.
        path: as for ``discover``.
    """
    root, read = Path(os.path.abspath(Path(path).expanduser())), {}
    for checkpoint in found:
        read.setdefault(Path(checkpoint.location), set()).add(checkpoint.revision)
    notes = []
    for place, revisions in read.items():
        if root.is_relative_to(place) and root != place:
            continue  # the folder itself is the checkpoint
        beside = [each.name for each in _folders(place) if (each / files.CONFIG).is_file()]
        unread = [name for name in beside if name not in revisions]
        notes += [unread_note(str(place), unread)] if unread else []
    return notes


def fetch(checkpoint: Checkpoint) -> Fetched:
    """Check that a checkpoint's files are there and whole; nothing is copied or loaded.

    Returns:
        The folder, and a fingerprint of its weight files in place of a commit.

    Raises:
        MissingCheckpoint: the folder is gone.
        CheckpointError: a file is missing, truncated, unreadable or not of its format.
    """
    folder = Path(checkpoint.location) / checkpoint.revision
    if not folder.is_dir():
        raise MissingCheckpoint(f"{checkpoint.label}: there is no folder {folder}")
    try:
        return Fetched(checkpoint, folder, files.fingerprint(folder, files.whole(folder, checkpoint.label)))
    except OSError as error:
        raise CheckpointError(
            f"{checkpoint.label}: {folder} cannot be read: {error}; check its permissions and the disk"
        ) from error


def _checkpoint(folder: Path, labels: Labels, named: names.Named) -> Checkpoint:
    return Checkpoint(
        suite=labels.suite or "",
        model=named.model(labels.model or ""),
        seed=labels.seed if named.seed is None else named.seed,
        step=named.at(),
        kind="folder",
        location=str(folder.parent),
        revision=folder.name,
        tokens_seen=named.tokens,
        exists=True,
    )


def _folders(path: Path) -> list[Path]:
    # One that nobody may open (lost+found) holds no checkpoint for us.
    readable = os.access(path, os.R_OK | os.X_OK)
    return sorted(entry for entry in path.iterdir() if entry.is_dir()) if readable else []


def _steps(path: Path, labels: Labels, pattern: str | None) -> list[Checkpoint]:
    named = [(entry, names.read(entry.name, pattern)) for entry in _folders(path)]
    return [_checkpoint(entry, labels, name) for entry, name in named if name is not None]


def _steps_or_seeds(path: Path, labels: Labels, pattern: str | None) -> list[Checkpoint]:
    seeds = [(entry, _SEED.fullmatch(entry.name)) for entry in _folders(path)]
    return _steps(path, labels, pattern) or [
        checkpoint
        for entry, match in seeds
        if match is not None
        for checkpoint in _steps(entry, replace(labels, seed=int(match[1])), pattern)
    ]


def _models(root: Path, labels: Labels, model: str | None, pattern: str | None) -> list[Checkpoint]:
    found = [
        checkpoint
        for entry in _folders(root)
        for checkpoint in _steps_or_seeds(entry, replace(labels, model=entry.name), pattern)
    ]
    if model is not None and found:
        models = files.listed({checkpoint.model for checkpoint in found})
        raise RequestError(
            f"suite.model={model}: names one model, but {root} holds models in folders of their own "
            f"({models}); leave suite.model out, or give one of those folders as suite.path"
        )
    if not found and (adapter := files.adapter_of(root)):
        raise RequestError(f"suite.path={root}: holds an adapter of {adapter}; merge it first{files.MERGE}")
    if not found:
        wanted = f"folders named {names.EXAMPLES}" if pattern is None else f"folders matching {pattern}"
        raise RequestError(
            f"suite.path={root}: no checkpoint there; looked for {wanted}, here or one model folder deeper, "
            f"and for {files.CONFIG}; found {files.listed(entry.name for entry in root.iterdir())}"
        )
    return found


def _recorded_step(folder: Path) -> int:
    state = folder / "trainer_state.json"
    if not state.is_file():
        return 0
    try:
        return int(read_json(state).get("global_step", 0))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise RequestError(
            f"suite.path={folder}: {state.name} reports no global_step ({error}); set suite.step"
        ) from error


def _ordered(found: list[Checkpoint]) -> list[Checkpoint]:
    taken: dict[tuple[str, int, int], Checkpoint] = {}
    for checkpoint in found:
        other = taken.setdefault((checkpoint.model, checkpoint.seed, checkpoint.step), checkpoint)
        if other is not checkpoint:
            raise RequestError(
                f"suite.path: {other.revision} and {checkpoint.revision} in {checkpoint.location} are both "
                f"step {checkpoint.step} of {checkpoint.model} seed {checkpoint.seed}; "
                "set suite.pattern to a form that keeps them apart"
            )
    return [taken[key] for key in sorted(taken)]
