"""Reuse one module per architecture: the next checkpoint's weights go into the module that is there."""

import gc
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tracker.errors import CheckpointError
from tracker.models.loading import load_model, refuse_nan
from tracker.models.tensor_reader import TensorFiles

IGNORED_FIELDS = ("_name_or_path", "dtype", "torch_dtype", "transformers_version")
"""Fields of config.json that do not change the model that is made of it."""


class ReusedModel:
    """Holds the module of the last checkpoint, for the next one of the same architecture.

    Consecutive checkpoints of one model cost neither a new module nor new memory. Where there is any doubt
    (another configuration, names or shapes that are not plainly the module's), the module is dropped and the
    checkpoint is loaded from the start; after any failure nothing is kept that could be measured by mistake.
    """

    def __init__(self) -> None:
        self._model: PreTrainedModel | None = None
        self._made_of: object = None
        self._computed: dict[str, Tensor] = {}

    @property
    def bytes(self) -> int:
        """Bytes that the module's parameters take; free for the next checkpoint."""
        return sum(p.nbytes for p in self._model.parameters()) if self._model is not None else 0

    def drop(self) -> None:
        """Let go of the module."""
        self._model, self._made_of, self._computed = None, None, {}
        # Hooks and closures of a model point back to it; only the collector frees such a ring.
        gc.collect()

    def load(self, path: Path, *, dtype: str = "float32", device: str = "cpu") -> PreTrainedModel:
        """Load a checkpoint folder as a model; weights equal ``load_model``'s bit for bit.

        The model that an earlier call returned may be the same object, with its weights replaced.

        Args:
            path, dtype, device: as for ``load_model``.

        Raises:
            RequestError, CheckpointError: as ``load_model``.
        """
        made_of = _architecture(path, dtype, device)
        model = self._model if made_of is not None and made_of == self._made_of else None
        computed = self._computed
        self._model = None
        if model is None or not _refilled(model, path, computed):
            model = None
            self.drop()
            model = load_model(path, dtype=dtype, device=device)
            _own(model)
            computed = {name: buffer.clone() for name, buffer in _computed_buffers(model).items()}
        else:
            refuse_nan(path, model)
        self._model, self._made_of, self._computed = model, made_of, computed
        return model


def _architecture(path: Path, dtype: str, device: str) -> object:
    """What a module is made of; None where its configuration cannot be read."""
    try:
        config: Any = json.loads((path / "config.json").read_text(encoding="utf-8"))
        fields = {name: value for name, value in config.items() if name not in IGNORED_FIELDS}
    except (OSError, ValueError, AttributeError):
        return None
    return json.dumps(fields, sort_keys=True), dtype, device


def _refilled(model: PreTrainedModel, path: Path, computed: dict[str, Tensor]) -> bool:
    """Whether the module now holds the checkpoint's weights, all of them; else it is not to be used."""
    try:
        files = TensorFiles(path, model)
        targets = model.state_dict()
        with torch.no_grad():
            for name, tensor in files.read(files.sources):
                targets[name].copy_(tensor)
            buffers = _computed_buffers(model)
            if buffers.keys() != computed.keys():
                return False
            for name, buffer in buffers.items():
                buffer.copy_(computed[name])
    except (CheckpointError, RuntimeError, OSError, KeyError):
        return False
    return True


def _computed_buffers(model: PreTrainedModel) -> dict[str, Tensor]:
    stored = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers() if name not in stored}


def _own(model: PreTrainedModel) -> None:
    """Copies what transformers left mapped: writing into pages of the first checkpoint's file is not ours."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu" and 0 not in tensor.stride():
            tensor.data = tensor.data.clone()
