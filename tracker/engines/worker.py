"""Measure one unit: load, encode the probe, measure, record. Its failures become records."""

import gc
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from tracker.engines.placement import Placement
from tracker.engines.worker_spec import WorkerSpec
from tracker.errors import (
    INTERRUPTIONS,
    CheckpointError,
    MissingCheckpoint,
    StoreError,
    TrackerError,
    needs_new_process,
    redact,
)
from tracker.measurement.measure import measure
from tracker.measurement.probe import (
    ProbeTokens,
    encode_probe,
    load_tokenizer,
    tokenizer_digest,
    tokenizer_folder,
)
from tracker.measurement.process import keep_freed_memory
from tracker.measurement.weight_tables import NOTE, noted, stored_weights
from tracker.measurement.weights import WeightMeter
from tracker.metrics.registry import load_metrics
from tracker.models import model_facts
from tracker.models.reuse import ReusedModel
from tracker.models.stored_state import absent_tensors
from tracker.models.streaming import stream_model
from tracker.planning.memory import free_memory, how_to_run, memory_needed
from tracker.records import Fetched, Measurement, Outcome, PlannedUnit, ProbeSource, Status, Unit, digest
from tracker.store import Store


@dataclass
class Worker:
    """Measures units one after the other and records them."""

    store: Store
    source: ProbeSource
    device: str
    stream: str = "auto"
    """Whether models are loaded whole or block by block: always, never, or auto, by the free memory."""
    memory: int | None = None
    """This worker's share of it in bytes, where there are several."""
    options: frozenset[str] = frozenset()
    """Further measures (``WorkerSpec.options``)."""
    broken: bool = False
    """Whether CUDA would fail every later unit of this process."""
    _encoded: dict[str, ProbeTokens] = field(default_factory=dict)
    _live: ReusedModel = field(default_factory=ReusedModel)
    _meter: WeightMeter | None = None

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

    @classmethod
    def from_spec(cls, spec: WorkerSpec, placement: Placement) -> "Worker":
        """Make a worker in this process; registers custom metrics and sets the number of torch's threads."""
        load_metrics(spec.metric_files)
        if placement.threads:
            torch.set_num_threads(placement.threads)
        memory = placement.memory
        if placement.share < 1:
            memory = int(torch.cuda.get_device_properties(placement.device).total_memory * placement.share)
        return cls(
            store=Store(spec.store, spec.store_inode),
            source=spec.source,
            device=placement.device,
            stream=spec.stream,
            memory=memory,
            options=spec.options,
        )

    def run(self, planned: PlannedUnit, fetched: Fetched | CheckpointError) -> Outcome:
        """Measure and record one unit; what is wrong with its checkpoint is recorded, not raised.

        Args:
            planned: the unit.
            fetched: where its checkpoint lies, or why it could not be fetched.

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
            self.broken = self.broken or needs_new_process(error)
            status, reason = "failed", _named(unit, str(error))
        except TrackerError:
            raise
        except INTERRUPTIONS:
            raise
        except BaseException as error:
            status, reason = "failed", _named(unit, f"{type(error).__name__}: {error}")
            if needs_new_process(error):
                self.broken, reason = True, reason.partition("\n")[0]  # the rest is advice on debugging CUDA
        if status != "ok":
            self.store.write_hole(unit, status, redact(reason or ""))
        return Outcome(unit, status, reason and redact(reason), time.perf_counter() - started)

    def _measured(self, unit: Unit, fetched: Fetched) -> Measurement:
        started = time.perf_counter()
        if unit.probe.loss and absent_tensors(fetched.path):
            raise CheckpointError(
                f"{fetched.path}: its weights are a part that tracker fetched without the unembedding, which "
                "the loss needs; fetch the checkpoint whole, or set probe.loss=false"
            )
        model = self._loaded(fetched.path, unit.dtype)
        try:
            facts = model_facts(model)
            tokens = self._tokens(unit, fetched.path, facts.vocabulary, facts.max_positions)
            pinned = replace(unit, checkpoint=replace(unit.checkpoint, commit=fetched.commit))
            states = "states" in self.options
            measured = measure(pinned, model, tokens, commit=fetched.commit, started=started, states=states)
            return self._with_weights(measured, unit, fetched)
        finally:
            del model
            gc.collect()

    def _with_weights(self, measured: Measurement, unit: Unit, fetched: Fetched) -> Measurement:
        """Add what is known of the weights, else what they are measured to be where that was asked for."""
        known = stored_weights(self.store, unit, fetched.commit)
        if known is None and "weights" in self.options:
            self._meter = self._meter or WeightMeter(self.device)
            try:
                known = self._meter.measure(fetched.path)
            except Exception as error:  # the attention is measured all the same
                if needs_new_process(error):
                    raise
                return noted(measured, f"{NOTE} not measured: {redact(' '.join(str(error).split())[:200])}")
        return measured if known is None else known.added_to(measured)

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
        """Return the probe's ids by this checkpoint's tokenizer; encoded once per tokenizer."""
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
        return self._encoded[name]


def _named(unit: Unit, message: str) -> str:
    label = unit.checkpoint.label
    return message if message.startswith(label) else f"{label}: {message}"
