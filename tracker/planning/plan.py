"""The plan: which checkpoints, in what order, and what is to be done about each. Pure: what exists and
what is recorded come in as records."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tracker.config import Steps
from tracker.errors import RequestError, unknown_value
from tracker.planning.shards import shard_of
from tracker.records import Checkpoint, Conventions, PlannedUnit, ProbeSpec, Recorded, RecordId, State, Unit

PAPER_STEPS = (0, 128, 512, 1000, 5000, 10000, 143000)
"""Steps of the paper's table 5."""


@dataclass(frozen=True)
class Plan:
    """Planned units, in the order in which they are measured."""

    units: tuple[PlannedUnit, ...]

    @property
    def pending(self) -> tuple[PlannedUnit, ...]:
        """Those that a sweep would touch."""
        return tuple(planned for planned in self.units if planned.pending)

    def count(self, *states: State) -> int:
        """How many units are in any of these states."""
        return sum(planned.state in states for planned in self.units)


def wanted_steps(choice: Steps, steps: Sequence[int]) -> tuple[int, ...]:
    """The steps that a choice selects.

    Args:
        choice: the ``steps`` group.
        steps: those that the model's suite has, or declares.

    Returns:
        increasing; for ``paper`` and ``list`` also steps that the suite does not have.

    Raises:
        RequestError: a choice without its fields, or negative steps.
    """
    if choice.list is not None:
        if not choice.list or any(step < 0 for step in choice.list):
            raise unknown_value(
                "steps.list", choice.list, "one or more steps from 0, as in steps.list=[0,128]"
            )
        return tuple(sorted(set(choice.list)))
    if choice.name == "list":
        raise RequestError("steps=list needs steps.list=[...], the steps to measure")
    if choice.name == "paper":
        return PAPER_STEPS
    if choice.name == "log":
        return _log_steps(steps)
    if choice.name == "window":
        if choice.low is None or choice.high is None or choice.low > choice.high:
            raise RequestError(
                f"steps=window needs steps.low <= steps.high; given {choice.low} and {choice.high}"
            )
        return tuple(step for step in sorted(steps) if choice.low <= step <= choice.high)
    return tuple(sorted(steps))


def _log_steps(steps: Sequence[int]) -> tuple[int, ...]:
    """0, 1, 2, 4 ... 512, 1000, 2000, 4000 ... and the last, of those that there are."""
    last = max(steps, default=0)
    low = {0, *(2**power for power in range(10))}
    high = {1000 * 2**power for power in range(max(last, 1000).bit_length())}
    return tuple(sorted(step for step in steps if step in low | high | {last}))


def select(checkpoints: Iterable[Checkpoint], choice: Steps) -> list[Checkpoint]:
    """The checkpoints that are wanted, model by model; wanted ones that do not exist are marked so.

    Raises:
        RequestError: nothing is left; says which steps there are.
    """
    families: dict[tuple[str, int], list[Checkpoint]] = {}
    for checkpoint in checkpoints:
        families.setdefault((checkpoint.model, checkpoint.seed), []).append(checkpoint)
    chosen: list[Checkpoint] = []
    for family in families.values():
        by_step = {checkpoint.step: checkpoint for checkpoint in family}
        for step in wanted_steps(choice, sorted(by_step)):
            chosen.append(by_step.get(step) or _absent(family[0], step))
    if not chosen or all(checkpoint.exists is False for checkpoint in chosen):
        there = sorted({checkpoint.step for family in families.values() for checkpoint in family})
        raise RequestError(
            f"steps={choice.name} selects none of the checkpoints there are; steps: {_brief(there)}"
        )
    return chosen


def _absent(sibling: Checkpoint, step: int) -> Checkpoint:
    """A step that the source does not have; its name there is nobody's, so no other's key can equal its."""
    return replace(
        sibling, step=step, revision=f"absent step {step}", tokens_seen=None, commit=None, exists=False
    )


def _brief(steps: list[int]) -> str:
    texts = [str(step) for step in steps]
    return ", ".join(texts if len(texts) <= 12 else [*texts[:8], "...", *texts[-3:]]) or "none"


def make_plan(
    checkpoints: Iterable[Checkpoint],
    probe: ProbeSpec,
    conventions: Conventions,
    dtype: str,
    recorded: Mapping[RecordId, Recorded],
    *,
    remeasure: str = "failed",
    shard: tuple[int, int] = (1, 1),
    commits: Mapping[RecordId, str] | None = None,
) -> Plan:
    """Planned minus recorded.

    Args:
        checkpoints: what is wanted, from ``select``.
        probe, conventions, dtype: how to measure.
        recorded: the store's ledger.
        remeasure: ``failed`` tries failed ones again; ``missing`` those too that did not exist; ``moved``
            also measures again what lies at another commit than recorded; ``all`` everything.
        shard: (i, n): the i-th part of n (see ``shards``); a checkpoint's is the same in any plan.
        commits: the commit now at the source, needed for ``moved``.

    Raises:
        RequestError: the store holds another checkpoint under a planned one's name.
    """
    units = [Unit(checkpoint, probe, conventions, dtype) for checkpoint in checkpoints]
    _refuse_taken_names(units, recorded)
    number, count = shard
    mine = [unit for unit in units if shard_of(unit.checkpoint, count) == number]
    return Plan(tuple(_planned(unit, recorded.get(unit.id), remeasure, commits or {}) for unit in mine))


def _refuse_taken_names(units: list[Unit], recorded: Mapping[RecordId, Recorded]) -> None:
    """Two checkpoints of one name could never be told apart in a plot or a fit."""
    taken = {
        (r.suite, r.model, r.seed, r.step, r.probe, r.conventions): r
        for r in recorded.values()
        if r.status == "ok"
    }
    for unit in units:
        at = unit.checkpoint
        other = taken.get((at.suite, at.model, at.seed, at.step, unit.probe.label, unit.conventions.label))
        if other is not None and other.key != unit.key:
            raise RequestError(
                f"{at.label} of suite {at.suite} is already in the store, measured from {other.repo} as "
                f"{other.dtype}; give this one another suite.model or suite.name, or another store="
            )


def _planned(
    unit: Unit, record: Recorded | None, remeasure: str, commits: Mapping[RecordId, str]
) -> PlannedUnit:
    if record is None:
        absent = unit.checkpoint.exists is False
        return PlannedUnit(
            unit, "missing" if absent else "to do", "its source has no such step" if absent else None
        )
    if remeasure == "all":
        return PlannedUnit(unit, "retry", f"recorded as {record.status}")
    if record.status == "missing":
        again = remeasure == "missing"
        return PlannedUnit(unit, "retry" if again else "known missing", record.reason)
    if record.status == "failed":
        return PlannedUnit(unit, "retry", record.reason)
    now = commits.get(unit.id)
    if remeasure == "moved" and now is not None and now != record.commit:
        return PlannedUnit(unit, "retry", f"moved from {record.commit} to {now}")
    return PlannedUnit(unit, "done")
