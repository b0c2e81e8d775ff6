"""Measure the weights of checkpoints whose records lack them; no model is run."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tracker.engines.prefetch import Prefetch
from tracker.errors import CheckpointError, MissingCheckpoint, redact
from tracker.measurement.weights import WeightMeter
from tracker.records import (
    Fetched,
    Measurement,
    Outcome,
    PlannedUnit,
    Recorded,
    RecordId,
    Status,
    weights_unit,
)
from tracker.store import TABLES, DamagedRecord, Store, load_record, read_table

Name = tuple[str, str, int, int]
"""Suite, model, seed and step."""


@dataclass(frozen=True)
class WeightTask:
    """A checkpoint, and its measured records that lack its weights: of every probe and conventions."""

    planned: PlannedUnit
    records: tuple[Recorded, ...]
    """None of them: the checkpoint gets a record that holds its weights alone."""

    @property
    def name(self) -> Name:
        """What the checkpoint is called in the store."""
        return name_of(self.planned)


def name_of(planned: PlannedUnit) -> Name:
    """Return suite, model, seed and step of a planned unit."""
    at = planned.unit.checkpoint
    return at.suite, at.model, at.seed, at.step


def weight_tasks(
    units: Sequence[PlannedUnit],
    ledger: Mapping[RecordId, Recorded],
    *,
    again: bool = False,
    alone: bool = True,
) -> list[WeightTask]:
    """List the checkpoints of a plan whose weights are to be measured.

    Args:
        units: of the plan.
        ledger: the store's records.
        again: whether weights that are recorded are measured once more.
        alone: whether checkpoints without a measured record get one of their own.
    """
    measured: dict[Name, list[Recorded]] = {}
    for record in ledger.values():
        if record.status == "ok":
            name = (record.suite, record.model, record.seed, record.step)
            measured.setdefault(name, []).append(record)
    tasks = []
    for planned in units:
        records = measured.get(name_of(planned), [])
        lacking = [each for each in records if again or "weights" not in each.options]
        if lacking or (alone and not records):
            tasks.append(WeightTask(planned, tuple(lacking)))
    return tasks


def run_weights(
    tasks: Sequence[WeightTask], store: Store, supply: Prefetch, device: str = "cpu"
) -> Iterator[Outcome]:
    """Yield the outcome of each task as its records are replaced, in order.

    Args:
        tasks: what to measure.
        store: whose records get the columns.
        supply: the units of ``tasks``, in the same order.
        device: where the arithmetic is done.

    Raises:
        StoreError: the store cannot be written.
    """
    meter, by_name = WeightMeter(device), {task.name: task for task in tasks}
    with supply:
        for delivery in supply:
            started = time.perf_counter()
            unit = delivery.planned.unit
            status: Status = "ok"
            reason = None
            try:
                if isinstance(delivery.result, CheckpointError):
                    raise delivery.result
                _record(by_name[name_of(delivery.planned)], store, meter, delivery.result)
            except MissingCheckpoint as error:
                status, reason = "missing", redact(str(error))
            except CheckpointError as error:
                status, reason = "failed", redact(str(error))
            supply.release(delivery)
            yield Outcome(unit, status, reason, time.perf_counter() - started)


def _record(task: WeightTask, store: Store, meter: WeightMeter, fetched: Fetched) -> None:
    """Measure one checkpoint and put the columns into its records, or into one of its own.

    Raises:
        CheckpointError: the files cannot be read, or are not those that a record is of.
    """
    started = time.perf_counter()
    found = meter.measure(fetched.path)
    for record in task.records:
        if record.commit not in (None, fetched.commit):
            raise CheckpointError(
                f"{task.planned.unit.checkpoint.label}: its source now holds {fetched.commit}, its record is "
                f"of {record.commit}; run `tracker sweep remeasure=moved spectrum.weights=true`"
            )
        place = store.place_of(record)
        try:
            tables = Measurement(*(read_table(place, table) for table in TABLES))
            if load_record(place).stamp == record.stamp:  # else another process measured it just now
                store.rewrite(record, found.added_to(tables))
        except (FileNotFoundError, DamagedRecord) as error:
            raise CheckpointError(f"{place}: {error}; run the same command again") from error
    if not task.records:
        checkpoint = replace(task.planned.unit.checkpoint, commit=fetched.commit)
        seconds = time.perf_counter() - started
        alone = found.alone(checkpoint, meter.facts(fetched.path), fetched.commit, seconds)
        store.write(weights_unit(checkpoint), alone, replace=True)


def weight_rows(store: Store, ledger: Mapping[RecordId, Recorded]) -> dict[Name, Path]:
    """Return by checkpoint the folder of a measured record that holds its weights."""
    return {
        (each.suite, each.model, each.seed, each.step): store.place_of(each)
        for each in ledger.values()
        if each.status == "ok" and "weights" in each.options
    }
