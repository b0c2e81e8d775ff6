"""Which files of a model are needed, and whether they lie on disk whole. No weights are loaded here."""

import hashlib
import re
import zipfile
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path, PurePosixPath

from tracker.atomic import read_json
from tracker.checkpoints import headers
from tracker.errors import CheckpointError

CONFIG = "config.json"
VOCABULARY = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
)
"""Files of which any one holds a tokenizer's vocabulary."""
TOKENIZER = (
    *VOCABULARY,
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
"""Every file that makes up a tokenizer."""
FORMATS = (("model", "safetensors"), ("pytorch_model", "bin"))
"""In order of preference, as transformers prefers them: stem and ending."""

MERGE = " (merge_and_unload() of PEFT, then save_pretrained)"
_MIB = 1 << 20


def needed(names: Collection[str]) -> tuple[list[str], list[str]]:
    """Choose from a listing what measuring needs: small files, and the weights in one format only.

    Args:
        names: paths relative to the model's folder.

    Returns:
        (config and tokenizer files, weight files with their index). Safetensors win over ``.bin``, one
        file over shards, which are those that are named as usual, or every file of the format where none is.
        The second list is empty where there are no weights.
    """
    small = [name for name in (CONFIG, *TOKENIZER) if name in names]
    for stem, ending in FORMATS:
        if f"{stem}.{ending}" in names:
            return small, [f"{stem}.{ending}"]
        index = f"{stem}.{ending}.index.json"
        if index in names:
            usual = re.compile(rf"{stem}-\d+-of-\d+\.{ending}")
            shards = [name for name in names if usual.fullmatch(name)]
            others = [name for name in names if name.endswith(f".{ending}") and "/" not in name]
            return small, [index, *sorted(shards or others)]
    return small, []


def needed_in(folder: str, names: Collection[str]) -> tuple[list[str], list[str]]:
    """Choose what measuring needs of one folder of a repository, as ``needed`` does.

    Args:
        folder: empty: the repository itself. Configuration and tokenizer that a folder does not have are
            those of the nearest folder above it that has them.
        names: of all files of the repository.
    """
    if not folder:
        return needed(names)
    above = [folder, *(str(each) for each in PurePosixPath(folder).parents if str(each) != "."), ""]
    _, heavy = needed(below(folder, names))
    small = []
    for kind, marks in (((CONFIG,), (CONFIG,)), (TOKENIZER, VOCABULARY)):
        place = next((each for each in above if {*below(each, names)} & {*marks}), None)
        if place is not None:
            small += [str(PurePosixPath(place, name)) for name in kind if name in {*below(place, names)}]
    return small, [f"{folder}/{name}" for name in heavy]


def below(folder: str, names: Iterable[str]) -> list[str]:
    """Return the names that lie in a folder, relative to it."""
    prefix = f"{folder}/" if folder else ""
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]


def folders_with_weights(names: Collection[str]) -> list[str]:
    """Return the folders of a repository that hold a set of weights, at any depth."""
    places = {str(PurePosixPath(name).parent) for name in names if "/" in name and ".." not in name}
    return sorted(place for place in places if needed(below(place, names))[1])


def sets(names: Collection[str]) -> dict[str, list[str]]:
    """Return every complete set of weight files by format, in order of preference; no index files.

    Args:
        names: paths relative to the model's folder.

    Returns:
        ``model.safetensors`` or ``pytorch_model.bin`` -> its one file or its shards.
    """
    found: dict[str, list[str]] = {}
    for stem, ending in FORMATS:
        own = [name for name in names if name.startswith(stem) and name.endswith((ending, ".index.json"))]
        _, heavy = needed(own)
        if heavy and complete(heavy):
            found[f"{stem}.{ending}"] = [name for name in heavy if not name.endswith(".index.json")]
    return found


def complete(heavy: Collection[str]) -> bool:
    """Return whether files chosen by ``needed`` are one file, or every shard that their names announce.

    Of shards that announce no number only their index tells; they count as complete.
    """
    names = [name for name in heavy if not name.endswith(".index.json")]
    numbers = {int(found[1]) for name in names if (found := re.search(r"-of-(\d+)\.", name))}
    return bool(names) and (len(names) == len(heavy) or not numbers or numbers == {len(names)})


def announced(heavy: Sequence[str]) -> bool:
    """Return whether the names of files chosen by ``needed`` alone tell that they are all that is needed."""
    return complete(heavy) and all("-of-" in name for name in heavy[1:])


def whole(folder: Path, who: str) -> list[Path]:
    """Return the weight files of a model folder, after checking that each is there and not cut short.

    Args:
        folder: holds config.json and weights.
        who: what messages name: model, seed and step.

    Returns:
        Files that hold tensors, in order of their names.

    Raises:
        CheckpointError: a file is missing, truncated, not weights at all, or outside the folder.
    """
    config = folder / CONFIG
    _refuse_gone_links(folder, who)
    if adapter := adapter_of(folder):
        raise CheckpointError(f"{who}: {folder} holds an adapter of {adapter}; merge it first{MERGE}")
    if not config.is_file():
        raise CheckpointError(f"{who}: {folder} has no {CONFIG}; save the model with save_pretrained")
    _, chosen = needed([path.name for path in folder.iterdir() if path.is_file()])
    if not chosen:
        wanted = ", ".join(f"{stem}.{ending}" for stem, ending in FORMATS)
        raise CheckpointError(
            f"{who}: no weights in {folder}; looked for {wanted} and their sharded forms, "
            f"found {listed(path.name for path in folder.iterdir())}"
        )
    if chosen[0].endswith(".index.json"):
        files = [folder / name for name in shards(folder / chosen[0], who)]
    else:
        files = [folder / chosen[0]]
    for file in files:
        _check_weights(file, who)
    return files


def adapter_of(folder: Path) -> str | None:
    """Return the name of the model that a folder's adapter belongs to, where it holds no model of its own."""
    adapter = folder / "adapter_config.json"
    if not adapter.is_file() or any((folder / f"{stem}.{ending}").exists() for stem, ending in FORMATS):
        return None
    try:
        return str(read_json(adapter)["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError):
        return "a model that its adapter_config.json does not name"


def _refuse_gone_links(folder: Path, who: str) -> None:
    for path in sorted(folder.iterdir()):
        wanted = path.name in (CONFIG, *TOKENIZER) or path.suffix in (".safetensors", ".bin")
        if wanted and path.is_symlink() and not path.exists():
            raise CheckpointError(f"{who}: {path} is a link to {path.readlink()}, which is gone")


def shards(index: Path, who: str) -> list[str]:
    """Return the files that an index of shards names, each a plain name beside the index.

    Raises:
        CheckpointError: the index is not one, or names something outside its folder.
    """
    try:
        names = sorted(set(read_json(index)["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, MemoryError) as error:
        raise CheckpointError(f"{who}: {index} is not an index of weight shards: {error!r}") from error
    for name in names:
        if not re.fullmatch(r"[\w-][\w.-]*", str(name)):
            raise CheckpointError(
                f"{who}: {index.name} names the shard {name!r}, which is not a plain file name in its own "
                "folder; refused, since an index must not lead elsewhere"
            )
    if not names:
        raise CheckpointError(f"{who}: {index} names no shard")
    return names


def fingerprint(folder: Path, files: list[Path]) -> str:
    """Compute what stands for a commit in a folder: it changes when the weights or config.json change.

    Read are names, sizes, the first and last MiB of each weight file, and all of config.json, so that a
    checkpoint of many gigabytes costs milliseconds.

    Returns:
        ``files-`` and twelve hex digits.
    """
    sums = hashlib.sha256((folder / CONFIG).read_bytes())
    for path in files:
        size = path.stat().st_size
        sums.update(f"\0{path.name}\0{size}\0".encode())
        with open(path, "rb") as file:
            sums.update(file.read(_MIB))
            if size > _MIB:
                file.seek(max(_MIB, size - _MIB))
                sums.update(file.read())
    return f"files-{sums.hexdigest()[:12]}"


def listed(names: Iterable[str], most: int = 8) -> str:
    """Join names for a message: the first ones in order, and how many more."""
    ordered = sorted(names)
    more = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return (", ".join(ordered[:most]) or "nothing") + more


def _check_weights(path: Path, who: str) -> None:
    if not path.is_file():
        raise CheckpointError(f"{who}: the weight file {path} is missing; fetch or save the checkpoint again")
    with open(path, "rb") as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{who}: {path} is a Git LFS pointer, not the weights; run `git lfs pull` in its repository"
        )
    if path.suffix == ".safetensors":
        _check_safetensors(path, who)
    else:
        _check_pickle(path, start, who)


def _check_safetensors(path: Path, who: str) -> None:
    try:
        expected, size = headers.read_header(path).file_size, path.stat().st_size
    except ValueError as error:
        raise CheckpointError(
            f"{who}: {path} is not a whole safetensors file ({error}); fetch or save the checkpoint again"
        ) from error
    if size != expected:
        raise CheckpointError(
            f"{who}: {path} has {size} bytes, its header says {expected}; the file is truncated or damaged, "
            "fetch or save the checkpoint again"
        )


def _check_pickle(path: Path, start: bytes, who: str) -> None:
    # torch.save writes a zip, whose directory stands at the end; before torch 1.6 it was a bare pickle.
    if start.startswith(b"PK"):
        if zipfile.is_zipfile(path):
            return
        fault = "ends before its directory: the file is truncated"
    elif start.startswith(b"\x80"):
        return
    else:
        fault = "is not a file that torch.save wrote"
    raise CheckpointError(f"{who}: {path} {fault}; fetch or save the checkpoint again")
