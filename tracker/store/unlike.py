"""Measured checkpoints that are not of one model with the others: another architecture, other token ids."""

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tracker.records import Recorded
from tracker.store.record_files import DamagedRecord

Shape = tuple[int, int, int]
Placed = tuple[Path, Recorded]


class UnlikeRecord(DamagedRecord):
    """A record that cannot be compared with the others of its model; names its folder and how it differs."""

    def __str__(self) -> str:
        return f"{self.place}: {self.why}; left out"

    def as_hole(self) -> dict[str, object]:
        """Return suite, model, seed and step by the folder's name, with status ``unlike`` and the reason."""
        return super().as_hole() | {"status": "unlike"}


def find_unlike(records: Iterable[Placed]) -> list[UnlikeRecord]:
    """Name the measured records that differ from most of their model and seed.

    Where two kinds are as many, those of the later steps count as the model.

    Args:
        records: with their folders, of one probe.
    """
    runs: dict[tuple[str, str, int], list[Placed]] = {}
    for place, record in records:
        if record.status == "ok":
            runs.setdefault((record.suite, record.model, record.seed), []).append((place, record))
    found = []
    for run in runs.values():
        shapes, ids = _usual(run, _shape), _usual(run, _ids)
        for place, record in run:
            if (shape := _shape(record)) not in (None, shapes):
                found.append(UnlikeRecord(place, _other_shape(shape, shapes)))
            elif (own := _ids(record)) not in (None, ids):
                found.append(UnlikeRecord(place, _other_ids(own, ids)))
    return found


def _shape(record: Recorded) -> Shape | None:
    layers, heads, width = record.n_layers, record.n_heads, record.d_model
    return (layers, heads, width) if layers and heads and width else None


def _ids(record: Recorded) -> str | None:
    return record.token_digest


def _usual(run: list[Placed], of: Callable[[Recorded], Any]) -> Any:
    """What most records have; None where no record says."""
    counts: Counter[Any] = Counter()
    last: dict[Any, int] = {}
    for _, record in run:
        value = of(record)
        if value is not None:
            counts[value] += 1
            last[value] = max(record.step, last.get(value, -1))
    return max(counts, key=lambda value: (counts[value], last[value]), default=None)


def _other_shape(shape: Shape | None, usual: Shape | None) -> str:
    own, others = ("{} layers of {} heads, width {}".format(*(each or ())) for each in (shape, usual))
    return (
        f"its architecture ({own}) is not that of the model's other checkpoints ({others}); is it another "
        "model's? give it another suite.model"
    )


def _other_ids(own: str | None, usual: str | None) -> str:
    return (
        f"its tokenizer turns the probe into other ids ({own}) than the model's other checkpoints ({usual}), "
        "so results cannot be compared; give probe.tokenizer=FOLDER"
    )
