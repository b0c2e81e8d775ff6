"""A checkpoint's tensors on disk, by the names that they have in the model, read a few at a time."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, rename_source_key

from tracker.checkpoints import files, headers
from tracker.errors import INTERRUPTIONS, CheckpointError
from tracker.models.loading import described_key, unfit
from tracker.models.stored_state import Shapes, load_pickle, plain_names


@dataclass(frozen=True)
class Stored:
    """One tensor of a weight file: where it lies, under which name, of which shape."""

    file: Path
    name: str
    shape: tuple[int, ...]
    absent: bool = False
    """Whether it was left out of the file, for want of need."""


class UntiedError(CheckpointError):
    """What the configuration ties is stored as two tensors that differ."""


class TensorFiles:
    """Where each tensor of a model lies on disk.

    ``sources`` has one entry per parameter and persistent buffer, tied ones once; none for one that was left
    out of the files on purpose.

    Raises:
        CheckpointError: the files cannot be read in parts, hold tensors that are none of the model's as they
            are, leave some out, or hold some in another shape.
    """

    def __init__(self, folder: Path, model: PreTrainedModel) -> None:
        self.folder = folder
        stored = _listing(folder)
        named = _model_names(folder, model, stored)
        self.sources: dict[str, Stored] = {}
        for names in tied_names(model):
            found = [stored[named[name]] for name in names if name in named]
            if not found:
                raise unfit(folder, "missing_keys", names[:1])
            wanted = tuple(model.state_dict()[names[0]].shape)
            if any(each.shape != wanted for each in found):
                raise unfit(folder, "mismatched_keys", [described_key((names[0], found[0].shape, wanted))])
            if found[0].absent:
                continue
            self.sources[names[0]] = found[0]
            if not all(self._equal(found[0], other) for other in found[1:]):
                raise UntiedError(f"{folder}: {' and '.join(names)} are one tensor, yet stored as two")

    def _equal(self, one: Stored, other: Stored) -> bool:
        with opened(one.file) as first, opened(other.file) as second:
            return torch.equal(first(one.name), second(other.name))

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """Name and tensor, in the file's dtype, on the host; valid until the next one is asked for.

        Files are mapped anew, so that the pages that were read do not stay in this process.
        """
        by_file: dict[Path, list[str]] = {}
        for name in names:
            by_file.setdefault(self.sources[name].file, []).append(name)
        for file, wanted in by_file.items():
            # A .bin is unpickled when it is opened, which is too dear to do for each tensor.
            parts = [[name] for name in wanted] if file.suffix == ".safetensors" else [wanted]
            for part in parts:
                with opened(file) as get:
                    for name in part:
                        yield name, get(self.sources[name].name)

    def rows(self, name: str, ids: Tensor) -> Tensor:
        """Some rows of a table, by number, copied, in the file's dtype; the others are not read."""
        with opened(self.sources[name].file) as get:
            return get(self.sources[name].name)[ids]

    def parts(self, name: str, rows: int) -> Iterator[Tensor]:
        """A table, so many rows at a time; each part is valid until the next one is asked for."""
        for start in range(0, self.sources[name].shape[0], rows):
            with opened(self.sources[name].file) as get:
                yield get(self.sources[name].name)[start : start + rows]


@contextmanager
def opened(file: Path) -> Iterator[Callable[[str], Tensor]]:
    """A weight file, mapped into memory: gives its tensors by name without reading the others."""
    if file.suffix == ".safetensors":
        try:
            with safe_open(file, framework="pt") as handle:
                yield handle.get_tensor
        except SafetensorError as error:
            raise CheckpointError(f"{file} does not load: {' '.join(str(error).split())[:200]}") from error
        return
    yield load_pickle(file).__getitem__


def _listing(folder: Path) -> dict[str, Stored]:
    """Every tensor of the folder's weight files, by its name there."""
    found: dict[str, Stored] = {}
    for file in files.whole(folder, str(folder)):
        try:
            shapes, absent = _shapes(file)
        except (CheckpointError, *INTERRUPTIONS):
            raise
        except BaseException as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(
                f"{file}: cannot be read in parts ({type(error).__name__}: {reason}); "
                "save the checkpoint again with save_pretrained"
            ) from error
        for name, shape in {**shapes, **absent}.items():
            if name in found:
                raise CheckpointError(f"{folder}: {name} lies in {found[name].file.name} and in {file.name}")
            found[name] = Stored(file, name, shape, name in absent)
    return found


def _shapes(file: Path) -> tuple[Shapes, Shapes]:
    """Shape of each tensor that a file holds, and of each that was left out of it."""
    if file.suffix == ".safetensors":
        header = headers.read_header(file)
        return header.shapes, header.absent
    tensors = load_pickle(file)
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}, {}


def tied_names(model: PreTrainedModel) -> list[list[str]]:
    """Names of each parameter and persistent buffer; tied ones are one entry with several names."""
    groups: dict[int, list[str]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        groups.setdefault(id(tensor), []).append(name)
    return list(groups.values())


def _model_names(folder: Path, model: PreTrainedModel, stored: Mapping[str, Stored]) -> dict[str, str]:
    """Name in the files by name in the model, as transformers maps them when it loads."""
    state: Any = model.state_dict()
    mapping = get_model_conversion_mapping(model)
    renamings = [each for each in mapping if isinstance(each, WeightRenaming)]
    converters: Any = [each for each in mapping if not isinstance(each, WeightRenaming)]
    ignored = _ignored(model)
    found: dict[str, str] = {}
    for name, plain in plain_names(stored).items():
        prefix = model.base_model_prefix
        renamed, converted = rename_source_key(plain, renamings, converters, prefix, state)
        if renamed not in state and plain in state:
            renamed, converted = rename_source_key(plain, [], [], prefix, state)
        if renamed not in state:
            if ignored and ignored.search(renamed):
                continue
            raise CheckpointError(f"{folder}: {name} is no tensor of {type(model).__name__}")
        if converted is not None or renamed in found:
            raise CheckpointError(
                f"{folder}: {name} is not stored as {type(model).__name__} holds it, so the files "
                "cannot be read in parts"
            )
        found[renamed] = name
    return found


def _ignored(model: PreTrainedModel) -> re.Pattern[str] | None:
    """Names that old files hold and models no longer do; as transformers, which says it nowhere else."""
    patterns = set(model._keys_to_ignore_on_load_unexpected or ())
    buffers = [name for name, _ in model.named_buffers()]
    if any(name.endswith("rotary_emb.inv_freq") for name in buffers):
        patterns.add(r"rotary_emb\.inv_freq")
    if any(name.endswith("position_ids") for name in buffers):
        patterns.add(r"(^|\.)position_ids$")
    return re.compile("|".join(f"({each})" for each in sorted(patterns))) if patterns else None
