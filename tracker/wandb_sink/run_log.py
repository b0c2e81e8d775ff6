"""Which of our rows a ``.wandb`` file holds: what a ledger that was lost or damaged is made again from.

The file starts with 7 bytes; blocks of 32 KiB hold chunks of CRC-32 (u32), length (u16) and kind (u8: whole,
first, middle, last) around protobuf records, as in LevelDB's log.
"""

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from tracker.wandb_sink.rows import ROW

HEADER, BLOCK = 7, 32 * 1024
WHOLE, FIRST, LAST = 1, 2, 4


def rows_in(run_folder: Path, project: str) -> list[str]:
    """Return the names of the rows that a run folder's file holds, as far as it reads back.

    Args:
        run_folder: below ``DIR/wandb``.
        project: rows that went to another one do not count.
    """
    from wandb.proto import wandb_internal_pb2

    record_type = vars(wandb_internal_pb2)["Record"]  # made at import, so no type checker knows it
    rows: list[str] = []
    for log in run_folder.glob("*.wandb"):
        for chunk in _chunks(log.read_bytes()):
            record = record_type.FromString(chunk)
            if record.HasField("run") and record.run.project != project:
                return []
            if record.HasField("history"):
                named = {
                    item.key or "/".join(item.nested_key): item.value_json for item in record.history.item
                }
                rows += [json.loads(named[ROW])] if ROW in named else []
    return rows


def _chunks(data: bytes) -> Iterator[bytes]:
    """Yield the records' bytes up to a torn end or damage."""
    place, parts = HEADER, b""
    while place + HEADER <= len(data):
        if BLOCK - place % BLOCK < HEADER:
            place += BLOCK - place % BLOCK
            continue
        checksum, length, kind = struct.unpack_from("<IHB", data, place)
        body = data[place + HEADER : place + HEADER + length]
        if len(body) < length or zlib.crc32(bytes([kind]) + body) != checksum:
            return
        place += HEADER + length
        parts = body if kind in (WHOLE, FIRST) else parts + body
        if kind in (WHOLE, LAST):
            yield parts
