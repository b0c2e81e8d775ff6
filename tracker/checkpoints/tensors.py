"""What is in the weights of a checkpoint on this machine: tensors that training cannot have left so.

torch is imported when it is first needed. A pickle is read with ``weights_only``: nothing in it is executed.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracker.atomic import read_json
from tracker.checkpoints.files import CONFIG, whole
from tracker.errors import INTERRUPTIONS, CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 0.05
"""Relative distance from a declared standard deviation that is still taken for it."""
FEWEST = 1024
"""Entries of a matrix below which its standard deviation is too uncertain."""
OUTPUT = re.compile(
    r"(^|[._])(o_proj|out_proj|c_proj|wo|out|attention\.dense|dense_4h_to_h|down_proj|proj_out|fc2|fc_out|w2|"
    r"lm_head|embed_out|output|score|lora_B)([._]|$)"
)
"""Names of projections into the residual stream and of heads, which many recipes initialise with zeros."""
_WIDTH = ("hidden_size", "n_embd", "d_model")
_DEPTH = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")


@dataclass(frozen=True)
class BadTensor:
    """One tensor that is not as it ought to be."""

    file: str
    name: str
    what: str


@dataclass(frozen=True)
class Checked:
    """The tensors of one checkpoint."""

    digest: str
    """SHA-256 of names, shapes, dtypes and contents: equal for equal weights, whatever files hold them."""
    bad: tuple[BadTensor, ...]
    unusual: tuple[BadTensor, ...] = ()
    """Of step 0: matrices that are not as the configuration says that a fresh model's are. Fine-tuning starts
    so, and recipes initialise in ways that no configuration names."""


def check(folder: Path, who: str, *, initial: bool = False) -> Checked:
    """Read every tensor of a checkpoint once.

    Args:
        folder: in Hugging Face layout.
        who: named in messages.
        initial: compare matrices with the initialisation that config.json declares as well.

    Raises:
        CheckpointError: the files are not there, not whole, or not weights.
    """
    declared = _declared(folder) if initial else ()
    sums, bad, unusual = {}, [], []
    for file in whole(folder, who):
        try:
            for name, tensor in _read(file):
                sums[name] = _digest(tensor)
                if initial and _is_zero(tensor):
                    if not OUTPUT.search(name):
                        unusual.append(BadTensor(file.name, name, "every value is 0"))
                elif (what := _fault(tensor)) is not None:
                    bad.append(BadTensor(file.name, name, what))
                elif declared and (what := _not_initial(tensor, declared)) is not None:
                    unusual.append(BadTensor(file.name, name, what))
        except CheckpointError:
            raise
        except INTERRUPTIONS:
            raise
        except BaseException as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(
                f"{who}: {file} does not read as weights ({type(error).__name__}: {reason})"
            ) from error
    digest = hashlib.sha256(json.dumps(sorted(sums.items())).encode()).hexdigest()
    return Checked(digest, tuple(bad), tuple(unusual))


def declared_deviations(config: dict[str, Any]) -> tuple[float, ...]:
    """Return the standard deviations that matrices of a fresh model may have, by its configuration.

    ``initializer_range``, and for projections into the residual stream that over sqrt(2 layers) (GPT-2);
    for GPT-NeoX also small-init, sqrt(2 / (5 width)), and wang-init, 2 / (layers sqrt(width)), which
    Pythia's training configurations name and its config.json does not (arXiv 2304.01373, GPT-NeoX).

    Returns:
        Empty where nothing is declared.
    """
    width = next((config[name] for name in _WIDTH if config.get(name)), None)
    depth = next((config[name] for name in _DEPTH if config.get(name)), None)
    usual = config.get("initializer_range")
    found = [] if usual is None else [usual] + ([usual / math.sqrt(2 * depth)] if depth else [])
    if config.get("model_type") == "gpt_neox" and width and depth:
        found += [math.sqrt(2 / (5 * width)), 2 / (depth * math.sqrt(width))]
    return tuple(float(each) for each in found)


def _declared(folder: Path) -> tuple[float, ...]:
    try:
        return declared_deviations(read_json(folder / CONFIG))
    except (OSError, ValueError, TypeError, AttributeError):
        return ()


def _read(file: Path) -> Iterator[tuple[str, "Tensor"]]:
    import torch
    from safetensors import safe_open

    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as handle:
            for name in handle.keys():  # noqa: SIM118
                yield name, handle.get_tensor(name)
        return
    for name, tensor in torch.load(file, map_location="cpu", weights_only=True, mmap=True).items():
        if not isinstance(tensor, torch.Tensor):
            raise CheckpointError(f"{file}: holds a {type(tensor).__name__} under {name}, not a tensor")
        yield name, tensor


def _digest(tensor: "Tensor") -> str:
    import torch

    sums = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    sums.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sums.hexdigest()


def _is_zero(tensor: "Tensor") -> bool:
    return tensor.is_floating_point() and tensor.ndim >= 2 and tensor.numel() > 1 and not bool(tensor.any())


def _fault(tensor: "Tensor") -> str | None:
    """What no training leaves: numbers that are none, or a matrix of one value."""
    if not tensor.is_floating_point() or not tensor.numel():
        return None
    if not bool(tensor.isfinite().all()):
        return f"{int((~tensor.isfinite()).sum())} of {tensor.numel()} values are NaN or infinite"
    if tensor.ndim >= 2 and tensor.numel() > 1 and bool((tensor == tensor.reshape(-1)[0]).all()):
        return f"every value is {float(tensor.reshape(-1)[0]):g}"
    return None


def _not_initial(tensor: "Tensor", declared: tuple[float, ...]) -> str | None:
    """Whether a matrix of step 0 has none of the declared deviations, beyond what its size explains."""
    if not tensor.is_floating_point() or tensor.ndim != 2 or tensor.numel() < FEWEST:
        return None
    found = float(tensor.float().std())
    slack = TOLERANCE + 4 / math.sqrt(2 * tensor.numel())
    if any(abs(found - each) <= slack * each for each in declared):
        return None
    known = ", ".join(f"{each:.4g}" for each in declared)
    return f"its standard deviation is {found:.4g}, but a fresh model has one of {known}"
