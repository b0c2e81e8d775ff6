"""Stored tables for pandas, Arrow and DuckDB; each library is needed only where it is asked for."""

from importlib import import_module
from pathlib import Path
from typing import Any

from tracker.errors import RequestError, unknown_value

FILES = {"heads": "heads", "layers": "layers", "sequences": "sequences", "checkpoints": "checkpoint"}
"""By table, the name of its file in a record's folder."""


def library(name: str) -> Any:
    """Import a library that tracker does not depend on.

    Raises:
        RequestError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise RequestError(
            f"{name} is not installed; install it with `python -m pip install {name}`"
        ) from error


def check_table(table: str) -> str:
    """Return the name of one of the four tables.

    Raises:
        RequestError: an unknown table.
    """
    if table not in FILES:
        raise unknown_value("table", table, FILES)
    return table


def duckdb_views(records: tuple[Path, ...], empty: dict[str, Any]) -> Any:
    """Open a DuckDB connection with a view of each table, read from the parquet files in place.

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
