"""The verbs that look before anything is measured, plan and audit, and what a sweep does first."""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console

from tracker.checkpoints import CheckpointCache, Listed, cache_folder, look
from tracker.checkpoints.audit import file as audit_file
from tracker.checkpoints.audit.findings import SUSPICIOUS
from tracker.checkpoints.audit.register import reports
from tracker.config import Config, PublishedSuite
from tracker.console.terminal import (
    DONE,
    SOME_FAILED,
    Bars,
    audit_table,
    by_model,
    plan_table,
    readable_bytes,
    readable_time,
    say,
    tell_findings,
    tell_holes,
)
from tracker.errors import CheckpointError, RequestError, counted
from tracker.planning.estimate import (
    Costs,
    costs_of,
    expected_need,
    free_memory,
    recorded_rates,
    run_in_words,
    transfer_rate,
)
from tracker.planning.plan import select
from tracker.planning.resolve import ResolvedSweep, available, resolve, suite_name
from tracker.planning.simulation import Machines, play
from tracker.records import Checkpoint, PlannedUnit
from tracker.store import Store


def cache_of(config: Config) -> CheckpointCache:
    """The cache of a request, with its bound."""
    bound = None if config.cache.max_gb is None else int(config.cache.max_gb * 1e9)
    return CheckpointCache(cache_folder(config.cache.folder), bound)


def look_first(config: Config, surveyed: ResolvedSweep, console: Console) -> Listed | None:
    """Asks the hub, once a repository and once a checkpoint, what the pending units are; audits that.

    Returns:
        The answers; None where nothing of the plan's pending units is on the hub.
    """
    pending = [planned.unit.checkpoint for planned in surveyed.plan.pending]
    remote = [each for each in pending if each.kind == "hub" and each.exists is not False]
    if not remote:
        return None
    from tracker.checkpoints.audit.inspect import audit_listed

    listed = look(remote)
    entries = audit_listed(config, [planned.unit.checkpoint for planned in surveyed.plan.units], listed)
    suspicious = [each for entry in entries for each in entry.findings if each.fault in SUSPICIOUS]
    if suspicious:
        say(
            console,
            f"checkpoint audit: {counted(len(suspicious), 'finding')}; suspect checkpoints are measured, "
            "marked, and left out of fits (view.suspects=true uses them):",
        )
        tell_findings(console, suspicious)
    return listed


def audit(config: Config, console: Console) -> int:
    """Verify that checkpoint weights match their names. Table and audit.json; 1 where any does not."""
    from tracker.checkpoints.audit.inspect import audit_all

    chosen = select(available(config), config.steps)
    if isinstance(config.suite, PublishedSuite) and config.steps.name == "all":
        chosen = available(config)
    bars = Bars(console, "auditing")

    def moved(name: str, done: int, total: int) -> None:
        bars.show(name, done, total)

    try:
        with bars.running():
            entries = audit_all(config, chosen, moved)
    except CheckpointError as error:
        raise RequestError(str(error)) from error
    console.print(audit_table(entries))
    found = [each for entry in entries for each in entry.findings]
    bad = [each for each in found if each.fault != "expected-twin"]
    tell_findings(console, bad, most=None)
    for entry in entries:
        for each in entry.disagreements:
            steps = ", ".join(map(str, each.steps[:8])) + (" ..." if len(each.steps) > 8 else "")
            say(
                console,
                f"{entry.repo} step {steps}: reported in {each.source} ({each.reported}); the hub {each.hub}",
            )
    say(console, f"Details: {config.store / audit_file.NAME}")
    return SOME_FAILED if bad else DONE


def plan(config: Config, console: Console) -> int:
    """Says what a sweep would do; touches nothing."""
    surveyed = resolve(config, ask=True)
    groups = by_model(surveyed.plan.units)
    store, cache = Store(config.store), cache_of(config)
    rates = recorded_rates(store, surveyed.probe)
    speed = None if config.forecast.speed is None else config.forecast.speed * 1e9
    costs = {name: costs_of(name, units, rates, cache.folder, speed) for name, units in groups.items()}
    suspects = {name: _suspects(config, units) for name, units in groups.items()}
    free = free_memory()
    rows = {
        name: (
            str(len(suspects[name])),
            run_in_words(expected_need(units, config.dtype), free, config.engine.stream),
            _told(costs[name].fetch, readable_bytes),
            _told(costs[name].measure, readable_time),
        )
        for name, units in groups.items()
    }
    console.print(plan_table(surveyed.plan, rows))
    say(console, opening(config, surveyed))
    for sentence in [*_outlook(config, list(costs.values()), cache), *expected_time(config, costs)]:
        say(console, sentence)
    holes = [each for each in surveyed.plan.units if each.state in ("missing", "known missing", "retry")]
    tell_holes(console, list(holes))
    for sentence in _suspect_sentences(suspects):
        say(console, sentence)
    return DONE


def opening(config: Config, surveyed: ResolvedSweep) -> str:
    """The first line of plan and sweep: how much there is, and how much of it is done."""
    done = surveyed.plan
    models = len(by_model(done.units))
    return (
        f"{suite_name(config)}: {counted(len(done.units), 'checkpoint')} of {counted(models, 'model')}, "
        f"{done.count('done')} measured, {len(done.pending)} to measure, into {config.store}"
    )


def _outlook(config: Config, costs: Sequence[Costs], cache: CheckpointCache) -> list[str]:
    fetch = _total([each.fetch for each in costs])
    ahead = fetched_ahead(config) + (config.engine.workers or 1)
    largest = max((each.largest for each in costs if each.largest is not None), default=0.0)
    if cache.max_bytes is None:
        peak, why = fetch, "everything fetched stays; cache.max_gb=N removes what is measured"
    else:
        peak = min(float(cache.max_bytes), ahead * largest, math.inf if fetch is None else fetch)
        why = f"up to {ahead} checkpoints at once, removed when measured"
    told = [
        f"to fetch: {_told(fetch, readable_bytes)}"
        + (f"; peak disk: {_told(peak, readable_bytes)} ({why})" if fetch != 0 else ""),
    ]
    place = next((each for each in (cache.folder, *cache.folder.parents) if each.is_dir()), None)
    free = shutil.disk_usage(place).free if place is not None else None
    if peak is not None and free is not None and peak > free:
        told.append(f"the disk of {cache.folder} has {readable_bytes(free)} free: set cache.max_gb")
    if cache.max_bytes is not None and largest > cache.max_bytes:
        told.append(f"cache.max_gb={config.cache.max_gb:g} is less than one checkpoint: raise it")
    return told


LIMITS = {
    "measuring": "measuring limits: more workers end it sooner",
    "fetching": "fetching limits: more workers would wait with these",
    "both": "measuring and fetching limit alike",
    "the last units": "workers wait for the last units: more of them gain little",
}


def expected_time(config: Config, costs: Mapping[str, Costs]) -> list[str]:
    """How long a sweep would take with the workers of the request, and what limits it."""
    bandwidth = transfer_rate(config.store)
    if config.forecast.bandwidth is not None:
        bandwidth = config.forecast.bandwidth * 1e6
    jobs = [each.jobs(name) for name, each in costs.items()]
    known = [job for of_model in jobs if of_model is not None for job in of_model]
    measure = _total([each.measure for each in costs.values()])
    fetches = any(job.bytes for job in known)
    if any(each is None for each in jobs) or (fetches and bandwidth is None):
        lacking = "forecast.speed" if measure is None else "forecast.bandwidth"
        return [f"expected time: ?; this store has recorded no rate to tell by: give {lacking}=..."]
    if not known:
        return ["expected time: 0 s"]
    workers = config.engine.workers or 1
    machines = Machines(workers, bandwidth or math.inf, fetched_ahead(config))
    course = play(known, machines)
    assumed = [f"{name}={value:g}" for name, value in vars(config.forecast).items() if value is not None]
    at = f"forecast.{' forecast.'.join(assumed)}" if assumed else "the rates this store has recorded"
    return [
        f"expected time: ~{readable_time(course.seconds)} with {counted(workers, 'worker')} at {at}: "
        f"{_hours(measure)} of measuring; {LIMITS[course.limit]} (busy: workers {course.measuring:.0%}, "
        f"network {course.fetching:.0%})"
    ]


def fetched_ahead(config: Config) -> int:
    """Checkpoints that wait on disk besides those being measured: dask workers fetch each for itself."""
    engine = config.engine
    return engine.prefetch * ((engine.workers or 1) if engine.name == "dask" else 1)


def _hours(seconds: float | None) -> str:
    return "?" if seconds is None else f"{seconds / 3600:.3g} worker hours"


def _suspects(config: Config, units: Sequence[PlannedUnit]) -> dict[int, str]:
    """Step -> why, of planned checkpoints that an audit found suspect, or, where there was none, reports."""
    known = audit_file.suspects(config.store)
    audited = audit_file.read(config.store)
    found: dict[int, str] = {}
    for planned in units:
        checkpoint = planned.unit.checkpoint
        reason = known.of(checkpoint)
        audit = audited.get(checkpoint.location)
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
    """One sentence per model and reason, with the steps that it is about."""
    told = []
    for name, found in suspects.items():
        reasons: dict[str, list[int]] = {}
        for step, reason in found.items():
            reasons.setdefault(reason, []).append(step)
        for reason, steps in reasons.items():
            some = ", ".join(map(str, steps[:8])) + (f" and {len(steps) - 8} more" if len(steps) > 8 else "")
            told.append(f"  {name} step {some}: {reason}")
    return told


def _told(amount: float | None, readable: Callable[[float], str]) -> str:
    if amount is None:
        return "?"
    return f"~{readable(amount)}" if amount else readable(0)


def _total(amounts: Sequence[float | None]) -> float | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if len(known) == len(amounts) else None
