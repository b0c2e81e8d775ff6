"""``tracker plan``: what a sweep would do, at what cost."""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console

from tracker.checkpoints import CheckpointCache
from tracker.checkpoints.audit import file as audit_file
from tracker.checkpoints.audit.findings import SUSPICIOUS
from tracker.checkpoints.audit.register import reports
from tracker.commands.audit import brief_steps
from tracker.config import Config
from tracker.console.output import (
    DONE,
    print_damaged,
    print_holes,
    print_line,
    print_table,
    readable_bytes,
    readable_time,
)
from tracker.console.tables import by_model, plan_table
from tracker.engines.placement import worker_count
from tracker.errors import counted
from tracker.planning.estimate import Costs, costs_of, duration, recorded_rates, transfer_rate
from tracker.planning.memory import Need, expected_need, free_memory, how_to_run
from tracker.planning.resolve import ResolvedSweep, checkpoint_cache, resolve, suite_name
from tracker.records import Checkpoint, PlannedUnit

UNKNOWN = {
    "speed": "no throughput recorded yet: sweep one checkpoint (steps.list=[0]), or give forecast.speed=... "
    "(billions of parameters times tokens in a second, some 40 on one processor core)",
    "bandwidth": "no download recorded yet: sweep one checkpoint (steps.list=[0]), or give "
    "forecast.bandwidth=... (MB in a second, such as 50)",
}
"""What would tell how long a sweep takes, by what is not known."""
LEAST_HOURS = 0.01
"""Worker hours worth a mention where nothing has to be fetched."""


def run(config: Config, console: Console) -> int:
    """Print what a sweep would do; touch nothing."""
    sweep = resolve(config, ask=True)
    groups, cache = by_model(sweep.plan.units), checkpoint_cache(config)
    rates = recorded_rates(sweep.ledger, sweep.probe)
    speed = None if config.forecast.speed is None else config.forecast.speed * 1e9
    costs = {name: costs_of(name, units, rates, cache, speed) for name, units in groups.items()}
    suspects = {name: _suspects(config, units) for name, units in groups.items()}
    free = free_memory()
    rows = {
        name: (
            str(len(suspects[name])),
            _how_run(expected_need(units, config.dtype), free, config.engine.stream),
            _approximate(costs[name].fetch, readable_bytes),
            _approximate(costs[name].measure, readable_time),
        )
        for name, units in groups.items()
    }
    workers = worker_count(config)
    print_line(console, opening(config, sweep))
    print_damaged(console, sweep.ledger.damaged)
    print_table(console, plan_table(sweep.plan, rows))
    for note in sweep.notes:
        print_line(console, note)
    if sweep.plan.pending:
        for sentence in _disk(config, list(costs.values()), cache, workers):
            print_line(console, sentence)
        print_line(console, expected_time(config, costs, workers))
    else:
        print_line(console, "nothing to measure")
    holes = [each for each in sweep.plan.units if each.state in ("missing", "known missing", "retry")]
    print_holes(console, list(holes))
    for sentence in _suspect_sentences(suspects):
        print_line(console, sentence)
    return DONE


def opening(config: Config, sweep: ResolvedSweep) -> str:
    """Return the first line of plan and sweep: how many checkpoints there are, and how many are measured."""
    plan = sweep.plan
    runs = len(by_model(plan.units))
    models = len({planned.unit.checkpoint.model for planned in plan.units})
    seeds = f" ({runs} runs)" if runs > models else ""
    return (
        f"{suite_name(config)}: {counted(len(plan.units), 'checkpoint')} of {counted(models, 'model')}"
        f"{seeds}, {plan.count('done')} measured, {len(plan.pending)} to measure, into {config.store}"
    )


def expected_time(config: Config, costs: Mapping[str, Costs], workers: int) -> str:
    """Return how long a sweep would take with so many workers, and what bounds it; or what is unknown."""
    given = config.forecast
    bandwidth = transfer_rate(config.store) if given.bandwidth is None else given.bandwidth * 1e6
    found = duration(list(costs.values()), workers, bandwidth)
    if found == "size" or (found == "speed" and given.speed is not None):
        lacking = "fetch" if found == "size" else "measure"
        unknown = [name for name, each in costs.items() if getattr(each, lacking) is None]
        return f"expected time: ?; the size of {', '.join(unknown)} is unknown"
    if isinstance(found, str):
        return f"expected time: ?; {UNKNOWN[found]}"
    if not found.seconds:
        return "expected time: 0 s"
    assumed = [f"forecast.{name}={value:g}" for name, value in vars(given).items() if value is not None]
    at = " ".join(assumed) or "the throughput this store has recorded"
    bound = (
        "compute-bound; add workers"
        if found.measuring >= found.fetching
        else "network-bound; more workers will not help"
    )
    hours = found.measuring * workers / 3600
    parts = [f"{hours:.3g} worker hours"] if hours >= LEAST_HOURS or found.fetching else []
    parts += [f"{readable_time(found.fetching)} of download"] if found.fetching else []
    return (
        f"expected time: ~{readable_time(found.seconds)} with {counted(workers, 'worker')} at {at}: "
        f"{'; '.join([', '.join(parts), bound] if parts else [bound])}"
    )


def _disk(config: Config, costs: Sequence[Costs], cache: CheckpointCache, workers: int) -> list[str]:
    """Return what is fetched, how much disk it takes at most, and whether the disk has that."""
    fetches = [each.fetch for each in costs]
    fetch = None if None in fetches else sum(each for each in fetches if each is not None)
    # Local workers share one line of checkpoints fetched ahead; dask workers fetch each for itself.
    engine = config.engine
    at_once = engine.prefetch * (workers if engine.name == "dask" else 1) + workers
    largest = max((each.largest for each in costs if each.largest is not None), default=0.0)
    if cache.max_bytes is None:
        peak, why = fetch, "everything fetched stays; cache.max_gb=N removes what is measured"
    else:
        peak = min(float(cache.max_bytes), at_once * largest, math.inf if fetch is None else fetch)
        why = f"up to {at_once} checkpoints at once, removed when measured"
    disk = f"; peak disk: {_approximate(peak, readable_bytes)} ({why})"
    told = f"to fetch: {_approximate(fetch, readable_bytes)}{_left_out(costs)}{disk}"
    sentences = [told] if fetch != 0 else []
    place = next((each for each in (cache.folder, *cache.folder.parents) if each.is_dir()), None)
    free = shutil.disk_usage(place).free if place is not None else None
    if peak is not None and free is not None and peak > free:
        sentences.append(f"the disk of {cache.folder} has {readable_bytes(free)} free: set cache.max_gb")
    if cache.max_bytes is not None and largest > cache.max_bytes:
        sentences.append(f"cache.max_gb={config.cache.max_gb:g} is less than one checkpoint: raise it")
    return sentences


def _left_out(costs: Sequence[Costs]) -> str:
    """Return how much all files are, where part of them is fetched."""
    if not any(each.whole for each in costs):
        return ""
    whole = sum((each.whole or each.largest or 0.0) * each.lacking for each in costs)
    return f" of {readable_bytes(whole)} (without the loss no unembedding is needed)"


def _how_run(need: Need | None, free: int, stream: str) -> str:
    """``whole, 2.1 GB`` or ``by blocks, 0.6 GB``: how a model will be run, and what its weights take."""
    if need is None:
        return "?"
    whole = how_to_run(need, free, stream) == "whole"
    taken = need.whole if whole else need.blocks
    return f"{'whole' if whole else 'by blocks'}, {'?' if taken is None else readable_bytes(taken)}"


def _suspects(config: Config, units: Sequence[PlannedUnit]) -> dict[int, str]:
    """Return step -> reason of planned checkpoints that an audit, or else a published report, doubts."""
    known = audit_file.suspects(config.store)
    audited = audit_file.read(config.store)
    found: dict[int, str] = {}
    for planned in units:
        checkpoint = planned.unit.checkpoint
        reason = known.of(checkpoint)
        audit = audited.get(audit_file.placed(checkpoint.location))
        looked_at = set() if audit is None else {each.name for each in audit.revisions}
        if reason is None and checkpoint.kind == "hub" and checkpoint.revision not in looked_at:
            reason = _reported(checkpoint)
        if reason is not None:
            found[checkpoint.step] = reason
    return found


def _reported(checkpoint: Checkpoint) -> str | None:
    for each in reports(checkpoint.location):
        if each.covers(checkpoint.step) and set(each.shows) & set(SUSPICIOUS):
            return f"suspect: {each.fault} (reported in {each.source}; not audited here yet)"
    return None


def _suspect_sentences(suspects: Mapping[str, Mapping[int, str]]) -> list[str]:
    """Return one sentence per model and reason, with the steps that it is about."""
    sentences = []
    for name, found in suspects.items():
        reasons: dict[str, list[int]] = {}
        for step, reason in found.items():
            reasons.setdefault(reason, []).append(step)
        sentences += [f"  {name} step {brief_steps(steps)}: {reason}" for reason, steps in reasons.items()]
    return sentences


def _approximate(amount: float | None, readable: Callable[[float], str]) -> str:
    if amount is None:
        return "?"
    return f"~{readable(amount)}" if amount else readable(0)
