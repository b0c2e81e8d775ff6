"""What weight files hold: tensors by the names that the model gives them, whatever wrapped it when saved."""

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from tracker.atomic import read_json
from tracker.checkpoints import files, headers
from tracker.errors import INTERRUPTIONS, CheckpointError

NESTS = ("model", "state_dict", "model_state_dict", "module")
"""Under which training loops keep the weights beside their optimizer."""
INSIDE = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""Left in names by torch.compile, FSDP and activation checkpointing, anywhere."""
AROUND = "module."
"""Put before every name by data parallelism."""
ANSI = re.compile(r"\x1b\[[0-9;]*m")
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers")
SIZES = re.compile(
    r".*(hidden_size|intermediate_size|vocab_size|n_embd|n_inner|d_model|d_ff|head_dim|_heads)"
)
POSITIONS = 10**8
"""More than any model has; a table of positions need not be in the files."""

Shapes = Mapping[str, tuple[int, ...]]


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """Return each name with what is left of it without what wrappers added to it.

    Example:
        >>> plain_names(["module._orig_mod.head.weight"])
        {'module._orig_mod.head.weight': 'head.weight'}
    """
    plain = {name: INSIDE.sub("", name) for name in names}
    while plain and all(name.startswith(AROUND) for name in plain.values()):
        plain = {name: each.removeprefix(AROUND) for name, each in plain.items()}
    return plain


def load_pickle(file: Path) -> dict[str, Tensor]:
    """Read a file that torch.save wrote, executing nothing in it; a state_dict among other things is found.

    Raises:
        CheckpointError: it holds a pickled module, or no tensors by name.
    """
    found = _unpickled(file)
    nest = _nest(found)
    found = found[nest] if nest is not None else found
    if not isinstance(found, dict) or not any(isinstance(each, Tensor) for each in found.values()):
        kind = type(found).__name__
        raise CheckpointError(f"{file}: holds a {kind}, not tensors by name; save a state_dict()")
    return {str(name): each for name, each in found.items() if isinstance(each, Tensor)}


def _nest(found: Any) -> str | None:
    held = (each for each in NESTS if isinstance(found, dict) and isinstance(found.get(each), dict))
    return next(held, None)


def _unpickled(file: Path, *, mmap: bool = True) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    except INTERRUPTIONS:
        raise
    except BaseException as error:
        text = ANSI.sub("", str(error))
        if "weights_only" in text or "Unsupported global" in text:
            raise CheckpointError(
                f"{file}: holds a pickled module or other Python objects, which are not loaded; save its "
                "state_dict()"
            ) from error
        if mmap and "mmap" in text:
            return _unpickled(file, mmap=False)
        raise


def stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every stored tensor by its name in the files."""
    found: dict[str, tuple[int, ...]] = {}
    for file in files.whole(folder, str(folder)):
        if file.suffix == ".safetensors":
            found |= headers.read_header(file).shapes
        else:
            found |= {name: tuple(each.shape) for name, each in load_pickle(file).items()}
    return found


def absent_tensors(folder: Path) -> set[str]:
    """Return the names of the tensors that were left out of a folder's files, for want of need."""
    names: set[str] = set()
    for file in files.whole(folder, str(folder)):
        if file.suffix == ".safetensors":
            names |= headers.read_header(file).absent.keys()
    return names


def wrapped(folder: Path, names: Iterable[str]) -> bool:
    """Return whether transformers would not find the weights under their names."""
    if any(plain != name for name, plain in plain_names(names).items()):
        return True
    pickles = (each for each in files.whole(folder, str(folder)) if each.suffix != ".safetensors")
    return any(_nest(_unpickled(each)) is not None for each in pickles)


def plain_state(folder: Path) -> dict[str, Tensor]:
    """Read every tensor of a folder, by its plain name."""
    found: dict[str, Tensor] = {}
    for file in files.whole(folder, str(folder)):
        found |= load_file(file) if file.suffix == ".safetensors" else load_pickle(file)
    plain = plain_names(found)
    return {plain[name]: tensor for name, tensor in found.items()}


def check_sizes(folder: Path, shapes: Shapes) -> None:
    """Refuse a configuration whose model cannot be in the files, before a module of it is built.

    Raises:
        CheckpointError: names the field, or what the files hold in place of weights.
    """
    if any(0 in shape for shape in shapes.values()):
        name = next(name for name, shape in shapes.items() if 0 in shape)
        raise CheckpointError(
            f"{folder}: {name} has shape {list(shapes[name])}, a placeholder of DeepSpeed ZeRO-3; run "
            "zero_to_fp32.py in the training's folder and save the model"
        )
    config = read_json(folder / files.CONFIG)
    if not isinstance(config, dict):
        kind = type(config).__name__
        raise CheckpointError(f"{folder}: {files.CONFIG} is a {kind}, not an object of fields")
    for part in (config, *(each for each in config.values() if isinstance(each, dict))):
        for field, value in part.items():
            if held := _exceeded(field, value, part, shapes):
                raise CheckpointError(
                    f"{folder}: {files.CONFIG} says {field}={value}, but the weight files hold {held}; "
                    "is it another model's configuration?"
                )


def _exceeded(field: str, value: Any, config: dict[str, Any], shapes: Shapes) -> str | None:
    """What the files hold, where it cannot be a model with this value."""
    if not isinstance(value, int):
        return None
    numbers = sum(math.prod(shape) for shape in shapes.values())
    # ALBERT's layers are one.
    if field in LAYERS and value > len(shapes) and "num_hidden_groups" not in config:
        return f"{len(shapes)} tensors"
    if SIZES.fullmatch(field) and value > numbers:
        return f"{numbers} numbers"
    return "no model of that length" if "position" in field and value > POSITIONS else None
