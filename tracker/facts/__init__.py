"""Facts carried as data, each file with its source in its first line, and a typed reader."""

from pathlib import Path

import polars as pl

FOLDER = Path(__file__).parent
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.csv")))


def table(name: str) -> pl.DataFrame:
    """One table of facts, typed by its content.

    Args:
        name: file name without ``.csv``, one of ``NAMES``.

    Raises:
        KeyError: there is no such table; the message lists those there are.
    """
    if name not in NAMES:
        raise KeyError(f"no table {name!r}; there are {', '.join(NAMES)}")
    return pl.read_csv(FOLDER / f"{name}.csv", comment_prefix="#", infer_schema_length=None, glob=False)


def source(name: str) -> str:
    """The first line of a table's file, which says where its figures come from."""
    with open(FOLDER / f"{name}.csv", encoding="utf-8") as file:
        return file.readline().lstrip("# ").strip()
