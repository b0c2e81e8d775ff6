"""The store: parquet tables of what was measured, what is done, and how far a running sweep is."""

from tracker.store.export import FILES
from tracker.store.reader import (
    SCHEMAS,
    SPECTRUM_BANDS,
    TABLES,
    Results,
    Store,
    conform,
    open_store,
    read_record,
    record_folders,
    require_store,
    safe_name,
)

__all__ = [
    "FILES",
    "SCHEMAS",
    "SPECTRUM_BANDS",
    "TABLES",
    "Results",
    "Store",
    "conform",
    "open_store",
    "read_record",
    "record_folders",
    "require_store",
    "safe_name",
]
