"""What a plan will cost: bytes to fetch, memory and time, as far as facts, hub and earlier records tell."""

import contextlib
import json
import math
import os
import platform
import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tracker import facts
from tracker.atomic import save_json
from tracker.checkpoints import files, inspect
from tracker.checkpoints.cached import find
from tracker.config import STREAM
from tracker.errors import CheckpointError, unknown_value
from tracker.planning.simulation import Job
from tracker.records import Checkpoint, PlannedUnit, ProbeSpec
from tracker.store import Store

WIDTHS = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
SIZES = (("num_hidden_layers", "n_layer", "n_layers", "num_layers"), ("hidden_size", "n_embd", "d_model"))
"""Names of the number of layers and of the width in config.json."""
WEIGHTS = (".safetensors", ".bin")
RATES = "rates.json"
"""In a store: bytes and seconds of what each machine has fetched for it."""
PROBE_SIZE = re.compile(r"-(\d+)x(\d+)-[0-9a-f]{8}$")
"""Sequences and tokens of each, as a probe's label ends (``ProbeSpec.label``)."""
USABLE = 0.7
"""Share of free memory that weights may take; the rest is for activations and tiles of attention."""
CGROUPS = (
    ("memory.max", "memory.current", "file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache"),
)
"""Limit and use of a container's memory, and what of the use is cached files; version 2 and version 1."""


@dataclass(frozen=True)
class Need:
    """Bytes that a model's weights take in memory: all at once, and at most when loaded block by block.

    ``blocks`` is None where the files do not tell.
    """

    whole: int
    blocks: int | None


def recorded_rates(store: Store, probe: ProbeSpec) -> dict[str, list[float]]:
    """Seconds per unit that the store has recorded, by ``model seed s``; fetching is not in them.

    Args:
        store: with the records.
        probe: what is to be measured. A model's records of other probes count, by their tokens, only where
            it has none of this one.
    """
    rates: dict[str, list[float]] = {}
    scaled: dict[str, list[float]] = {}
    for record in store.recorded().values():
        size = PROBE_SIZE.search(record.probe)
        if record.seconds is None or size is None:
            continue
        found = rates if record.probe == probe.label else scaled
        tokens = int(size[1]) * int(size[2])
        seconds = record.seconds * probe.number * probe.n / tokens
        found.setdefault(f"{record.model} seed {record.seed}", []).append(seconds)
    return scaled | rates


def transfer_rate(store: Path) -> float | None:
    """Bytes per second at which this machine has fetched for a store; None where it never has."""
    noted = _read_json(store / RATES).get(platform.node())
    return noted["bytes"] / noted["seconds"] if noted and noted.get("seconds") else None


def note_transfer(store: Path, received: int, seconds: float) -> None:
    """Notes how much came over the network and how long that took; older notes count half."""
    if received <= 0 or seconds <= 0:
        return
    known = _read_json(store / RATES)
    before = known.get(platform.node(), {})
    total = {
        "bytes": received + before.get("bytes", 0) / 2,
        "seconds": seconds + before.get("seconds", 0) / 2,
    }
    with contextlib.suppress(OSError):  # a forecast is not worth a failure
        save_json(store / RATES, known | {platform.node(): total})


@dataclass(frozen=True)
class Costs:
    """What one model's pending units cost; None where nothing tells."""

    count: int
    """Units that there is something to measure of."""
    lacking: int
    """Of them, those that have to be fetched."""
    largest: float | None
    """Bytes of one checkpoint, where any has to be fetched."""
    each: float | None
    """Seconds of measuring one."""

    @property
    def fetch(self) -> float | None:
        """Bytes to fetch."""
        return None if self.largest is None else self.largest * self.lacking

    @property
    def measure(self) -> float | None:
        """Seconds of measuring them all, one after the other."""
        return self.each * self.count if self.each is not None else None if self.count else 0.0

    def jobs(self, name: str) -> list[Job] | None:
        """One per unit, those first that are there already; None where nothing tells.

        Args:
            name: of the model.
        """
        if self.measure is None or self.fetch is None:
            return None
        there = [Job(name, self.each or 0.0)] * (self.count - self.lacking)
        return there + [Job(name, self.each or 0.0, self.largest or 0.0)] * self.lacking


def costs_of(
    name: str,
    units: list[PlannedUnit],
    rates: Mapping[str, list[float]],
    cache: Path,
    speed: float | None = None,
) -> Costs:
    """What one model's pending units cost.

    Args:
        name: ``model seed s``.
        units: its units; those whose files the cache holds are not fetched.
        rates: from ``recorded_rates``.
        cache: the cache's folder.
        speed: parameters times tokens that are measured in a second; None: what ``rates`` tell.
    """
    pending = [planned for planned in units if planned.pending]
    there = [planned.unit for planned in pending if planned.unit.checkpoint.exists is not False]
    remote = [unit.checkpoint for unit in there if unit.checkpoint.kind == "hub"]
    lacking = [each for each in remote if find(each, cache) is None]
    size = checkpoint_bytes(lacking[0]) if lacking else 0.0
    each = _seconds(name, rates) if speed is None else None
    if there and speed is not None and (need := expected_need(pending, there[0].dtype)) is not None:
        probe = there[0].probe
        each = need.whole / WIDTHS[there[0].dtype] * probe.n * probe.number / speed
    return Costs(len(there), len(lacking), size, each)


def _seconds(name: str, rates: Mapping[str, list[float]]) -> float | None:
    """Seconds of measuring one; of a size not measured yet, by its parameters against those that were."""
    if rates.get(name):
        return statistics.median(rates[name])
    table = facts.table("pythia_suite")
    sizes = dict(zip(table["size"], table["params_total"], strict=True))
    model = name.partition(" seed ")[0]
    if model not in sizes:
        return None
    known = [
        statistics.median(each) / sizes[other]
        for label, each in rates.items()
        if each and (other := label.partition(" seed ")[0]) in sizes
    ]
    return sizes[model] * statistics.median(known) if known else None


def checkpoint_bytes(checkpoint: Checkpoint) -> float | None:
    """Bytes of a checkpoint on the hub: Pythia's from its table of facts, others from the hub's answer.
    None where the hub does not say."""
    sizes = facts.table("pythia_suite")
    known = sizes.filter(sizes["size"] == checkpoint.model)["fp16_bytes"]
    if "/pythia-" in checkpoint.location and len(known):
        return float(known[0])
    try:
        return float(inspect(checkpoint).size)
    except CheckpointError:
        return None


def memory_needed(folder: Path, dtype: str) -> Need:
    """Memory for the weights of a checkpoint on this machine, from its files' sizes and configuration.

    Args:
        folder: in Hugging Face layout.
        dtype: what the weights are loaded as.
    """
    config = _read_json(folder / "config.json")
    _, heavy = files.needed([path.name for path in folder.iterdir()]) if folder.is_dir() else ([], [])
    counts = [_numbers(folder / name, config) for name in heavy if name.endswith(WEIGHTS)]
    return _need(sum(counts), config, WIDTHS[dtype])


def _numbers(path: Path, config: dict[str, Any]) -> int:
    """How many numbers a weight file holds: exact for safetensors, else by the dtype it claims."""
    try:
        if path.suffix == ".safetensors":
            return sum(math.prod(shape) for shape in files.read_header(path).shapes.values())
        size = path.stat().st_size
    except (OSError, ValueError):
        return 0
    stored = str(config.get("torch_dtype") or config.get("dtype") or "float32")
    return size // WIDTHS.get(stored, 4)


def _need(numbers: int, config: dict[str, Any], width: int) -> Need:
    """The vocabulary's tables are one piece, the other numbers are spread evenly over the blocks."""
    layers, hidden = (next((config[name] for name in names if name in config), 0) for names in SIZES)
    if not layers or not hidden:
        return Need(numbers * width, None)
    table = int(config.get("vocab_size", 0)) * int(hidden)
    block = max(numbers - table, 0) // int(layers)
    return Need(numbers * width, min(numbers, max(3 * block, 2 * table)) * width)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def free_memory() -> int:
    """Bytes that this process may still take: of the machine's memory, or its container's if less."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([free, *(left for folder in _own_cgroups() if (left := _cgroup_left(folder)) is not None)])


def _own_cgroups() -> list[Path]:
    root = Path("/sys/fs/cgroup")
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    found = [root, root / "memory"]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            own = root / controllers / path.lstrip("/")
            found += [own, *(above for above in own.parents if root in above.parents)]
    return found


def _cgroup_left(folder: Path) -> int | None:
    """Bytes until a control group's limit; files it has cached are given back by the system when needed."""
    for limit, used, cached in CGROUPS:
        try:
            bound, taken = int((folder / limit).read_text()), int((folder / used).read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            return max(0, bound - taken + int(stat.get(cached, 0)))
        except (OSError, ValueError):
            continue
    return None


def how_to_run(need: Need, free: int, stream: str = "auto") -> Literal["whole", "blocks"]:
    """Whether a model is loaded whole or block by block.

    Args:
        need: from ``memory_needed``.
        free: bytes free where the model is to be.
        stream: ``auto`` decides by these two; ``always`` and ``never`` decide alone.

    Raises:
        RequestError: another value of ``stream``.
    """
    if stream not in STREAM:
        raise unknown_value("engine.stream", stream, STREAM)
    if stream == "auto":
        return "whole" if need.whole <= USABLE * free else "blocks"
    return "blocks" if stream == "always" else "whole"


def run_in_words(need: Need | None, free: int, stream: str) -> str:
    """``whole, 2.1 GB`` or ``by blocks, 0.6 GB``: how a model will be run, and what its weights take."""
    if need is None:
        return "?"
    how = how_to_run(need, free, stream)
    taken = need.whole if how == "whole" else need.blocks
    size = "?" if taken is None else f"{taken / 1e9:.1f} GB" if taken >= 1e9 else f"{taken / 1e6:.0f} MB"
    return f"{'whole' if how == 'whole' else 'by blocks'}, {size}"


def expected_need(units: list[PlannedUnit], dtype: str) -> Need | None:
    """Memory for one model's weights, from its first checkpoint that is there; None where nothing tells.

    For checkpoints on the hub this is Pythia's table of facts, or the size of the files there, taken as half
    precision: what is stored as float32 then needs half of that.
    """
    there = [planned.unit.checkpoint for planned in units if planned.unit.checkpoint.exists is not False]
    if not there:
        return None
    first, width = there[0], WIDTHS[dtype]
    if first.kind == "folder":
        need = memory_needed(Path(first.location) / first.revision, dtype)
        return need if need.whole else None
    sizes = facts.table("pythia_suite")
    known = sizes.filter(sizes["size"] == first.model)
    if "/pythia-" in first.location and len(known):
        row = known.row(0, named=True)
        shape = {
            "num_hidden_layers": row["layers"],
            "hidden_size": row["d_model"],
            "vocab_size": row["vocab_rows"],
        }
        return _need(int(row["params_total"]), shape, width)
    try:
        files = [file for file in inspect(first).files if file.name.endswith(WEIGHTS)]
    except CheckpointError:
        return None
    return Need(sum(file.size for file in files) // 2 * width, None)
