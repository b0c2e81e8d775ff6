"""Reads .wandb files back, without wandb's own reader: LevelDB log framing around protobuf records.

The file starts with ``:W&B`` and 3 more bytes; blocks of 32 KiB hold chunks of crc32 (u32), length (u16) and
kind (u8: whole, first, middle, last).
"""

import json
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

Record: Any = vars(wandb_internal_pb2)["Record"]  # made at import, so no type checker knows it
BLOCK = 32 * 1024
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def chunks(data: bytes) -> Iterator[bytes]:
    """The records' bytes; stops quietly at a torn end, raises ValueError at a wrong checksum."""
    assert data[:4] == b":W&B", "not a .wandb file"
    place, parts = 7, b""
    while place + 7 <= len(data):
        if BLOCK - place % BLOCK < 7:
            place += BLOCK - place % BLOCK
            continue
        checksum, length, kind = struct.unpack("<IHB", data[place : place + 7])
        body = data[place + 7 : place + 7 + length]
        if len(body) < length or kind == 0:
            return
        if zlib.crc32(bytes([kind]) + body) != checksum:
            raise ValueError(f"checksum at byte {place}")
        place += 7 + length
        parts = body if kind in (WHOLE, FIRST) else parts + body
        if kind in (WHOLE, LAST):
            yield parts


def records(path: Path) -> list[Any]:
    """All of a finished run; W&B's service may put the last records of an offline one down a moment late."""
    last = "exit" if "offline-run" in str(path) else "run"
    deadline = time.monotonic() + 20
    while True:
        found = [Record.FromString(chunk) for chunk in chunks(path.read_bytes())]
        if any(record.HasField(last) for record in found) or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def _items(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def history(path: Path) -> list[dict[str, Any]]:
    return [_items(r.history.item) for r in records(path) if r.HasField("history")]


def run_of(path: Path) -> Any:
    return next(r.run for r in records(path) if r.HasField("run"))


def config(path: Path) -> dict[str, Any]:
    return _items(run_of(path).config.update)


def summary(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for record in records(path):
        if record.HasField("summary"):
            found |= _items(record.summary.update)
    return found


def wandb_files(store: Path) -> list[Path]:
    return sorted(store.glob("wandb/*run-2*/*.wandb"))
