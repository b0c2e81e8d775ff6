"""Engines run many units, here, in worker processes or on dask; any of them may be stopped at any time."""
