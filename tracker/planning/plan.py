"""The plan: planned minus recorded, and what is to be done about each checkpoint. Pure: what exists and what
is recorded come in as records."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tracker.errors import RequestError
from tracker.planning.shards import shard_of
from tracker.records import Checkpoint, Conventions, PlannedUnit, ProbeSpec, Recorded, RecordId, State, Unit


@dataclass(frozen=True)
class MeasurementSpec:
    """How every checkpoint of a plan is measured."""

    probe: ProbeSpec
    conventions: Conventions
    dtype: str = "float32"
    options: frozenset[str] = frozenset()
    """Further measures (``Config.options``)."""

    def unit(self, checkpoint: Checkpoint) -> Unit:
        """Return the unit that measures ``checkpoint`` in this way."""
        return Unit(checkpoint, self.probe, self.conventions, self.dtype)


@dataclass(frozen=True)
class Plan:
    """Planned units, in the order in which they are measured."""

    units: tuple[PlannedUnit, ...]

    @property
    def pending(self) -> tuple[PlannedUnit, ...]:
        """The units that a sweep would touch."""
        return tuple(planned for planned in self.units if planned.pending)

    def count(self, *states: State) -> int:
        """Count the units in any of these states."""
        return sum(planned.state in states for planned in self.units)


def make_plan(
    checkpoints: Iterable[Checkpoint],
    spec: MeasurementSpec,
    recorded: Mapping[RecordId, Recorded],
    *,
    remeasure: str = "failed",
    shard: tuple[int, int] = (1, 1),
    commits: Mapping[RecordId, str] | None = None,
) -> Plan:
    """Subtract what is recorded from what is wanted.

    Args:
        checkpoints: what is wanted, from ``select``.
        spec: how to measure.
        recorded: the store's ledger.
        remeasure: ``failed`` retries failed units; ``missing`` also those that did not exist; ``moved`` also
            those whose commit differs from the recorded one; ``all`` everything.
        shard: (i, n): the i-th part of n (see ``shards``); a checkpoint's is the same in any plan.
        commits: the commit now at the source, needed for ``moved``.

    Raises:
        RequestError: the store holds another checkpoint under a planned one's name.
    """
    units = [spec.unit(checkpoint) for checkpoint in checkpoints]
    _refuse_taken_names(units, recorded)
    number, count = shard
    mine = [unit for unit in units if shard_of(unit.checkpoint, count) == number]
    plan = Plan(tuple(_planned(unit, recorded.get(unit.id), remeasure, commits or {}) for unit in mine))
    return _with_states(plan, recorded) if "states" in spec.options else plan


def _with_states(plan: Plan, recorded: Mapping[RecordId, Recorded]) -> Plan:
    """Measure once more what was measured without states, which only a forward pass has."""

    def again(planned: PlannedUnit) -> PlannedUnit:
        record = recorded.get(planned.unit.id)
        if planned.state != "done" or record is None or "states" in record.options:
            return planned
        return PlannedUnit(planned.unit, "retry", "measured without spectrum.states", record.stamp)

    return Plan(tuple(again(planned) for planned in plan.units))


def _refuse_taken_names(units: list[Unit], recorded: Mapping[RecordId, Recorded]) -> None:
    """Refuse two checkpoints of one name: no plot or fit could distinguish them."""
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
        if unit.checkpoint.exists is False:
            return PlannedUnit(unit, "missing", "its source has no such step")
        return PlannedUnit(unit, "to do")
    if remeasure == "all":
        return PlannedUnit(unit, "retry", f"recorded as {record.status}", record.stamp)
    if record.status == "missing":
        return PlannedUnit(
            unit, "retry" if remeasure == "missing" else "known missing", record.reason, record.stamp
        )
    if record.status == "failed":
        return PlannedUnit(unit, "retry", record.reason, record.stamp)
    now = commits.get(unit.id)
    if remeasure == "moved" and now is not None and now != record.commit:
        return PlannedUnit(unit, "retry", f"moved from {record.commit} to {now}", record.stamp)
    return PlannedUnit(unit, "done")
