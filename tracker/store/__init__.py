"""The store: parquet tables of what was measured, what is done, and how far a running sweep is."""

from tracker.store.export import FILES
from tracker.store.ledger import Ledger, record_folders
from tracker.store.presence import kept_in_sight
from tracker.store.reader import Results, open_store, require_store, select_results
from tracker.store.record_files import DamagedRecord, load_record, read_record, read_table
from tracker.store.schema import SCHEMAS, SPECTRUM_BANDS, TABLES, conform, safe_name
from tracker.store.unlike import UnlikeRecord
from tracker.store.writer import Store

__all__ = [
    "FILES",
    "SCHEMAS",
    "SPECTRUM_BANDS",
    "TABLES",
    "DamagedRecord",
    "Ledger",
    "Results",
    "Store",
    "UnlikeRecord",
    "conform",
    "kept_in_sight",
    "load_record",
    "open_store",
    "read_record",
    "read_table",
    "record_folders",
    "require_store",
    "safe_name",
    "select_results",
]
