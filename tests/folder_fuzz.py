"""Spoils good checkpoint folders, one thing at a time, and tables the ends: python tests/folder_fuzz.py 200.

Right ends: the numbers of the whole folder (where what changed decides nothing), other numbers where the
change is another model that is as sound (a bit of a weight), or one clear line that names the folder. Whole
and block by block must end alike.
"""

import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file
from saved_models import FORMS, save
from transformers.utils import logging as transformers_logging

import tracker
from tracker.checkpoints.folder import discover, fetch
from tracker.errors import TrackerError
from tracker.models.loading import load_model
from tracker.models.streaming import stream_model
from tracker.planning.memory import memory_needed

DEADLINE = 10.0
"""Seconds that a case may take, both ways together."""
ODD: tuple[Any, ...] = (
    None, 0, -1, 1, 3, 10**6, 10**9, 10**30, 0.5, "", "abc", True, [], {}, [[[1]]], float("nan"),
)  # fmt: skip
Spoil = Callable[[Path, random.Random], bool]
"""Changes one thing in a folder; whether numbers may be others afterwards."""


def _weights(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.suffix in (".safetensors", ".bin"))


def _config(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def field_changed(folder: Path, rng: random.Random) -> bool:
    """Set one field of config.json to something odd."""

    def change(config: dict[str, Any]) -> None:
        config[rng.choice(sorted(config))] = rng.choice(ODD)

    _config(folder, change)
    return True


def field_removed(folder: Path, rng: random.Random) -> bool:
    """Take one field out of config.json."""
    _config(folder, lambda config: config.pop(rng.choice(sorted(config))))
    return True


def config_broken(folder: Path, rng: random.Random) -> bool:
    """Make config.json something else."""
    path = folder / "config.json"
    whole = path.read_bytes()
    path.write_bytes(
        rng.choice((b"", b"null", b"[]", b"3", whole[: len(whole) // 2], b"\xff" + whole, b"[" * 200_000))
    )
    return False


def bytes_of(folder: Path, rng: random.Random) -> bool:
    """Turn bits of a file over."""
    path = rng.choice(_weights(folder))
    content = bytearray(path.read_bytes())
    place = rng.choice(
        (rng.randrange(8), rng.randrange(min(2000, len(content))), rng.randrange(len(content)))
    )
    content[place] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return True


def file_cut(folder: Path, rng: random.Random) -> bool:
    """Cut a file short, or put bytes behind it."""
    path = rng.choice(_weights(folder))
    content = path.read_bytes()
    path.write_bytes(rng.choice((b"", content[: rng.randrange(len(content))], content + b"\0" * 9)))
    return False


def file_gone(folder: Path, rng: random.Random) -> bool:
    """Remove a file, or put a folder or a dead link into its place."""
    path = rng.choice(sorted(folder.iterdir()))
    path.unlink()
    kind = rng.choice(("gone", "folder", "link"))
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("/gone/blob")
    return False


def tensor_changed(folder: Path, rng: random.Random) -> bool:
    """Rename, drop, reshape, add or poison one tensor."""
    path = rng.choice(_weights(folder))
    safe = path.suffix == ".safetensors"
    tensors = load_file(path) if safe else torch.load(path, weights_only=True)
    name = rng.choice(sorted(tensors))
    tensor, kind = (
        tensors[name],
        rng.choice(("drop", "rename", "flat", "rows", "empty", "nan", "more", "ints")),
    )
    if kind in ("drop", "rename"):
        del tensors[name]
    changed = {
        "rename": (f"x.{name}", tensor), "flat": (name, tensor.flatten()[:-1]),
        "rows": (name, torch.cat((tensor, tensor))), "empty": (name, torch.empty(0)),
        "nan": (name, torch.full_like(tensor, torch.nan)), "more": ("surplus.weight", tensor.clone()),
        "ints": (name, tensor.to(torch.int8)),
    }  # fmt: skip
    tensors |= dict([changed[kind]]) if kind in changed else {}
    save_file(tensors, path, {"format": "pt"}) if safe else torch.save(tensors, path)
    return kind == "ints"


def header_changed(folder: Path, rng: random.Random) -> bool:
    """Change one entry of a safetensors header, its length kept."""
    paths = [each for each in _weights(folder) if each.suffix == ".safetensors"]
    if not paths:
        return bytes_of(folder, rng)
    path = rng.choice(paths)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    name = rng.choice([each for each in header if each != "__metadata__"])
    field = rng.choice(("dtype", "shape", "data_offsets"))
    header[name][field] = rng.choice((*ODD[:-1], [2**62, 2], [-1, 4], "F64", "I8", [0, 10**12]))
    new = json.dumps(header).encode()
    path.write_bytes(len(new).to_bytes(8, "little") + new + content[8 + length :])
    return True


def index_changed(folder: Path, rng: random.Random) -> bool:
    """Change the index of shards."""
    paths = sorted(folder.glob("*.index.json"))
    if not paths:
        return field_changed(folder, rng)
    index = json.loads(paths[0].read_text())
    name = rng.choice(sorted(index["weight_map"]))
    odd = rng.choice((*ODD[:-1], "../x.safetensors", "other.safetensors", "/etc/passwd"))
    kind = rng.choice(("entry", "drop", "map", "nested"))
    if kind == "entry":
        index["weight_map"][name] = odd
    elif kind == "drop":
        del index["weight_map"][name]
    elif kind == "map":
        index["weight_map"] = odd
    text = "[" * 200_000 if kind == "nested" else json.dumps(index)
    paths[0].write_text(text)
    return False


def pickle_swapped(folder: Path, rng: random.Random) -> bool:
    """Save something else than tensors by name."""
    for path in (*_weights(folder), *folder.glob("*.index.json")):
        path.unlink()
    odd: Any = rng.choice(
        (torch.nn.Linear(2, 2), [1], {"a": 1}, torch.ones(2), {"model": {"a": 2}}, None, {})
    )
    torch.save(odd, folder / "pytorch_model.bin")
    return False


SPOILS: dict[str, Spoil] = {
    "field of config.json": field_changed, "field removed": field_removed, "config.json": config_broken,
    "bits": bytes_of, "file cut": file_cut, "file gone": file_gone, "tensor": tensor_changed,
    "header": header_changed, "shard index": index_changed, "pickle": pickle_swapped,
}  # fmt: skip


def measured(folder: Path, load: Callable[[Path], Any]) -> pl.DataFrame | str:
    """Heads as a sweep would measure them, or the line in which it ends."""
    try:
        fetch(discover(folder, step=1)[0])
        memory_needed(folder, "float32")
        found = tracker.track(load(folder), torch.arange(48).view(2, 24))
    except TrackerError as error:
        line = str(error)
        named = str(folder) in line or "suite.path" in line or line.startswith(("layer", "tokens", "the "))
        named = named or "does not run on token ids" in line or "no layer with attention" in line
        clear = "\n" not in line and "\x1b" not in line and len(line) < 700
        return "one line" if named and clear else f"unclear: {line[:150]}"
    except BaseException as error:
        return f"raw {type(error).__name__}: {error}"[:150]
    return found.heads.drop("model")


def outcome(folder: Path, truth: pl.DataFrame, others: bool) -> str:
    """What becomes of a spoilt folder, whole and block by block."""
    began = time.monotonic()
    whole, blocks = measured(folder, load_model), measured(folder, stream_model)
    if time.monotonic() - began > DEADLINE:
        return "too slow"
    for each in (whole, blocks):
        if isinstance(each, str) and each != "one line":
            return each
    if isinstance(whole, str):
        return "one line" if isinstance(blocks, str) else "loads by blocks only"
    if not isinstance(blocks, str) and not whole.equals(blocks):
        return "whole and blocks differ"
    if whole.equals(truth):
        return "right numbers"
    return "another model's numbers" if others else "wrong numbers"


def try_folders(root: Path, count: int, seed: int = 0) -> Counter[tuple[str, str]]:
    """Spoil folders one at a time; count what was changed and what became of it.

    Args:
        root: an empty folder to work in.
        count: of cases.
        seed: of the choices.
    """
    transformers_logging.set_verbosity_error()
    rng, counts = random.Random(seed), Counter[tuple[str, str]]()
    good = {form: save(root / form.replace(" ", "-"), form) for form in FORMS if form != "both"}
    truth = {form: measured(folder, load_model) for form, folder in good.items()}
    for number in range(count):
        form, what = rng.choice(sorted(good)), list(SPOILS)[number % len(SPOILS)]
        folder = shutil.copytree(good[form], root / "spoilt")
        others = SPOILS[what](folder, rng)
        expected = truth[form]
        assert isinstance(expected, pl.DataFrame), expected
        end = outcome(folder, expected, others)
        counts[what, end] += 1
        shutil.rmtree(folder)
    return counts


def print_table(counts: Counter[tuple[str, str]], title: str) -> None:
    """Print one row per kind of change, one column per outcome."""
    ends = sorted({end for _, end in counts})
    table = Table("changed", *ends, title=title, title_justify="left", box=None)
    for what in sorted({what for what, _ in counts}):
        table.add_row(what, *(str(counts[what, end]) for end in ends))
    table.add_row("all", *(str(sum(n for key, n in counts.items() if key[1] == end)) for end in ends))
    Console(width=160).print(table)


def main() -> None:
    """Spoil 200 folders, or as many as asked for, and print the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    with tempfile.TemporaryDirectory() as folder:
        print_table(try_folders(Path(folder), count, seed), f"{count} malformed checkpoint folders")


if __name__ == "__main__":
    main()
