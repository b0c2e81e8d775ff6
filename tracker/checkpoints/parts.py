"""Part of a weight file: without the loss the unembedding is not needed, and half of a small model is that.

The needed bytes are fetched by HTTP ranges and written as a smaller safetensors file of tracker's own, whose
metadata name what is absent. Its SHA-256 is nobody's: what can be compared with the hub is compared (commit,
the file's announced hash, its length, the range of every answer, one ETag for all), and where anything is
not as it ought to be, the whole file is fetched in the usual way, whose hash is checked.
"""

import json
import math
import os
import struct
import threading
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tracker.checkpoints import files, headers
from tracker.checkpoints.answers import Pause, Subject, ask
from tracker.checkpoints.download import FILES_AT_ONCE, Item, Request
from tracker.checkpoints.listing import inspect, with_digests
from tracker.checkpoints.pace import ANSWER_SECONDS, PIECE_SECONDS, in_time
from tracker.checkpoints.pace import PIECE as PROGRESS
from tracker.checkpoints.ranges import Refused, Source
from tracker.checkpoints.remote import Inspected, RemoteFile
from tracker.errors import CheckpointError
from tracker.records import Checkpoint

LEAST_SAVED = 0.2
"""Share of a file from which ranges are worth it: the hub's own client fetches a whole file faster."""
FIRST = 256 << 10
"""Bytes asked for at first: the header, in nearly all files."""
SMALLEST = 1 << 20
"""Bytes of a file from which it is asked at all."""
GAP = 4 << 20
"""Unneeded bytes that are fetched along rather than asking once more."""
PIECE = 32 << 20
"""Most bytes of one request; several run side by side."""
HEADS = ("embed_out.weight", "lm_head.weight")
"""Names of unembeddings, of GPT-NeoX and of all newer families."""
EMBEDDINGS = ("embed_in.weight", "embed_tokens.weight", "wte.weight", "word_embeddings.weight")
ONE_FILE = "model.safetensors"
"""Of shards, which are tens of gigabytes together, the unembedding is a small share."""


@dataclass(frozen=True)
class Part:
    """Which bytes of a file on the hub make a smaller one."""

    file: RemoteFile
    header: bytes
    """Of the smaller file, with its length in front."""
    spans: tuple[tuple[int, int], ...]
    """First byte, and the one after the last, of what is kept; in order, none touching."""
    etag: str

    @property
    def size(self) -> int:
        """Bytes of the smaller file."""
        return len(self.header) + sum(stop - start for start, stop in self.spans)

    @property
    def pieces(self) -> list[tuple[int, int]]:
        """What is asked for: spans joined over small gaps, cut where they are long."""
        joined: list[tuple[int, int]] = []
        for start, stop in self.spans:
            if joined and start - joined[-1][1] <= GAP:
                start = joined.pop()[0]
            joined.append((start, stop))
        return [(at, min(at + PIECE, stop)) for start, stop in joined for at in range(start, stop, PIECE)]

    @property
    def fetched(self) -> int:
        """Bytes that come over the network."""
        return min(FIRST, self.file.size) + sum(stop - start for start, stop in self.pieces)

    @property
    def stored(self) -> RemoteFile:
        """The smaller file, as if it were the hub's; its digest is no hash."""
        return replace(self.file, size=self.size, sha256=None, blob_id=f"{self.file.digest}.part")


def without_head(inspected: Inspected, about: Subject, pause: Pause) -> Part | None:
    """Return the part of a checkpoint's weights that is needed without the loss.

    Args:
        inspected: the hub's answer about the checkpoint, each file with a digest.
        about: named in messages.
        pause: waits between tries.

    Returns:
        None where all is needed or little would be saved, and where ranges are not answered as they ought.

    Raises:
        CheckpointError: the hub does not answer.
    """
    config = next(file for file in inspected.files if file.name.endswith(files.CONFIG))
    weights = next((file for file in inspected.files if file.name.endswith(ONE_FILE)), None)
    if weights is None or weights.size < SMALLEST:
        return None
    source = Source(about, inspected.commit, weights)

    def looked() -> Part | None:
        tied = _tied(source.whole(config))
        return None if tied else _part(source)

    try:
        return ask(looked, about, pause, ANSWER_SECONDS)
    except Refused:
        return None


def fetch(request: Request, item: Item, part: Part) -> int:
    """Fetch a part and write it as a file.

    Returns:
        Bytes that came over the network.

    Raises:
        Refused: an answer is not as it ought to be.
        CheckpointError: the hub does not answer, the disk is full, or the sweep is ending.
    """
    about = replace(request.about, file=part.file.name)
    source = Source(about, request.commit, part.file, part.etag)
    new = item.blob.with_name(f"{item.blob.name}.{uuid.uuid4().hex[:8]}.incomplete")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    writer = _Writer(descriptor, part)

    def bring(piece: tuple[int, int]) -> None:
        start, stop = piece
        left = [start]

        def rest() -> None:
            for chunk in source.range(left[0], stop) if left[0] < stop else ():
                request.pause(0)
                writer.put(left[0], chunk)
                left[0] += len(chunk)

        def moving() -> None:
            in_time(rest, PIECE_SECONDS, request.pause, lambda: left[0] // PROGRESS)

        ask(moving, about, request.pause)

    pool = ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="ranges")
    try:
        _write(descriptor, part.header, 0)
        list(pool.map(bring, part.pieces))
        os.replace(new, item.blob)
    finally:
        pool.shutdown(cancel_futures=True)
        writer.close()
        new.unlink(missing_ok=True)
    return sum(stop - start for start, stop in part.pieces)


def _tied(config: bytes) -> bool:
    """Whether embedding and unembedding are, or may be, one tensor: only a plain no counts as one."""
    try:
        found = json.loads(config)
        return found.get("tie_word_embeddings") is not False
    except (ValueError, AttributeError):
        return True


def _part(source: Source) -> Part | None:
    size = source.file.size
    start = b"".join(source.range(0, min(FIRST, size)))
    (length,) = struct.unpack("<Q", start[:8])
    if length > min(headers.LONGEST_HEADER, size - 8):
        return None
    if 8 + length > len(start):
        start += b"".join(source.range(len(start), 8 + length))
    try:
        entries = json.loads(start[8 : 8 + length])
        found = _kept(entries, 8 + length, size)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if found is None:
        return None
    header, spans = found
    part = Part(source.file, header, spans, source.etag)
    return part if part.fetched <= (1 - LEAST_SAVED) * size else None


def _kept(entries: dict[str, Any], first: int, size: int) -> tuple[bytes, tuple[tuple[int, int], ...]] | None:
    """The header of the smaller file, and the spans of the whole one that follow it."""
    metadata = entries.pop("__metadata__", {})
    ordered = sorted(entries, key=lambda name: entries[name]["data_offsets"])
    absent = _heads(entries)
    left_out = absent | {name for name in entries if _is_mask(name, entries[name]["shape"])}
    new: dict[str, Any] = {
        "__metadata__": {**metadata, headers.ABSENT: json.dumps({n: entries[n]["shape"] for n in absent})}
    }
    spans: list[tuple[int, int]] = []
    read = at = 0
    for name in ordered:
        start, stop = entries[name]["data_offsets"]
        width = headers.width(entries[name]["dtype"])
        if type(start) is not int or type(stop) is not int:
            return None
        if start != read or stop - start != math.prod(entries[name]["shape"]) * width:
            return None  # not as the format says
        read = stop
        if name in left_out:
            continue
        if at % width:
            return None  # libraries map tensors where they lie
        new[name] = {**entries[name], "data_offsets": [at, at + stop - start]}
        at += stop - start
        if spans and spans[-1][1] == first + start:
            spans[-1] = (spans[-1][0], first + stop)
        elif stop > start:
            spans.append((first + start, first + stop))
    if not absent or first + read != size:
        return None
    text = json.dumps(new).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, tuple(spans)


def _heads(entries: Mapping[str, Any]) -> set[str]:
    """The unembedding, where an embedding of the same shape is there as well."""
    tables = [entry["shape"] for name, entry in entries.items() if name.endswith(EMBEDDINGS)]
    return {name for name in HEADS if name in entries and entries[name]["shape"] in tables}


def _is_mask(name: str, shape: list[int]) -> bool:
    """Whether a tensor is a causal mask, which old GPT-2 and GPT-NeoX files hold for every layer."""
    square = len(shape) == 4 and shape[:2] == [1, 1] and shape[2] == shape[3]
    return square and name.endswith((".attention.bias", ".attn.bias"))


@dataclass
class _Writer:
    """Puts bytes of the whole file where the smaller one has them, as long as it is open."""

    descriptor: int
    part: Part
    lock: threading.Lock = field(default_factory=threading.Lock)
    closed: bool = False

    def put(self, at: int, chunk: bytes) -> None:
        target = len(self.part.header)
        for start, stop in self.part.spans:
            low, high = max(start, at), min(stop, at + len(chunk))
            if low < high:
                with self.lock:
                    if self.closed:  # nobody waits any more, and another file may have the descriptor
                        raise CheckpointError("came too late")
                    _write(self.descriptor, chunk[low - at : high - at], target + low - start)
            target += stop - start

    def close(self) -> None:
        with self.lock:
            self.closed = True
            os.close(self.descriptor)


def _write(descriptor: int, content: bytes, at: int) -> None:
    while content:
        written = os.pwrite(descriptor, content, at)
        content, at = content[written:], at + written


def size(checkpoint: Checkpoint) -> tuple[int, int]:
    """Ask the hub what a checkpoint takes, in bytes: all files that measuring needs, and what is fetched
    where the loss is not measured.

    Raises:
        CheckpointError: as ``listing.inspect``.
    """
    about = Subject(checkpoint.location, checkpoint.revision, checkpoint.label)
    inspected = with_digests(inspect(checkpoint), about)
    part = without_head(inspected, about, time.sleep)
    return inspected.size, inspected.size + (part.fetched - part.file.size if part else 0)


def root(cache: Path) -> Path:
    """Return where parts lie in a cache: a cache of its own, in which Hugging Face's tools do not look."""
    return cache / ".locks" / "tracker" / "parts"
