"""What the checkpoints of one model have to agree on, when several workers measure them side by side.

A worker alone compares each checkpoint with the first of its model: layers, heads and width, and the token
ids that the probe becomes. Several workers give the same verdicts if the first checkpoint of a model goes
alone and what it told goes along with the others.
"""

import threading
from dataclasses import dataclass

from tracker.engines.worker_spec import Model, WorkerSpec
from tracker.records import Unit

Shape = tuple[int, int, int]
"""Layers, heads per layer and width of a model."""


@dataclass(frozen=True)
class Known:
    """What the checkpoints of one model and probe agree on; None where no one has told yet."""

    shape: Shape | None = None
    token_digest: str | None = None

    @property
    def whole(self) -> bool:
        """Whether nothing is left to be told."""
        return self.shape is not None and self.token_digest is not None


def model_of(unit: Unit) -> Model:
    """Suite, model and seed of a unit."""
    return unit.checkpoint.suite, unit.checkpoint.model, unit.checkpoint.seed


class Siblings:
    """Hands out what is known of a model, to one worker alone until something is."""

    def __init__(self, worker_spec: WorkerSpec) -> None:
        self._equipment = worker_spec
        self._known: dict[tuple[Model, str], Known] = {}
        self._alone: set[tuple[Model, str]] = set()
        self._changed = threading.Condition()
        self._stopped = False

    def begin(self, unit: Unit) -> Known | None:
        """What is known of a unit's model; waits while its first checkpoint is being measured.

        Returns:
            None after ``stop``.
        """
        name = self._name(unit)
        with self._changed:
            known = self._known.setdefault(name, self._from_store(name))
            self._changed.wait_for(lambda: self._stopped or name not in self._alone)
            if self._stopped:
                return None
            known = self._known[name]
            if not known.whole:
                self._alone.add(name)
            return known

    def end(self, unit: Unit, told: Known) -> None:
        """Ends what ``begin`` began.

        Args:
            unit: likewise.
            told: what its worker knows of the model now.
        """
        name = self._name(unit)
        with self._changed:
            before = self._known[name]
            self._known[name] = Known(before.shape or told.shape, before.token_digest or told.token_digest)
            self._alone.discard(name)
            self._changed.notify_all()

    def stop(self) -> None:
        """Nobody waits any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _name(self, unit: Unit) -> tuple[Model, str]:
        return model_of(unit), unit.probe.label

    def _from_store(self, name: tuple[Model, str]) -> Known:
        model, probe = name
        return Known(self._equipment.shapes.get(model), self._equipment.token_digests.get((*model, probe)))
