"""Models larger than memory: each transformer block is on the device only while a forward pass is in it.

Several passes of one model may run at once and halt inside a block, so passes are counted: the first to
enter loads the block, and once the last has left, its memory goes to the next one that is loaded.
"""

import functools
import mmap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from tracker.errors import CheckpointError
from tracker.models.loading import refuse_nan_in, torch_dtype
from tracker.models.meta_model import meta_model
from tracker.models.tensor_reader import TensorFiles, UntiedError, tied_names

ALIGNED_BYTES = 64
"""As torch aligns a tensor of its own: kernels, and so the last bits, may depend on it."""
CHECKED_ROWS = 8192
"""Rows of an embedding that are looked at together for NaN."""
Place = tuple[nn.Module, str]


@dataclass
class _Group:
    """Tensors that come and go together, and how many passes need them now."""

    places: dict[str, list[Place]]
    absent: dict[str, Tensor]
    """What stands in the places while the tensors are away: the shape without memory."""
    inside: int = 0
    here: bool = False

    @classmethod
    def of(cls, places: dict[str, list[Place]]) -> "_Group":
        return cls(places, {name: _at(found[0]) for name, found in places.items()})


def stream_model(path: Path, *, dtype: str = "float32", device: str = "cpu") -> PreTrainedModel:
    """Return a checkpoint folder as a model whose blocks are read from disk as they are needed.

    It measures like one from ``load_model``, bit for bit, but takes the memory of two blocks or of the
    vocabulary head. Of the token embedding only the rows that are looked up are read.

    Args:
        path, dtype, device: as for ``load_model``.

    Raises:
        RequestError: unknown dtype.
        CheckpointError: the files leave tensors out or cannot be read in parts, or the architecture is not a
            plain list of blocks. While the model runs: weights hold NaN; names the tensor.
    """
    kind = torch_dtype(dtype)
    model = meta_model(path, kind)
    if dtype in ("float16", "bfloat16") and getattr(model, "_keep_in_fp32_modules", None):
        raise CheckpointError(
            f"{path}: {type(model).__name__} keeps parts in float32, streaming does not; use dtype=float32"
        )
    try:
        files = TensorFiles(path, model)
    except UntiedError:  # the files count, as for transformers when it loads them whole
        model = meta_model(path, kind, tied=False)
        files = TensorFiles(path, model)
    _Streamed(model, files, kind, torch.device(device))
    return model.eval()


class _Streamed:
    """Loads the tensors of a model on the meta device when a pass needs them."""

    def __init__(
        self, model: PreTrainedModel, files: TensorFiles, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._files, self._dtype, self._device = files, dtype, device
        self._groups: list[_Group] = []
        self._checked: set[str] = set()
        self._lock = threading.Lock()
        places = _places(model)
        coming_and_going: set[str] = set()
        for block in _blocks(model, files.folder):
            coming_and_going |= self._hold_while_used([block], places, coming_and_going)
        coming_and_going |= self._embedding_and_head(model, places, coming_and_going)
        self._bring(_Group.of({name: places[name] for name in places if name not in coming_and_going}))
        for module in model.modules():
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = buffer.to(device)
            if isinstance(module, PreTrainedModel):
                # ``model.device`` is that of the first parameter, which would be none.
                module.register_parameter(
                    "streamed_to", nn.Parameter(torch.empty(0, dtype=dtype, device=device))
                )

    def _embedding_and_head(
        self, model: PreTrainedModel, places: dict[str, list[Place]], taken: set[str]
    ) -> set[str]:
        """Plain embeddings are looked up in the file; others, and the head, come whole while in use."""
        table, head = model.get_input_embeddings(), model.get_output_embeddings()
        name = next(name for name, found in places.items() if (table, "weight") in found)
        tied = [module for module, attribute in places[name] if attribute == "weight"]
        looked_up = [module for module in tied if type(module).forward is nn.Embedding.forward]
        for module in looked_up:
            module.forward = functools.partial(self._looked_up, name)
        whole = [module for module in tied if module not in looked_up]
        mine = {name}
        if whole:
            mine |= self._hold_while_used(whole, places, taken)
        if head is not None and head not in whole:
            mine |= self._hold_while_used([head], places, taken)
        return mine

    def _hold_while_used(
        self, modules: list[nn.Module], places: dict[str, list[Place]], taken: set[str]
    ) -> set[str]:
        mine = {id(p) for module in modules for p in module.parameters()}
        group = _Group.of({name: found for name, found in places.items() if id(_at(found[0])) in mine})
        shared = sorted(taken & group.places.keys())
        if shared:
            raise CheckpointError(
                f"{self._files.folder}: {shared[0]} belongs to several blocks, so they cannot be loaded one "
                "by one; measure it where it fits into memory"
            )
        self._groups.append(group)
        for module in modules:
            module.forward = self._holding(group, module.forward)
        return set(group.places)

    def _holding(self, group: _Group, forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def held(*args: Any, **kwargs: Any) -> Any:
            with self._inside(group):
                return forward(*args, **kwargs)

        return held

    @contextmanager
    def _inside(self, group: _Group) -> Iterator[None]:
        with self._lock:
            if not group.here:
                for idle in self._groups:
                    if idle.here and not idle.inside:
                        _send_away(idle)
                self._bring(group)
            group.inside += 1
        try:
            yield
        finally:
            with self._lock:
                group.inside -= 1

    def _bring(self, group: _Group) -> None:
        """Reads a group's tensors into one piece of memory, which goes back to the system as one."""
        width = ALIGNED_BYTES // self._dtype.itemsize
        sizes = {name: _at(found[0]).numel() for name, found in group.places.items()}
        spans = {name: -(-size // width) * width for name, size in sizes.items()}
        with torch.inference_mode(False), torch.no_grad():
            memory = _memory(sum(spans.values()), self._dtype, self._device)
            parts = dict(zip(spans, memory.split(list(spans.values())), strict=True)) if spans else {}
            for name, stored in self._files.read(group.places):
                tensor = parts[name][: sizes[name]].view(stored.shape)
                tensor.copy_(stored)
                del stored
                self._check(name, tensor)
                _put(group.places[name], nn.Parameter(tensor, requires_grad=False))
        group.here = True

    def _check(self, name: str, tensor: Tensor) -> None:
        if name not in self._checked:
            refuse_nan_in(self._files.folder, name, tensor)
            self._checked.add(name)

    def _looked_up(self, name: str, ids: Tensor) -> Tensor:
        """What the embedding gives, from the rows that these ids need."""
        if name not in self._checked:
            for part in self._files.parts(name, CHECKED_ROWS):
                refuse_nan_in(self._files.folder, name, part)
            self._checked.add(name)
        needed, position = ids.unique(return_inverse=True)
        rows = self._files.rows(name, needed.cpu()).to(self._dtype).to(self._device)
        return F.embedding(position, rows)


def _memory(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Memory of one piece, which the system has back as soon as nobody refers to it.

    On the host it does not come from the allocator: that would cut blocks out of its heap, between the
    activations of several threads, and keep what is left when they go.
    """
    if device.type != "cpu" or not count:
        return torch.empty(count, dtype=dtype, device=device)
    return torch.frombuffer(mmap.mmap(-1, count * dtype.itemsize), dtype=dtype)


def _blocks(model: PreTrainedModel, folder: Path) -> list[nn.Module]:
    """The elements of the model's outermost lists of modules: in every family these are its blocks."""
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    outermost = [m for name, m in lists.items() if not any(name.startswith(f"{other}.") for other in lists)]
    found = [block for each in outermost for block in each if next(block.parameters(), None) is not None]
    if not found:
        raise CheckpointError(
            f"{folder}: {type(model).__name__} has no list of blocks, so it cannot be loaded block by block; "
            "measure it where it fits into memory"
        )
    return found


def _places(model: PreTrainedModel) -> dict[str, list[Place]]:
    """Where each tensor of the files belongs; tied ones belong in several places."""
    return {
        names[0]: [(model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in names]
        for names in tied_names(model)
    }


def _at(place: Place) -> Tensor:
    module, name = place
    return getattr(module, name)


def _put(places: list[Place], tensor: Tensor) -> None:
    """One object in all places: what is tied stays tied."""
    for module, name in places:
        (module._buffers if name in module._buffers else module._parameters)[name] = tensor  # type: ignore[index]


def _send_away(group: _Group) -> None:
    for name, places in group.places.items():
        _put(places, group.absent[name])
    group.here = False
