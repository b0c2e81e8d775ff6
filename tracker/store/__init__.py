"""The store: parquet tables of what was measured, what is done, and how far a running sweep is."""

from tracker.store.export import FILES
from tracker.store.ledger import Ledger, read_record, record_folders
from tracker.store.reader import Results, open_store, require_store
from tracker.store.schema import SCHEMAS, SPECTRUM_BANDS, TABLES, conform, safe_name
from tracker.store.writer import Store

__all__ = [
    "FILES",
    "SCHEMAS",
    "SPECTRUM_BANDS",
    "TABLES",
    "Ledger",
    "Results",
    "Store",
    "conform",
    "open_store",
    "read_record",
    "record_folders",
    "require_store",
    "safe_name",
]
