"""The probe: fixed token sequences on which every checkpoint of a model is measured.

A text is encoded once without special tokens and cut into sequences one after the other; its digest is
part of every result's key, the digest of the token ids is recorded beside it.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tracker.checkpoints.files import TOKENIZER, VOCABULARY
from tracker.errors import INTERRUPTIONS, CheckpointError, RequestError, unknown_value
from tracker.records import ProbeSource, ProbeSpec, digest

DEFAULT_FIELD = ProbeSource().field
DEFAULT_TEXT = Path(__file__).with_name("default_probe.txt")
"""Jane Austen, Persuasion (1818), its first chapters: public domain; the embedded suite never sees it."""
PREFIX_SEQUENCES = 4
CHARACTERS_PER_TOKEN = 8
"""How much text is encoded per token wanted, at first; more where it turns out too little."""


@dataclass(frozen=True)
class ProbeTokens:
    """Token ids ready to be measured.

    ids: int64, shape (sequences, n). prefix_ids: int64, shape (4, 2 block): a block of random ids twice.
    """

    ids: np.ndarray
    prefix_ids: np.ndarray
    digest: str


def probe_spec(
    source: ProbeSource,
    *,
    name: str,
    n: int,
    number: int,
    seed: int = 0,
    bos: bool = False,
    target_error: float | None = None,
) -> ProbeSpec:
    """Identify a probe, without tokenizer or network.

    Raises:
        RequestError: a file that is not there, more than one source, or numbers out of range.
    """
    given = [field for field in ("text", "dataset", "ids") if getattr(source, field)]
    if len(given) > 1:
        raise RequestError(f"probe.{given[0]} and probe.{given[1]} are both given; a probe has one source")
    if n < 8:
        raise unknown_value("probe.n", n, "8 tokens or more")
    if number < 1:
        raise unknown_value("probe.sequences", number, "1 sequence or more")
    check_target_error(target_error)
    if source.dataset:
        if not source.file:
            raise RequestError("probe.dataset needs probe.file, the file in the repository to read")
        address = [source.dataset, source.revision, source.file, source.field]
        text = digest(address, 64)
    else:
        path = _local(source)
        if source.ids:
            _given_ids(path, n, number)
        text = hashlib.sha256(path.read_bytes() + _field_read(source, path)).hexdigest()
    if source.tokenizer:
        text = digest([text, tokenizer_digest(Path(source.tokenizer))], 64)
    return ProbeSpec(name, text, n, number, seed, bos, target_error)


def _field_read(source: ProbeSource, path: Path) -> bytes:
    """Return the field that is read of a file of documents, as it stands in the keys of stored results."""
    if path.suffix in (".jsonl", ".json") or (path.suffix == ".parquet" and source.field != DEFAULT_FIELD):
        return source.field.encode()
    return b""  # also for the default column of a .parquet, which earlier versions did not name


def check_target_error(target_error: float | None) -> None:
    """Refuse a relative error that no measurement could stop at.

    Raises:
        RequestError: it is no share between 0 and 1.
    """
    if target_error is not None and not 0 < target_error < 1:
        raise unknown_value("probe.target_error", target_error, "null, or a share between 0 and 1")


def tokenizer_digest(folder: Path) -> str:
    """Return what distinguishes tokenizers, from their files and without loading them.

    It is part of the keys of stored results, which stand by names in this order.

    Raises:
        RequestError: no folder there.
    """
    if not folder.is_dir():
        raise unknown_value("probe.tokenizer", folder, "a folder that holds a tokenizer")
    present = [name for name in TOKENIZER if (folder / name).is_file()]
    if len(set(present) & set(VOCABULARY)) > 1:  # beside another vocabulary it was never looked at
        present = [name for name in present if name != "sentencepiece.bpe.model"]
    return digest([hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in present])


def _local(source: ProbeSource) -> Path:
    field, name = ("ids", source.ids) if source.ids else ("text", source.text)
    path = Path(name) if name else DEFAULT_TEXT
    if not path.is_file():
        raise unknown_value(f"probe.{field}", name, "a file that exists")
    return path


def read_text(source: ProbeSource) -> str:
    """Read the probe's text; documents of .jsonl and .parquet are joined by blank lines.

    Raises:
        RequestError: the file cannot be read as text, or has no such field.
    """
    path = _download(source) if source.dataset else _local(source)
    try:
        if path.suffix == ".jsonl":
            lines = path.read_text(encoding="utf-8").split("\n")
            read = ((number, json.loads(line)) for number, line in enumerate(lines, 1) if line.strip())
            return _joined(read, "line", source.field)
        if path.suffix == ".json":
            documents = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(documents, list):
                raise ValueError("holds no array of documents")
            return _joined(enumerate(documents, 1), "document", source.field)
        if path.suffix == ".parquet":
            return "\n\n".join(
                pl.read_parquet(path, columns=[source.field], glob=False)[source.field].drop_nulls()
            )
        return path.read_text(encoding="utf-8")
    except (ValueError, KeyError, TypeError, RecursionError, pl.exceptions.PolarsError) as error:
        raise RequestError(
            f"probe: {path.name} cannot be read as {path.suffix or 'text'}, field {source.field!r}: {error}"
        ) from error


def _joined(documents: Iterable[tuple[int, Any]], kind: str, field: str) -> str:
    """The texts of numbered documents; one whose text is null is skipped."""
    texts: list[str] = []
    for number, document in documents:
        if isinstance(document, str):
            texts.append(document)
            continue
        if not isinstance(document, dict) or field not in document:
            known = f"has {', '.join(document)}" if isinstance(document, dict) else "is no object"
            raise ValueError(f"{kind} {number} {known}; set probe.field to the one that holds the text")
        if not isinstance(document[field], (str, type(None))):
            raise ValueError(f"{kind} {number} holds a {type(document[field]).__name__} there, not a text")
        texts += [document[field]] if document[field] is not None else []
    return "\n\n".join(texts)


def _download(source: ProbeSource) -> Path:
    from huggingface_hub import hf_hub_download

    from tracker.checkpoints.announced import held_to
    from tracker.checkpoints.answers import Subject, ask
    from tracker.checkpoints.cached import cache_folder
    from tracker.checkpoints.pace import PIECE_SECONDS, in_time

    name = str(source.dataset)
    blobs = cache_folder(None) / f"datasets--{name.replace('/', '--')}" / "blobs"

    about = Subject(name, source.revision, "probe.dataset", source.file)

    def fetched() -> str:
        with held_to(about.where):
            return hf_hub_download(
                name,
                str(source.file),
                repo_type="dataset",
                revision=source.revision,
                endpoint=os.environ.get("HF_ENDPOINT"),
            )

    def progress() -> object:
        return [part.stat().st_size for part in blobs.glob("*.incomplete") if part.exists()]

    try:
        return Path(ask(lambda: in_time(fetched, PIECE_SECONDS, time.sleep, progress), about))
    except CheckpointError as error:
        raise RequestError(f"probe.dataset={name}: {source.file} cannot be fetched: {error}") from error


def load_tokenizer(path: Path) -> Any:
    """Load the tokenizer that lies with a checkpoint.

    Raises:
        CheckpointError: there is none, or it does not load.
    """
    from transformers import AutoTokenizer

    # transformers makes an empty tokenizer of a configuration alone, and says nothing.
    if not any((path / name).is_file() for name in VOCABULARY):
        raise CheckpointError(
            f"{path}: no tokenizer in this folder; give probe.tokenizer=FOLDER or probe.ids=FILE"
        )
    try:
        return AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except INTERRUPTIONS:
        raise
    except BaseException as error:
        lacking = [
            name for name in ("sentencepiece", "tiktoken") if name in str(error) and not find_spec(name)
        ]
        advice = f"install {' or '.join(lacking)}, or " if lacking else ""
        raise CheckpointError(
            f"{path}: no tokenizer loads from it ({type(error).__name__}); "
            f"{advice}give probe.tokenizer=FOLDER or probe.ids=FILE"
        ) from error


def tokenizer_folder(source: ProbeSource, checkpoint: Path) -> Path:
    """Return where a tokenizer lies: in the folder that the request names, else beside the weights."""
    return Path(source.tokenizer) if source.tokenizer else checkpoint


def encode_probe(
    spec: ProbeSpec,
    source: ProbeSource,
    tokenizer: Any | None,
    *,
    vocabulary: int,
    block: int = 50,
    max_positions: int | None = None,
) -> ProbeTokens:
    """Encode the probe for one model.

    Args:
        spec, source: the probe.
        tokenizer: the model's own; may be None where ids are given directly.
        vocabulary: rows of the model's embedding.
        block: ids in the block of the prefix-matching sequences, at most half of ``max_positions``.
        max_positions: longest sequence that the model takes.

    Raises:
        RequestError: ids of another shape, or a text without a tokenizer.
        CheckpointError: the text gives too few sequences, ids are beyond the vocabulary, sequences longer
            than the model's positions, or there is no beginning-of-sequence token where one is asked for.
    """
    if max_positions is not None and spec.n > max_positions:
        raise CheckpointError(
            f"probe.n={spec.n} is longer than the model's {max_positions} positions; lower probe.n"
        )
    if source.ids:
        ids, special = _given_ids(_local(source), spec.n, spec.number), []
    elif tokenizer is None:
        raise RequestError(
            "a probe of text needs a tokenizer; give one, or token ids of shape (sequences, n)"
        )
    else:
        ids, special = _encoded_ids(spec, source, tokenizer), special_ids(tokenizer)
    if int(ids.max()) >= vocabulary or int(ids.min()) < 0:
        raise CheckpointError(
            f"token id {int(ids.max())} is beyond the model's vocabulary of {vocabulary}: "
            "the tokenizer is another model's"
        )
    known = min(vocabulary, len(tokenizer)) if tokenizer is not None else vocabulary
    prefix = prefix_ids(known, special, block=fitting_block(block, max_positions), seed=spec.seed)
    return probe_tokens(ids, prefix)


def fitting_block(block: int, max_positions: int | None) -> int:
    """Return the length of a block that a model can read twice in a row."""
    return min(block, (max_positions or 2 * block) // 2)


def probe_tokens(ids: np.ndarray, prefix: np.ndarray) -> ProbeTokens:
    """Put the two together with their digest, first twelve hex digits of the SHA-256 of all ids."""
    content = hashlib.sha256(ids.astype("<i8").tobytes() + prefix.astype("<i8").tobytes())
    return ProbeTokens(ids, prefix, content.hexdigest()[:12])


def _given_ids(path: Path, n: int, number: int) -> np.ndarray:
    try:
        loaded = np.load(path, allow_pickle=False) if path.suffix == ".npy" else json.loads(path.read_text())
        ids = np.asarray(loaded)
        fits = ids.ndim == 2 and np.issubdtype(ids.dtype, np.integer)
    except (ValueError, OSError, EOFError, RecursionError, MemoryError) as error:
        raise RequestError(f"probe.ids={path}: cannot be read as .npy or .json token ids: {error}") from error
    if not fits or ids.shape[0] < number or ids.shape[1] != n:
        few = fits and ids.shape[1] == n and len(ids)
        fewer = f"; for these add probe.sequences={len(ids)}" if few else ""
        raise RequestError(
            f"probe.ids={path}: holds {ids.dtype} of shape {ids.shape}; wanted whole numbers of shape "
            f"({number} or more, {n}), as probe.sequences and probe.n say{fewer}"
        )
    return ids[:number].astype(np.int64)


def _encoded_ids(spec: ProbeSpec, source: ProbeSource, tokenizer: Any) -> np.ndarray:
    head: list[int] = []
    if spec.bos:
        if tokenizer.bos_token_id is None:
            raise CheckpointError("probe.bos=true, but the tokenizer has no beginning-of-sequence token")
        head = [tokenizer.bos_token_id]
    body = spec.n - len(head)
    stream = _stream(read_text(source), body * spec.number, tokenizer)
    if len(stream) < body * spec.number:
        raise CheckpointError(
            f"probe.sequences={spec.number}: the text gives only {len(stream) // body} sequences of "
            f"{spec.n} tokens with this tokenizer; lower probe.sequences or probe.n, or give more probe.text"
        )
    rows = np.asarray(stream[: body * spec.number], dtype=np.int64).reshape(spec.number, body)
    return np.concatenate((np.tile(np.array(head, dtype=np.int64), (spec.number, 1)), rows), axis=1)


def special_ids(tokenizer: Any) -> list[int]:
    """Return ids that stand for no text: those the tokenizer names, and those its vocabulary marks."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return sorted({*tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)})


def _stream(text: str, wanted: int, tokenizer: Any) -> list[int]:
    """The first ids of a text; as much of it is encoded as that takes, cut at white space."""
    size = CHARACTERS_PER_TOKEN * wanted
    while True:
        part = text if size >= len(text) else text[:size].rpartition(" ")[0] or text[:size]
        stream = tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"]
        # The last ids before a cut may differ from those of the whole text; a margin keeps them out.
        if size >= len(text) or len(stream) >= wanted + wanted // 8 + 16:
            return stream
        size *= 2


def prefix_ids(vocabulary: int, special: list[int], *, block: int, seed: int) -> np.ndarray:
    """Make sequences for prefix matching: a block of ids drawn uniformly, none special, written twice.

    Returns:
        int64, shape (4, 2 block).
    """
    allowed = np.setdiff1d(np.arange(vocabulary), np.asarray(special, dtype=np.int64))
    drawn = np.random.default_rng(seed).choice(allowed, (PREFIX_SEQUENCES, block))
    return np.concatenate((drawn, drawn), axis=1).astype(np.int64)
