"""The header of a safetensors file: what tensors it holds, of which shapes, and what was left out of it."""

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LONGEST_HEADER = 100_000_000
"""Bytes of a safetensors header that the format allows."""
ABSENT = "tracker.absent"
"""Key in the metadata of a safetensors file that holds a part of another: JSON, name -> shape of each tensor
that is missing of those that a model has."""


@dataclass(frozen=True)
class Header:
    """What the header of a safetensors file declares."""

    shapes: Mapping[str, tuple[int, ...]]
    """Of each tensor, by name."""
    file_size: int
    """Bytes that the whole file must have."""
    absent: Mapping[str, tuple[int, ...]]
    """Of each tensor that was left out, by name; see ``ABSENT``."""


def read_header(path: Path) -> Header:
    """Read the header of a safetensors file: shapes and extent of its tensors, none of their contents.

    The format: the header's length as little-endian u64, the header as JSON, then the tensors end to end.

    Raises:
        OSError: the file cannot be read.
        ValueError: it has no such header.
    """
    size = path.stat().st_size
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(LONGEST_HEADER, size - 8):
                raise ValueError(f"header of {length} bytes in a file of {size}")
            entries = json.loads(file.read(length))
        tensors = {name: entry for name, entry in entries.items() if name != "__metadata__"}
        ends = [entry["data_offsets"][1] for entry in tensors.values()]
        shapes = {name: tuple(entry["shape"]) for name, entry in tensors.items()}
        left_out = json.loads(entries.get("__metadata__", {}).get(ABSENT, "{}"))
        absent = {name: tuple(shape) for name, shape in left_out.items()}
        return Header(shapes, 8 + length + max(ends, default=0), absent)
    except (
        struct.error,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        RecursionError,
        MemoryError,
    ) as error:
        raise ValueError(str(error)) from error


def width(dtype: str) -> int:
    """Return the bytes of one number of a safetensors dtype: ``F16``, ``BF16``, ``I64``, ``BOOL``.

    Raises:
        ValueError: it has no whole number of bytes, or is none.
    """
    bits = 8 if dtype == "BOOL" else int((re.match(r"[A-Z]+(\d+)", dtype) or [dtype, "?"])[1])
    if bits % 8:
        raise ValueError(f"numbers of {bits} bits")
    return bits // 8
