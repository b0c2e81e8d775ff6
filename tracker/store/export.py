"""Stored tables in the hands of pandas, Arrow and DuckDB; each is needed only where it is asked for."""

from importlib import import_module
from pathlib import Path
from typing import Any

from tracker.errors import RequestError, unknown_value

FILES = {"heads": "heads", "layers": "layers", "sequences": "sequences", "checkpoints": "checkpoint"}
"""Name of each table, and of its file in a record's folder."""


def library(name: str) -> Any:
    """A library that tracker does not need by itself.

    Raises:
        RequestError: it is not installed; says how to install it.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise RequestError(f"{name} is not installed; `python -m pip install {name}` installs it") from error


def check_table(table: str) -> str:
    """The name of one of the four tables.

    Raises:
        RequestError: there is no such table.
    """
    if table not in FILES:
        raise unknown_value("table", table, FILES)
    return table


def duckdb_views(records: tuple[Path, ...], empty: dict[str, Any]) -> Any:
    """A DuckDB connection in memory with a view of each table, read from the parquet files where they lie.

    Args:
        records: folders of the records.
        empty: by table a polars frame without rows, for a store without records.

    Raises:
        RequestError: duckdb is not installed.
    """
    connection = library("duckdb").connect()
    for table, file in FILES.items():
        paths = [str(place / f"{file}.parquet") for place in records]
        if paths:
            relation = connection.read_parquet(paths, union_by_name=True)
        else:
            relation = connection.from_arrow(empty[table].to_arrow())
        relation.create_view(table)
    return connection
