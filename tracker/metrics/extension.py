"""The names that tests/conftest.py takes from here."""

from tracker.metrics.registry import forget, registered_identities

__all__ = ["forget", "registered_identities"]
