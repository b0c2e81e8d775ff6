"""What a plan will cost: bytes to fetch and time, as far as facts, hub and earlier records tell."""

import statistics

from tracker import facts
from tracker.checkpoints import inspect
from tracker.errors import CheckpointError
from tracker.records import PlannedUnit
from tracker.store import Store


def recorded_rates(store: Store) -> dict[str, list[float]]:
    """Seconds per unit that the store has recorded, by ``model seed s``; fetching is not in them."""
    rates: dict[str, list[float]] = {}
    for record in store.recorded().values():
        if record.seconds is not None:
            rates.setdefault(f"{record.model} seed {record.seed}", []).append(record.seconds)
    return rates


def expected_seconds(units: list[PlannedUnit], rates: list[float] | None) -> float | None:
    """Seconds that one model's pending units take; None where there is no rate for the model yet."""
    pending = sum(planned.pending for planned in units)
    if not pending:
        return 0.0
    return pending * statistics.median(rates) if rates else None


def bytes_to_fetch(units: list[PlannedUnit]) -> float | None:
    """Bytes of one model's pending checkpoints: Pythia's from its table of facts, others from the hub's
    answer for the first of them. None where the hub does not say."""
    pending = [planned.unit.checkpoint for planned in units if planned.pending]
    remote = [each for each in pending if each.kind == "hub" and each.exists is not False]
    if not remote:
        return 0.0
    sizes = facts.table("pythia_suite")
    known = sizes.filter(sizes["size"] == remote[0].model)["fp16_bytes"]
    if "/pythia-" in remote[0].location and len(known):
        return float(known[0]) * len(remote)
    try:
        return float(sum(file.size for file in inspect(remote[0]).files) * len(remote))
    except CheckpointError:
        return None
