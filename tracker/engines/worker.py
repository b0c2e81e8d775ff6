"""Carries out one unit: load, encode the probe, measure, record. Its failures become records."""

import gc
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from tracker.engines.consistency import Known, Shape, model_of
from tracker.errors import CheckpointError, MissingCheckpoint, StoreError, TrackerError
from tracker.measurement.measure import measure
from tracker.measurement.probe import (
    ProbeTokens,
    encode_probe,
    load_tokenizer,
    tokenizer_digest,
    tokenizer_folder,
)
from tracker.measurement.process import keep_freed_memory
from tracker.models import model_facts
from tracker.models.reuse import ReusedModel
from tracker.models.streaming import stream_model
from tracker.planning.estimate import free_memory, how_to_run, memory_needed
from tracker.records import Fetched, Measurement, Outcome, PlannedUnit, ProbeSource, Status, Unit, digest
from tracker.store import Store


@dataclass
class Worker:
    """Measures units one after the other and records them.

    ``token_digests`` holds, per model and probe, the digest of the token ids of its other checkpoints:
    one that differs is an error, since their results could not be compared; likewise ``shapes``, the layers,
    heads per layer and width of each model's other checkpoints. ``stream`` says whether models
    are loaded whole or block by block: ``always``, ``never``, or ``auto``, by the memory that is free and by
    ``memory``, this worker's share in bytes where there are several.
    """

    store: Store
    source: ProbeSource
    device: str
    token_digests: dict[tuple[str, str, int, str], str] = field(default_factory=dict)
    stream: str = "auto"
    shapes: dict[tuple[str, str, int], Shape] = field(default_factory=dict)
    memory: int | None = None
    _encoded: dict[str, ProbeTokens] = field(default_factory=dict)
    _live: ReusedModel = field(default_factory=ReusedModel)

    def __post_init__(self) -> None:
        # A collection after each unit frees its model's cycles; what the libraries hold stays anyway, and
        # looking through it each time would cost more than small checkpoints take to measure.
        gc.collect()
        gc.freeze()
        keep_freed_memory()

    @property
    def model_bytes(self) -> int:
        """Bytes of the weights that wait in memory for the next checkpoint of their model."""
        return self._live.bytes

    def known(self, unit: Unit) -> Known:
        """What this worker holds for common to the checkpoints of a unit's model."""
        model = model_of(unit)
        return Known(self.shapes.get(model), self.token_digests.get((*model, unit.probe.label)))

    def learn(self, unit: Unit, known: Known) -> None:
        """Takes over what other workers have found common to the checkpoints of a unit's model."""
        model = model_of(unit)
        if known.shape is not None:
            self.shapes[model] = known.shape
        if known.token_digest is not None:
            self.token_digests[*model, unit.probe.label] = known.token_digest

    def run(self, planned: PlannedUnit, fetched: Fetched | CheckpointError) -> Outcome:
        """Measures and records one unit.

        Args:
            planned: the unit.
            fetched: where its checkpoint lies, or why it could not be fetched.

        Never raises for what is wrong with the checkpoint: that is recorded as failed or missing.

        Raises:
            StoreError: the result cannot be written; the sweep cannot go on.
            RequestError: the request cannot be carried out for any checkpoint.
        """
        unit, started = planned.unit, time.perf_counter()
        status: Status = "ok"
        reason = None
        try:
            if isinstance(fetched, CheckpointError):
                raise fetched
            self.store.write(unit, self._measured(unit, fetched), replace=planned.state == "retry")
        except StoreError:
            raise
        except MissingCheckpoint as error:
            status, reason = "missing", str(error)
        except CheckpointError as error:
            status, reason = "failed", _named(unit, str(error))
        except TrackerError:
            raise
        except Exception as error:
            status, reason = "failed", _named(unit, f"{type(error).__name__}: {error}")
        if status != "ok":
            self.store.write_hole(unit, status, reason or "")
        return Outcome(unit, status, reason, time.perf_counter() - started)

    def _measured(self, unit: Unit, fetched: Fetched) -> Measurement:
        started = time.perf_counter()
        model = self._loaded(fetched.path, unit.dtype)
        try:
            facts = model_facts(model)
            self._refuse_another_shape(unit, (facts.n_layers, facts.n_heads, facts.d_model))
            tokens = self._tokens(unit, fetched.path, facts.vocabulary, facts.max_positions)
            pinned = replace(unit, checkpoint=replace(unit.checkpoint, commit=fetched.commit))
            return measure(pinned, model, tokens, commit=fetched.commit, started=started)
        finally:
            del model
            gc.collect()

    def _refuse_another_shape(self, unit: Unit, shape: Shape) -> None:
        expected = self.shapes.setdefault(model_of(unit), shape)
        if expected != shape:
            told = " against ".join(
                "{} layers of {} heads, width {}".format(*each) for each in (shape, expected)
            )
            raise CheckpointError(
                f"its architecture is not that of the model's other checkpoints ({told}); is it another "
                "model's? give it another suite.model"
            )

    def _loaded(self, path: Path, dtype: str) -> PreTrainedModel:
        need = memory_needed(path, dtype)
        free = self._free_memory() + self._live.bytes
        free = free if self.memory is None else min(free, self.memory)
        if how_to_run(need, free, self.stream) == "whole":
            return self._live.load(path, dtype=dtype, device=self.device)
        self._live.drop()
        return stream_model(path, dtype=dtype, device=self.device)

    def _free_memory(self) -> int:
        if torch.device(self.device).type == "cuda":
            return torch.cuda.mem_get_info(self.device)[0]
        return free_memory()

    def _tokens(self, unit: Unit, path: Path, vocabulary: int, max_positions: int | None) -> ProbeTokens:
        """The probe's ids by this checkpoint's tokenizer; encoded once per tokenizer."""
        folder = tokenizer_folder(self.source, path)
        name = digest(
            [unit.probe.label, vocabulary, max_positions, unit.conventions.block, tokenizer_digest(folder)]
        )
        if name not in self._encoded:
            tokenizer: Any = None if self.source.ids else load_tokenizer(folder)
            self._encoded[name] = encode_probe(
                unit.probe,
                self.source,
                tokenizer,
                vocabulary=vocabulary,
                block=unit.conventions.block,
                max_positions=max_positions,
            )
        tokens = self._encoded[name]
        self._refuse_other_ids(unit, tokens)
        return tokens

    def _refuse_other_ids(self, unit: Unit, tokens: ProbeTokens) -> None:
        expected = self.token_digests.setdefault((*model_of(unit), unit.probe.label), tokens.digest)
        if expected != tokens.digest:
            raise CheckpointError(
                f"its tokenizer turns the probe into other ids ({tokens.digest}) than the model's other "
                f"checkpoints ({expected}), so results cannot be compared; give probe.tokenizer=FOLDER"
            )


def _named(unit: Unit, message: str) -> str:
    label = unit.checkpoint.label
    return message if message.startswith(label) else f"{label}: {message}"
