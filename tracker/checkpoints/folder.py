"""Checkpoints in folders on this machine: a Trainer's output, saved branches, one saved model."""

import json
import os
import re
from pathlib import Path

from tracker.checkpoints import files as weights
from tracker.checkpoints import names as patterns
from tracker.errors import CheckpointError, MissingCheckpoint, RequestError
from tracker.records import Checkpoint, Fetched

_SEED = re.compile(r"seed-(\d+)")


def discover(
    path: str | Path,
    *,
    suite: str = "folder",
    model: str | None = None,
    seed: int = 0,
    step: int | None = None,
    pattern: str | None = None,
) -> list[Checkpoint]:
    """Finds the checkpoints in a folder, by names alone.

    Three layouts are read: step folders (``step1000``, ``checkpoint-500``, ...) below ``path``, also where
    a Trainer left its final model beside them; one model folder, which holds config.json; several
    model folders, each with step folders. ``seed-<k>`` folders may stand between model and steps.

    Args:
        path: the folder.
        suite: recorded as the checkpoints' suite.
        model: name of the model; default: the folder's name. Only where there is one model.
        seed: where no name tells it.
        step: of a single model folder; default: trainer_state.json's global_step, else 0.
        pattern: the user's own regular expression for step folders, see ``patterns.compiled``.

    Returns:
        Ordered by model, seed and step; ``location`` is the absolute folder that holds the step folders.

    Raises:
        RequestError: no such folder, nothing in it, two folders for one step, or a field that
            does not suit the layout.
    """
    root = Path(os.path.abspath(Path(path).expanduser()))
    if not root.is_dir() or not os.access(root, os.R_OK | os.X_OK):
        raise RequestError(f"suite.path={path}: no such folder, or not one that you may read")
    patterns.compiled(pattern)
    found = _steps_or_seeds(root, suite, model or root.name, seed, pattern)
    if found:
        if step is not None:
            raise RequestError(
                f"suite.step={step}: is for a folder that is one checkpoint, but {root} holds step folders "
                f"({weights.listed(checkpoint.revision for checkpoint in found)})"
            )
    elif (root / weights.CONFIG).is_file():
        step = _recorded_step(root) if step is None else step
        found = [_checkpoint(root, suite, model or root.name, patterns.Named(step), seed)]
    else:
        found = _models(root, suite, model, seed, pattern)
    return _ordered(found)


def fetch(checkpoint: Checkpoint) -> Fetched:
    """Checks that a checkpoint's files are there and whole; nothing is copied or loaded.

    Returns:
        The folder, and a fingerprint of its weight files in place of a commit.

    Raises:
        MissingCheckpoint: the folder is gone.
        CheckpointError: a file is missing, truncated, unreadable or not what its name says.
    """
    folder = Path(checkpoint.location) / checkpoint.revision
    if not folder.is_dir():
        raise MissingCheckpoint(f"{checkpoint.label}: there is no folder {folder}")
    try:
        files = weights.whole(folder, checkpoint.label)
        return Fetched(checkpoint, folder, weights.fingerprint(folder, files))
    except OSError as error:
        raise CheckpointError(
            f"{checkpoint.label}: {folder} cannot be read: {error}; check its permissions and the disk"
        ) from error


def _checkpoint(folder: Path, suite: str, model: str, named: patterns.Named, seed: int) -> Checkpoint:
    return Checkpoint(
        suite=suite,
        model=model,
        seed=seed if named.seed is None else named.seed,
        step=named.step,
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


def _steps(path: Path, suite: str, model: str, seed: int, pattern: str | None) -> list[Checkpoint]:
    named = [(entry, patterns.read(entry.name, pattern)) for entry in _folders(path)]
    return [_checkpoint(entry, suite, model, name, seed) for entry, name in named if name is not None]


def _steps_or_seeds(path: Path, suite: str, model: str, seed: int, pattern: str | None) -> list[Checkpoint]:
    steps = _steps(path, suite, model, seed, pattern)
    if steps:
        return steps
    seeds = [(entry, _SEED.fullmatch(entry.name)) for entry in _folders(path)]
    return [
        checkpoint
        for entry, match in seeds
        if match is not None
        for checkpoint in _steps(entry, suite, model, int(match[1]), pattern)
    ]


def _models(root: Path, suite: str, model: str | None, seed: int, pattern: str | None) -> list[Checkpoint]:
    found = [
        checkpoint
        for entry in _folders(root)
        for checkpoint in _steps_or_seeds(entry, suite, entry.name, seed, pattern)
    ]
    names = sorted({checkpoint.model for checkpoint in found})
    if model is not None and found:
        raise RequestError(
            f"suite.model={model}: names one model, but {root} holds models in folders of their own "
            f"({weights.listed(names)}); leave suite.model out, or give one of those folders as suite.path"
        )
    if not found:
        wanted = f"folders named {patterns.EXAMPLES}" if pattern is None else f"folders matching {pattern}"
        raise RequestError(
            f"suite.path={root}: no checkpoint there; looked for {wanted}, here or one model folder deeper, "
            f"and for {weights.CONFIG}; found {weights.listed(entry.name for entry in root.iterdir())}"
        )
    return found


def _recorded_step(folder: Path) -> int:
    state = folder / "trainer_state.json"
    if not state.is_file():
        return 0
    try:
        return int(json.loads(state.read_text(encoding="utf-8")).get("global_step", 0))
    except (ValueError, TypeError, AttributeError) as error:
        raise RequestError(
            f"suite.path={folder}: {state.name} does not tell a global_step ({error}); give suite.step"
        ) from error


def _ordered(found: list[Checkpoint]) -> list[Checkpoint]:
    taken: dict[tuple[str, int, int], Checkpoint] = {}
    for checkpoint in found:
        other = taken.setdefault((checkpoint.model, checkpoint.seed, checkpoint.step), checkpoint)
        if other is not checkpoint:
            raise RequestError(
                f"suite.path: {other.revision} and {checkpoint.revision} in {checkpoint.location} are both "
                f"step {checkpoint.step} of {checkpoint.model} seed {checkpoint.seed}; "
                "give suite.pattern a form that tells them apart"
            )
    return [taken[key] for key in sorted(taken)]
