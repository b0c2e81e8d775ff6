"""What the suite reads: text that every CPython carries, its digest, its tokenizer, its token ids."""

import hashlib
import importlib
import json
import os
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tracker.atomic import save_folder
from tracker.errors import TrackerError
from tracker.nano.recipe import NanoRecipe

END_OF_TEXT = "<|endoftext|>"
"""Token 0. Stands after every document, as in Pythia's data."""

LEFT_OUT = frozenset(
    {
        "__pycache__",
        "dist-packages",
        "site-packages",
        "test",
        "tests",
        "idle_test",
        "encodings",  # character tables, not language
        "ensurepip",
        "pydoc_data",  # bundled archives; topics are read as text below
        "lib2to3",  # grammars and fixers, gone since 3.13
    }
)
LEAST_BYTES = 1_000_000
"""Less text than this is no training set: the library is stripped or stands in an archive."""

Document = tuple[str, bytes]


@dataclass(frozen=True)
class Corpus:
    """Text made ready for training: a folder that a tokenizer loads from, and the token ids."""

    folder: Path
    text_digest: str

    @property
    def tokenizer_files(self) -> list[Path]:
        """The files that every saved checkpoint gets a copy of."""
        return [self.folder / "tokenizer.json", self.folder / "tokenizer_config.json"]

    def ids(self) -> np.ndarray:
        """Return all token ids, uint16, shape (tokens,), documents one after the other."""
        return np.load(self.folder / "ids.npy")


def documents(most_bytes: int) -> list[Document]:
    """Return the standard library's sources and the prose of ``pydoc_data.topics``, in fixed order.

    The order is that of the names' SHA-256: fixed, and any beginning of it is a fair sample.

    Args:
        most_bytes: documents are taken in order while their sum stays within this.

    Returns:
        (name, UTF-8 text) pairs.

    Raises:
        TrackerError: this Python carries too little text to train on.
    """
    found = [*_topics(), *_sources(Path(sysconfig.get_path("stdlib")))]
    found.sort(key=lambda document: hashlib.sha256(document[0].encode()).digest())
    taken, total = [], 0
    for name, text in found:
        if total + len(text) <= most_bytes:
            taken.append((name, text))
            total += len(text)
    if total < min(LEAST_BYTES, most_bytes // 2):
        raise TrackerError(
            f"the embedded suite has too little to read: {total} bytes of Python sources below "
            f"{sysconfig.get_path('stdlib')}. Use a Python whose standard library lies there as .py files."
        )
    return taken


def text_digest(found: list[Document]) -> str:
    """Return the SHA-256 over names, lengths and contents of the documents, 64 hex digits."""
    whole = hashlib.sha256()
    for name, text in found:
        whole.update(f"{name}\0{len(text)}\0".encode())
        whole.update(text)
    return whole.hexdigest()


def prepare(recipe: NanoRecipe, found: list[Document], folder: Path) -> Corpus:
    """Train the tokenizer and encode the documents, unless ``folder`` already holds both.

    The folder appears whole or not at all.

    Args:
        recipe: gives the vocabulary's size.
        found: what ``documents`` returned.
        folder: where ``tokenizer.json``, ``tokenizer_config.json`` and ``ids.npy`` go.
    """
    corpus = Corpus(folder, text_digest(found))
    folder.parent.mkdir(parents=True, exist_ok=True)
    save_folder(folder, lambda new: _write(recipe, found, new))
    return corpus


def _write(recipe: NanoRecipe, found: list[Document], folder: Path) -> None:
    np.save(folder / "ids.npy", _tokenize(recipe, [text.decode() for _, text in found], folder))


def _topics() -> list[Document]:
    """Python's help topics, one document each; none where this Python comes without them."""
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ImportError:
        return []
    return [(f"topics/{name}", text.encode()) for name, text in topics.items()]


def _sources(library: Path) -> list[Document]:
    """Every .py file of the library that is worth reading, with its path as name."""
    found = []
    for folder, subfolders, files in os.walk(library):
        subfolders[:] = [name for name in subfolders if name not in LEFT_OUT]
        for file in files:
            if file.endswith(".py") and not file.startswith("_sysconfigdata"):  # differs between machines
                path = Path(folder, file)
                text = path.read_bytes().decode("utf-8", errors="replace").replace("\r\n", "\n")
                found.append((path.relative_to(library).as_posix(), text.encode()))
    return [document for document in found if document[1]]


def _tokenize(recipe: NanoRecipe, texts: list[str], folder: Path) -> np.ndarray:
    """Write a byte-level BPE tokenizer trained on ``texts``; their ids, each followed by end of text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocab,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_TEXT,
        "bos_token": END_OF_TEXT,
        "unk_token": END_OF_TEXT,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    end = tokenizer.token_to_id(END_OF_TEXT)
    encoded = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return np.concatenate([np.array([*one.ids, end], dtype=np.uint16) for one in encoded])
