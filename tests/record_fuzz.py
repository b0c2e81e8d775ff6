"""Damages records of a real store one at a time and tables what becomes of each: python tests/record_fuzz.py.

Every case flips, cuts, fills or swaps something in one file of one record. Right ends: the same numbers as
before, or one line that names the record's path, everything else being the same as before. Records without
sums, as earlier versions wrote them, are tried as well: their flipped numbers cannot be noticed.
"""

import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import polars as pl
from command_line import SMALL, tracker
from rich.console import Console
from rich.table import Table

from tracker.store import FILES, TABLES, DamagedRecord, Results, record_folders, select_results
from tracker.wandb_sink.stored import StoredRecords

SUMS = "SHA256SUMS"
Tables = dict[str, pl.DataFrame]
Damage = Callable[[bytes, random.Random], bytes]


def flip(content: bytes, rng: random.Random) -> bytes:
    """Turn one to eight bits over."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 8))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def fill(content: bytes, rng: random.Random) -> bytes:
    """Overwrite a block, as a disk does that lost it."""
    start = rng.randrange(len(content))
    end = min(len(content), start + rng.choice((1, 16, 512)))
    return content[:start] + rng.choice((b"\0", b"\xff")) * (end - start) + content[end:]


def cut(content: bytes, rng: random.Random) -> bytes:
    """Leave the beginning alone, or nothing."""
    return content[: rng.choice((0, rng.randrange(len(content)), len(content) - 1))]


def cut_out(content: bytes, rng: random.Random) -> bytes:
    """Leave out a piece in the middle."""
    start = rng.randrange(len(content))
    return content[:start] + content[start + rng.choice((1, 64)) :]


def grow(content: bytes, rng: random.Random) -> bytes:
    """Put bytes behind the end."""
    return content + rng.randbytes(rng.choice((1, 100)))


DAMAGES: dict[str, Damage] = {
    "bits flipped": flip, "block overwritten": fill, "cut short": cut, "piece cut out": cut_out,
    "bytes appended": grow,
}  # fmt: skip


def numbers(results: Results) -> Tables:
    """Every table of a store."""
    return {name: results.table(name) for name in FILES}


def same(
    found: dict[str, pl.DataFrame], truth: dict[str, pl.DataFrame], without: pl.DataFrame | None
) -> bool:
    """Whether all tables are as before, but for the rows of one checkpoint."""
    on = ["suite", "model", "seed", "step"]
    for name, frame in truth.items():
        rest = frame if without is None else frame.join(without, on=on, how="anti", maintain_order="left")
        if not found[name].equals(rest):
            return False
    return True


def outcome(store: Path, place: Path, truth: Tables) -> str:
    """What reading a store with one damaged record ends in."""
    try:
        results = select_results(store)
        found = numbers(results)
    except DamagedRecord as error:
        return "named" if str(place) in str(error) else f"error without its path: {error}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:90]
    if not results.damaged:
        return "right numbers" if same(found, truth, None) else "other numbers"
    (damaged,) = results.damaged
    hole = pl.DataFrame([damaged.as_hole()]).select("suite", "model", "seed", "step")
    rest = same(found, truth, hole)
    stored = StoredRecords(store)
    stored.poll()
    if damaged.place != place or not rest or stored.damaged != {place}:
        return "named, but the rest is not as before"
    return "named"


def try_records(store: Path, count: int, *, sums: bool, seed: int = 0) -> Counter[tuple[str, str, str]]:
    """Damage records one at a time; count file, damage and outcome.

    Args:
        store: is changed and put back.
        count: of cases.
        sums: whether the records have their sums, as this version writes them.
        seed: of the choices.
    """
    rng, counts = random.Random(seed), Counter[tuple[str, str, str]]()
    places = list(record_folders(store))
    if not sums:
        for place in places:
            (place / SUMS).unlink(missing_ok=True)
    truth = numbers(select_results(store))
    files = [*(f"{table}.parquet" for table in TABLES), *([SUMS] if sums else [])]
    for _ in range(count):
        place, file, damage = rng.choice(places), rng.choice(files), rng.choice(list(DAMAGES))
        path = place / file
        whole = path.read_bytes()
        path.write_bytes(DAMAGES[damage](whole, rng))
        counts[file, damage, outcome(store, place, truth)] += path.read_bytes() != whole
        path.write_bytes(whole)
    return counts


def print_table(counts: Counter[tuple[str, str, str]], title: str) -> None:
    """Print one row per file and damage, one column per outcome."""
    ends = sorted({end for _, _, end in counts})
    table = Table("file", "damage", *ends, title=title, title_justify="left", box=None)
    for file, damage in sorted({key[:2] for key in counts}):
        table.add_row(file, damage, *(str(counts[file, damage, end]) for end in ends))
    totals = [str(sum(n for key, n in counts.items() if key[2] == end)) for end in ends]
    table.add_row("all", "", *totals)
    Console(width=140).print(table)


def main() -> None:
    """Sweep a small suite, damage 500 of its records with sums and 500 without, and print both tables."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "tracker-store"
        if len(sys.argv) > 2:
            shutil.copytree(sys.argv[2], store)
        else:
            done = tracker(Path(folder), "sweep", *SMALL, "sink=none")
            assert done.returncode == 0, done.stderr
        print_table(try_records(store, count, sums=True), f"{count} damaged records")
        print_table(try_records(store, count, sums=False), f"{count} damaged records of earlier versions")


if __name__ == "__main__":
    main()
