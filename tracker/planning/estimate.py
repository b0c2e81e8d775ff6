"""Estimate what a plan costs, bytes and seconds: from published facts, the hub and earlier records."""

import contextlib
import platform
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

from tracker import facts
from tracker.atomic import update_json
from tracker.checkpoints import CheckpointCache, inspect, size
from tracker.errors import CheckpointError
from tracker.planning.memory import WIDTHS, expected_need, pythia_facts
from tracker.records import Checkpoint, PlannedUnit, ProbeSpec, Recorded, RecordId
from tracker.side_files import read_typed, set_damaged_aside

RATES = "rates.json"
"""In a store: bytes and seconds of what each machine has fetched for it."""


class Rate(TypedDict):
    """What one machine has fetched."""

    bytes: float
    seconds: float


Rates = dict[str, Rate]
PROBE_SIZE = re.compile(r"-(\d+)x(\d+)-[0-9a-f]{8}$")
"""Sequences and tokens of each, as a probe's label ends (``ProbeSpec.label``)."""


def recorded_rates(ledger: Mapping[RecordId, Recorded], probe: ProbeSpec) -> dict[str, list[float]]:
    """Collect the recorded seconds per unit by ``model seed s``; fetching is not in them.

    Args:
        ledger: the store's records.
        probe: what is to be measured. A model's records of other probes count, scaled by their tokens, only
            where it has none of this one.
    """
    rates: dict[str, list[float]] = {}
    scaled: dict[str, list[float]] = {}
    for record in ledger.values():
        size = PROBE_SIZE.search(record.probe)
        if record.seconds is None or size is None:
            continue
        found = rates if record.probe == probe.label else scaled
        tokens = int(size[1]) * int(size[2])
        seconds = record.seconds * probe.number * probe.n / tokens
        found.setdefault(f"{record.model} seed {record.seed}", []).append(seconds)
    return scaled | rates


def transfer_rate(store: Path) -> float | None:
    """Return the bytes per second at which this machine has fetched for a store; None where it never has."""
    noted = read_typed(store / RATES, Rates, {}).get(platform.node())
    return noted["bytes"] / noted["seconds"] if noted and noted["seconds"] > 0 else None


def note_transfer(store: Path, received: int, seconds: float) -> None:
    """Record how much came over the network and how long that took; older notes count half."""
    if received <= 0 or seconds <= 0:
        return

    def added(known: dict[str, Any]) -> dict[str, Any]:
        before = known.get(platform.node(), {})
        total = {
            "bytes": received + before.get("bytes", 0) / 2,
            "seconds": seconds + before.get("seconds", 0) / 2,
        }
        return known | {platform.node(): total}

    with contextlib.suppress(OSError):  # an estimate is not worth a failure
        set_damaged_aside(store / RATES, Rates)
        update_json(store / RATES, added)


@dataclass(frozen=True)
class Costs:
    """What one model's pending units cost; None where it is unknown."""

    count: int
    """Units that exist."""
    lacking: int
    """Of them, those that have to be fetched."""
    largest: float | None
    """Bytes of one checkpoint, where any has to be fetched."""
    each: float | None
    """Seconds of measuring one."""
    whole: float | None = None
    """Bytes of all files of one checkpoint, where part of them is fetched."""

    @property
    def fetch(self) -> float | None:
        """Bytes to fetch."""
        return None if self.largest is None else self.largest * self.lacking

    @property
    def measure(self) -> float | None:
        """Seconds of measuring them all, one after the other."""
        return self.each * self.count if self.each is not None else None if self.count else 0.0


def costs_of(
    name: str,
    units: list[PlannedUnit],
    rates: Mapping[str, list[float]],
    cache: CheckpointCache,
    speed: float | None = None,
) -> Costs:
    """Estimate what one model's pending units cost.

    Args:
        name: ``model seed s``.
        units: its units; those whose files the cache holds are not fetched.
        rates: from ``recorded_rates``.
        cache: where checkpoints of the hub go.
        speed: parameters times tokens that are measured in a second; None: what ``rates`` say.
    """
    pending = [planned for planned in units if planned.pending]
    present = [planned.unit for planned in pending if planned.unit.checkpoint.exists is not False]
    remote = [unit.checkpoint for unit in present if unit.checkpoint.kind == "hub"]
    lacking = [each for each in remote if cache.find(each) is None]
    whole, fetched = checkpoint_bytes(lacking[0], head=cache.head) if lacking else (0.0, 0.0)
    each = _seconds(name, rates) if speed is None else None
    if present and speed is not None and (need := expected_need(pending, present[0].dtype)) is not None:
        probe = present[0].probe
        each = need.whole / WIDTHS[present[0].dtype] * probe.n * probe.number / speed
    return Costs(len(present), len(lacking), fetched, each, whole if whole != fetched else None)


def _seconds(name: str, rates: Mapping[str, list[float]]) -> float | None:
    """Return the seconds of measuring one: of another seed where this one is not measured, of an unmeasured
    Pythia size scaled by parameters from others."""
    model = name.partition(" seed ")[0]
    alike = [each for label, rate in rates.items() if label.partition(" seed ")[0] == model for each in rate]
    if rates.get(name) or alike:
        return statistics.median(rates.get(name) or alike)
    table = facts.table("pythia_suite")
    sizes = dict(zip(table["size"], table["params_total"], strict=True))
    if model not in sizes:
        return None
    known = [
        statistics.median(each) / sizes[other]
        for label, each in rates.items()
        if each and (other := label.partition(" seed ")[0]) in sizes
    ]
    return sizes[model] * statistics.median(known) if known else None


def checkpoint_bytes(checkpoint: Checkpoint, *, head: bool) -> tuple[float | None, float | None]:
    """Return the bytes of a checkpoint on the hub: of its files, and those of them that are fetched.

    Args:
        checkpoint: on the hub.
        head: whether its unembedding is needed.

    Returns:
        Pythia's files from its table of facts, all else from the hub's answers; None where it gives none.
    """
    row = pythia_facts(checkpoint)
    try:
        if not head:
            return size(checkpoint)
        whole = float(row["fp16_bytes"]) if row else float(inspect(checkpoint).size)
    except CheckpointError:
        whole = float(row["fp16_bytes"]) if row else None
    return whole, whole


Lacking = Literal["size", "speed", "bandwidth"]
"""What an estimate lacks: the size of some checkpoint, the workers' speed, the network's bandwidth."""


@dataclass(frozen=True)
class Duration:
    """How long a sweep takes at least: fetching and measuring overlap, so the longer of the two."""

    measuring: float
    """Seconds of measuring, divided among the workers."""
    fetching: float
    """Seconds of fetching everything over one link."""

    @property
    def seconds(self) -> float:
        """The longer of the two."""
        return max(self.measuring, self.fetching)


def duration(costs: Sequence[Costs], workers: int, bandwidth: float | None) -> Duration | Lacking:
    """Estimate how long a sweep takes, or name what the estimate lacks.

    Args:
        costs: of every model.
        workers: that measure at once.
        bandwidth: bytes per second of all downloads together, None where it is unknown.
    """
    sizes, seconds = [each.fetch for each in costs], [each.measure for each in costs]
    if None in sizes:
        return "size"
    if None in seconds:
        return "speed"
    fetch, measure = (sum(each for each in amounts if each is not None) for amounts in (sizes, seconds))
    if fetch and bandwidth is None:
        return "bandwidth"
    return Duration(measuring=measure / workers, fetching=fetch / bandwidth if bandwidth else 0.0)
