"""The attention and MLP matrices of a checkpoint, layer by layer, split by heads whatever their layout.

Only those tensors are read. Layers are those with self-attention, numbered as when attention is measured.

Legend: H heads of queries, G heads of keys and values (grouped-query attention: fewer), V dimensions of a
head, D width of the residual stream.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tracker.models.architecture import position_encoding, rotary_dims
from tracker.models.attention_modules import block_of, self_attention_names, text_config
from tracker.models.loading import refuse_nan_in
from tracker.models.meta_model import meta_model
from tracker.models.position_bias import MODEL_TYPE
from tracker.models.reuse import architecture_key
from tracker.models.tensor_reader import names_in_files, opened, stored_tensors

SEPARATE = (
    ("q_proj", "k_proj", "v_proj"), ("query", "key", "value"), ("q", "k", "v"), ("q_lin", "k_lin", "v_lin"),
)  # fmt: skip
"""Names of the three matrices below an attention module, outputs x inputs."""
FUSED = ("query_key_value", "qkv_proj", "c_attn", "Wqkv")
"""Names of one matrix that holds all three."""
GROUPS = (
    "gpt_neox", MODEL_TYPE, "gpt_neox_japanese", "bloom", "persimmon", "falcon", "gpt_bigcode",
)  # fmt: skip
"""Model types whose fused matrix has, per head of keys, its heads of queries, its key, its value."""
BLOCKS = ("gpt2", "openai-gpt", "imagegpt", "phi3", "mpt", "modernbert")
"""Model types whose fused matrix has all queries, then all keys, then all values."""
OUTPUT = ("o_proj", "out_proj", "dense", "o", "out_lin", "c_proj", "Wo")
"""Names of the output matrix below an attention module."""
OUTPUT_BESIDE = "attention.output.dense"
"""Where BERT and its kin have it, below the block."""
MLP = {
    "in": ("dense_h_to_4h", "c_fc", "up_proj", "fc1", "fc_in", "wi_1", "wi", "intermediate.dense", "lin1"),
    "gate": ("gate_proj", "wi_0"),
    "out": ("dense_4h_to_h", "c_proj", "down_proj", "fc2", "fc_out", "wo", "output.dense", "lin2", "Wo"),
}
"""Names of the matrices of an MLP: into it, its gate, out of it."""
FUSED_MLP = ("gate_up_proj", "Wi")
"""Names of one matrix that holds the gate, then the way in."""
MIXTURE = ("expert", "moe")
"""Parts of names of mixtures of experts, which are no single matrix of a layer."""
INTERLEAVED = {"roformer": True, "gpt_oss": False}
"""Of families whose code has no function that says which dimensions rotate together."""


@dataclass(frozen=True)
class Heads:
    """The attention matrices of a layer, by heads: queries (H, V, D), keys and values (G, V, D), and each
    head's columns of the output matrix, transposed (H, V, D)."""

    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor

    def of_queries(self, shared_GVD: Tensor) -> Tensor:
        """Repeat keys' or values' heads for each of the queries' heads that read them, (H, V, D)."""
        return shared_GVD.repeat_interleave(len(self.query) // len(shared_GVD), dim=0)


@dataclass(frozen=True)
class LayerWeights:
    """The matrices of one layer, on the host in the file's dtype, as far as possible mapped from the file."""

    heads: Heads | None
    """None: their layout is not known."""
    mlp: dict[str, Tensor]
    """``in``, ``gate`` and ``out`` as far as the layer has them, each outputs x inputs."""


@dataclass(frozen=True)
class Rotation:
    """How the heads of a model rotate."""

    dims: int
    interleaved: bool
    layers: tuple[bool, ...]
    """Whether each layer rotates at all."""


class LayerReader:
    """Reads the matrices of checkpoints.

    >>> reader = LayerReader()                                   # doctest: +SKIP
    >>> for layer in reader.layers(Path("runs/mine/step1000")):  # doctest: +SKIP
    ...     print(layer.heads.query.shape)
    """

    def __init__(self) -> None:
        self._made_of: object = None
        self._model: PreTrainedModel | None = None

    def model(self, folder: Path) -> PreTrainedModel:
        """Return a checkpoint's model without memory for parameters; kept for others of its architecture.

        Raises:
            CheckpointError: the folder holds no model that can be made.
        """
        made_of = architecture_key(folder, "float32", "meta")
        if self._model is None or made_of is None or made_of != self._made_of:
            self._model, self._made_of = meta_model(folder, torch.float32), made_of
        return self._model

    def layers(self, folder: Path) -> Iterator[LayerWeights]:
        """Yield the matrices of each layer with self-attention.

        Args:
            folder: a checkpoint in Hugging Face layout.

        Raises:
            CheckpointError: the files cannot be read, or a matrix holds NaN; names the tensor.
        """
        model = self.model(folder)
        stored = stored_tensors(folder)
        named = names_in_files(folder, model, stored, all_of_them=False)
        with ExitStack() as stack:
            files = {each.file for each in stored.values()}
            readers = {file: stack.enter_context(opened(file)) for file in sorted(files)}

            def read(name: str) -> Tensor:
                at = stored[named[name]]
                tensor = readers[at.file](at.name)
                refuse_nan_in(folder, at.name, tensor)
                module: Any = model.get_submodule(name.removesuffix(".weight"))
                return tensor.T if type(module).__name__ == "Conv1D" else tensor  # inputs x outputs

            weights = [name.removesuffix(".weight") for name in named if name.endswith(".weight")]
            for attention in self_attention_names(model):
                block = block_of(attention)
                below = _Names([name for name in weights if name.startswith(f"{block}.")], read)
                yield LayerWeights(
                    heads_of(below, attention, block, text_config(model.config)),
                    mlp_of(below, attention, block),
                )

    def rotation(self, folder: Path) -> Rotation | None:
        """Return how the heads of a checkpoint's model rotate; None where they do not, or it is not known."""
        model = self.model(folder)
        config: Any = text_config(model.config)
        interleaved = _interleaved(model, config)
        if position_encoding(config) != "rotary" or interleaved is None:
            return None
        d_head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        blocks = [block_of(name).rpartition(".")[2] for name in self_attention_names(model)]
        rotates = getattr(config, "no_rope_layers", None)  # 1 where a layer does rotate
        layers = tuple(bool(rotates[int(block)]) if rotates else True for block in blocks)
        return Rotation(rotary_dims(config, d_head), interleaved, layers)


@dataclass(frozen=True)
class _Names:
    """Matrices of a block by their module's name."""

    names: list[str]
    read: Callable[[str], Tensor]

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> Tensor:
        return self.read(f"{name}.weight")

    def first(self, prefix: str, names: tuple[str, ...]) -> str | None:
        return next((f"{prefix}.{name}" for name in names if f"{prefix}.{name}" in self), None)


def heads_of(below: _Names, attention: str, block: str, config: Any) -> Heads | None:
    """Split a layer's attention matrices by heads; None where the layout of the model type is not known."""
    number = config.num_attention_heads
    three = next((each for each in SEPARATE if all(f"{attention}.{name}" in below for name in each)), None)
    output = below.first(attention, OUTPUT) or (below.first(block, (OUTPUT_BESIDE,)))
    fused = below.first(attention, FUSED)
    if output is None:
        return None
    if three is not None:
        query, key, value = (below[f"{attention}.{name}"] for name in three)
        return _heads(query, key, value, below[output], number)
    if fused is None or config.model_type not in (*GROUPS, *BLOCKS):
        return None
    shared = _shared_heads(config)
    query, key, value = _parted(below[fused], number, shared, config.model_type in BLOCKS)
    return _heads(query, key, value, below[output], number)


def _shared_heads(config: Any) -> int:
    """How many heads of keys and values a model has whose queries, keys and values are one matrix."""
    number = config.num_attention_heads
    if getattr(config, "new_decoder_architecture", False):  # Falcon's
        return config.num_kv_heads
    if config.model_type in GROUPS:
        return 1 if getattr(config, "multi_query", False) else number
    return getattr(config, "num_key_value_heads", None) or number


def _parted(fused: Tensor, number: int, shared: int, blocks: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of one matrix, each heads x dimensions of a head (flat) by inputs."""
    each = len(fused) // (number + 2 * shared)
    if blocks:
        query, key, value = fused.split([number * each, shared * each, shared * each])
        return query, key, value
    groups = fused.unflatten(0, (shared, number // shared + 2, each))
    return groups[:, :-2].flatten(0, 2), groups[:, -2].flatten(0, 1), groups[:, -1].flatten(0, 1)


def _heads(query: Tensor, key: Tensor, value: Tensor, output: Tensor, number: int) -> Heads | None:
    """Heads of the four matrices, outputs x inputs; None where their shapes do not fit each other."""
    if any(each.ndim != 2 for each in (query, key, value, output)) or len(query) % number:
        return None
    each = len(query) // number
    shared = len(key) // each
    fits = len(key) == shared * each and shared and number % shared == 0 and len(value) % shared == 0
    if not fits or output.shape[1] != number * (len(value) // shared):
        return None
    return Heads(
        query.unflatten(0, (number, -1)),
        key.unflatten(0, (shared, -1)),
        value.unflatten(0, (shared, -1)),
        output.T.unflatten(0, (number, -1)),
    )


def mlp_of(below: _Names, attention: str, block: str) -> dict[str, Tensor]:
    """Return the matrices of a layer's MLP; none of a mixture of experts, or where names are not known."""
    names = [name for name in below.names if not name.startswith(f"{attention}.")]
    names = [name for name in names if name != f"{block}.{OUTPUT_BESIDE}" and "cross" not in name.lower()]
    inside = [name.removeprefix(block) for name in names]
    if any(part in name.lower() for name in inside for part in MIXTURE):
        return {}
    found = {
        part: below[name]
        for part, known in MLP.items()
        if (name := next((n for k in known for n in names if n.endswith(f".{k}")), None)) is not None
    }
    both = next((n for k in FUSED_MLP for n in names if n.endswith(f".{k}")), None)
    if both is not None:
        found["gate"], found["in"] = below[both].chunk(2)
    return found if "in" in found and "out" in found else {}


def _interleaved(model: PreTrainedModel, config: Any) -> bool | None:
    """Whether neighbouring dimensions rotate together, by the function of the family's own code."""
    code = sys.modules[type(model).__module__]
    rotate = getattr(code, "rotate_half", None) or getattr(code, "rotate_every_two", None)
    if rotate is None:
        return INTERLEAVED.get(config.model_type)
    turned = rotate(torch.arange(4.0).view(1, 1, 1, 4)).flatten().tolist()
    return {(-2.0, -3.0, 0.0, 1.0): False, (-1.0, 0.0, -3.0, 2.0): True}.get(tuple(turned))
