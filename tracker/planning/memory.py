"""Memory: what a model's weights take, what is free here, and whether it is loaded whole or by blocks."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from tracker import facts
from tracker.atomic import read_json
from tracker.checkpoints import files, headers, inspect
from tracker.config import STREAM
from tracker.errors import CheckpointError, unknown_value
from tracker.records import Checkpoint, PlannedUnit

WIDTHS = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of one number."""
SIZES = (("num_hidden_layers", "n_layer", "n_layers", "num_layers"), ("hidden_size", "n_embd", "d_model"))
"""Names of the number of layers and of the width in config.json."""
WEIGHTS = (".safetensors", ".bin")
USABLE = 0.7
"""Share of free memory that weights may take; the rest is for activations and tiles of attention."""
CGROUPS = (
    ("memory.max", "memory.current", "file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache"),
)
"""A container's limit, its use, and the cached files in that use; control groups version 2 and version 1."""


@dataclass(frozen=True)
class Need:
    """Bytes that a model's weights take in memory: all at once, and at most when loaded block by block.

    ``blocks`` is None where the files do not say.
    """

    whole: int
    blocks: int | None


def memory_needed(folder: Path, dtype: str) -> Need:
    """Compute the memory for a checkpoint's weights from its files' headers and configuration.

    Args:
        folder: in Hugging Face layout.
        dtype: what the weights are loaded as.
    """
    try:
        found = read_json(folder / "config.json")
    except (OSError, ValueError):
        found = {}
    config = found if isinstance(found, dict) else {}
    _, heavy = files.needed([path.name for path in folder.iterdir()]) if folder.is_dir() else ([], [])
    counts = [_numbers(folder / name, config) for name in heavy if name.endswith(WEIGHTS)]
    return _need(sum(counts), config, WIDTHS[dtype])


def _numbers(path: Path, config: dict[str, Any]) -> int:
    """Count the numbers in a weight file: exact for safetensors, else by the dtype that its config names."""
    try:
        if path.suffix == ".safetensors":
            return sum(math.prod(shape) for shape in headers.read_header(path).shapes.values())
        size = path.stat().st_size
    except (OSError, ValueError, TypeError, OverflowError):
        return 0
    stored = str(config.get("torch_dtype") or config.get("dtype") or "float32")
    return size // WIDTHS.get(stored, 4)


def _need(numbers: int, config: dict[str, Any], width: int) -> Need:
    """Count the vocabulary's tables as one piece and spread the other numbers evenly over the blocks."""
    layers, hidden = (next((config[name] for name in names if name in config), 0) for names in SIZES)
    table_rows = config.get("vocab_size", 0)
    if not all(isinstance(each, int) and each > 0 for each in (layers, hidden, table_rows)):
        return Need(numbers * width, None)
    table = table_rows * hidden
    block = max(numbers - table, 0) // layers
    return Need(numbers * width, min(numbers, max(3 * block, 2 * table)) * width)


def pythia_facts(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """Return the row of the Pythia table that describes a checkpoint's model; None for other suites."""
    if "/pythia-" not in checkpoint.location:
        return None
    known = facts.table("pythia_suite").filter(pl.col("size") == checkpoint.model)
    return known.row(0, named=True) if len(known) else None


def expected_need(units: list[PlannedUnit], dtype: str) -> Need | None:
    """Estimate the memory for one model's weights from its first existing checkpoint; None if unknown.

    For checkpoints on the hub this is Pythia's table of facts, or the size of the files there, taken as half
    precision: what is stored as float32 then needs half of that.
    """
    present = [planned.unit.checkpoint for planned in units if planned.unit.checkpoint.exists is not False]
    if not present:
        return None
    first, width = present[0], WIDTHS[dtype]
    if first.kind == "folder":
        need = memory_needed(Path(first.location) / first.revision, dtype)
        return need if need.whole else None
    if row := pythia_facts(first):
        shape = {
            "num_hidden_layers": row["layers"],
            "hidden_size": row["d_model"],
            "vocab_size": row["vocab_rows"],
        }
        return _need(int(row["params_total"]), shape, width)
    try:
        files = [file for file in inspect(first).files if file.name.endswith(WEIGHTS)]
    except CheckpointError:
        return None
    return Need(sum(file.size for file in files) // 2 * width, None)


def free_memory() -> int:
    """Return the bytes that this process may still take, of the machine's or its container's memory."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([free, *(left for folder in _own_cgroups() if (left := _cgroup_left(folder)) is not None)])


def _own_cgroups() -> list[Path]:
    root = Path("/sys/fs/cgroup")
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    found = [root, root / "memory"]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            own = root / controllers / path.lstrip("/")
            found += [own, *(above for above in own.parents if root in above.parents)]
    return found


def _cgroup_left(folder: Path) -> int | None:
    """Return the bytes left in a control group; the system gives cached files back when needed."""
    for limit, used, cached in CGROUPS:
        try:
            bound, taken = int((folder / limit).read_text()), int((folder / used).read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            return max(0, bound - taken + int(stat.get(cached, 0)))
        except (OSError, ValueError):
            continue
    return None


def how_to_run(need: Need, free: int, stream: str = "auto") -> Literal["whole", "blocks"]:
    """Decide whether a model is loaded whole or block by block.

    Args:
        need: from ``memory_needed``.
        free: bytes free where the model is to be.
        stream: ``auto`` decides by these two; ``always`` and ``never`` decide alone.

    Raises:
        RequestError: another value of ``stream``.
    """
    if stream not in STREAM:
        raise unknown_value("engine.stream", stream, STREAM)
    if stream == "auto":
        return "whole" if need.whole <= USABLE * free else "blocks"
    return "blocks" if stream == "always" else "whole"
