"""What the checkpoints of one model have to agree on, also when several workers measure them in parallel.

A worker alone compares each checkpoint with the first of its model: layers, heads and width, and the token
ids that the probe becomes. Several workers reach the same verdicts if the first checkpoint of a model is
measured alone and its signature is passed on with the others.
"""

import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from tracker.records import Recorded, RecordId, Unit

ModelKey = tuple[str, str, int, str]
"""Suite, model, seed, and the label of the probe."""
Shape = tuple[int, int, int]
"""Layers, heads per layer and width of a model."""


@dataclass(frozen=True)
class ModelSignature:
    """What the checkpoints of one model and probe agree on; None where it is not known yet."""

    shape: Shape | None = None
    token_digest: str | None = None
    """Of the token ids that the model's tokenizer makes of the probe."""

    @property
    def complete(self) -> bool:
        """Whether all of it is known."""
        return self.shape is not None and self.token_digest is not None

    def merged(self, other: "ModelSignature") -> "ModelSignature":
        """Return this signature with what it lacks from another."""
        return ModelSignature(self.shape or other.shape, self.token_digest or other.token_digest)


UNKNOWN = ModelSignature()


def model_key(unit: Unit) -> ModelKey:
    """Return what the signature of a unit's model is known by."""
    at = unit.checkpoint
    return at.suite, at.model, at.seed, unit.probe.label


def recorded_signatures(
    ledger: Mapping[RecordId, Recorded], without: Collection[RecordId] = ()
) -> dict[ModelKey, ModelSignature]:
    """Return the signatures of the models that a store has measured.

    Args:
        ledger: what is recorded.
        without: records that do not count, since they are about to be measured again.
    """
    found: dict[ModelKey, ModelSignature] = {}
    for name, record in ledger.items():
        if record.status == "ok" and name not in without:
            key = (record.suite, record.model, record.seed, record.probe)
            layers, heads, width = record.n_layers, record.n_heads, record.d_model
            shape = (layers, heads, width) if layers and heads and width else None
            found[key] = found.get(key, UNKNOWN).merged(ModelSignature(shape, record.token_digest))
    return found


class SignatureExchange:
    """Passes model signatures between workers: a model's first checkpoint is measured alone."""

    def __init__(self, known: Mapping[ModelKey, ModelSignature]) -> None:
        self._known = dict(known)
        self._alone: set[ModelKey] = set()
        self._changed = threading.Condition()
        self._stopped = False

    def begin(self, unit: Unit) -> ModelSignature | None:
        """Return the signature of a unit's model; waits while its first checkpoint is being measured.

        Returns:
            None after ``stop``.
        """
        key = model_key(unit)
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or key not in self._alone)
            if self._stopped:
                return None
            known = self._known.setdefault(key, UNKNOWN)
            if not known.complete:
                self._alone.add(key)
            return known

    def end(self, unit: Unit, found: ModelSignature) -> None:
        """End what ``begin`` began.

        Args:
            unit: as for ``begin``.
            found: the model's signature as far as its worker knows it now.
        """
        key = model_key(unit)
        with self._changed:
            self._known[key] = self._known[key].merged(found)
            self._alone.discard(key)
            self._changed.notify_all()

    def stop(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
