"""Those that are timed, each doing on a shape what its name says: one call, one whole measurement.

Legend: L layers, H heads.
"""

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from tracker.models.attention_interface import IMPLEMENTATION

from .shapes import Shape, random_ids, random_model

Columns = dict[str, np.ndarray]
"""By name, shape (L, H); of the layers table, shape (L,)."""


class Contender:
    """A model, token ids and a way to measure them."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.model: Any = random_model(shape)
        self.ids, self.prefix_ids = random_ids(shape)

    attention: str | None = None
    """How transformers is to run the model's attention, where the contender does not say so itself."""

    def prepare(self) -> None:
        """Sets what is not timed: the model may have been run by another contender."""
        if self.attention and self.model.config._attn_implementation != self.attention:
            self.model.set_attn_implementation(self.attention)

    def run(self) -> float:
        """Does it once; seconds."""
        self.prepare()
        self._synchronise()
        started = time.perf_counter()
        self.work()
        self._synchronise()
        return time.perf_counter() - started

    def work(self) -> Any:
        """What is timed."""
        raise NotImplementedError

    def columns(self) -> tuple[Columns, Columns]:
        """What it finds: means and standard errors over sequences; empty where it measures nothing."""
        return {}, {}

    def warm(self) -> None:
        """A call on few tokens, so that imports and first-use buffers do not count as memory."""
        ids = self.ids
        self.ids = ids[:1, :64]
        self.prepare()
        self.work()
        self.ids = ids

    def _synchronise(self) -> None:
        if self.shape.device == "cuda":
            torch.cuda.synchronize()


class Bare(Contender):
    """The body's forward pass with SDPA, no vocabulary head: what nobody can go below."""

    attention = "sdpa"

    def work(self) -> None:
        with torch.inference_mode():
            self.model.base_model(input_ids=torch.from_numpy(self.ids).to(self.model.device), use_cache=False)


class Tracker(Contender):
    """``measure``: every metric, loss, covariates; the theory checks stand outside the limits."""

    attention = IMPLEMENTATION
    alphas: tuple[float, ...] = (0.5, 0.25)
    queries: int | None = None

    def work(self) -> Any:
        from tracker.measurement.measure import measure_model
        from tracker.measurement.probe import probe_tokens
        from tracker.measurement.process import keep_freed_memory
        from tracker.records import Conventions

        keep_freed_memory()  # as a sweep's worker does
        conventions = Conventions(alphas=self.alphas, queries=self.queries, theory_tokens=0)
        return measure_model(self.model, probe_tokens(self.ids, self.prefix_ids), conventions)

    def columns(self) -> tuple[Columns, Columns]:
        from tracker.measurement.tables import tables
        from tracker.metrics.registry import head_columns

        measured = tables(self.work(), {}, {})
        shape = (self.shape.layers, self.shape.heads)
        heads = measured.heads

        def table(suffix: str) -> Columns:
            names = [name for name in head_columns(own=False) if name + suffix in heads.columns]
            return {name: heads[name + suffix].to_numpy().reshape(shape) for name in names}

        errors = {name: value / math.sqrt(len(self.ids)) for name, value in table("_std").items()}
        redundancy = measured.layers["head_redundancy"].to_numpy()
        return table("") | {"head_redundancy": redundancy}, errors


class TrackerPlain(Tracker):
    """Without the shortened sequences of scale sensitivity."""

    alphas = ()


class TrackerQueries(Tracker):
    """With ``spectrum.queries=128``: evenly spaced rows instead of all."""

    queries = 128


class Script(Contender):
    """``output_attentions`` and loops; the loops run over a part of the maps, and their time is scaled up."""

    rows_budget: int | None = 25_000
    """Attention rows that the loops look at; None: all."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        pairs = [(sequence, layer) for sequence in range(shape.batch) for layer in range(shape.layers)]
        rows = shape.heads * shape.n
        self.places = pairs[: max(1, round((self.rows_budget or rows * len(pairs)) / rows))]
        self.share = len(self.places) / len(pairs)

    def work(self) -> float:
        """Seconds of the loops."""
        from .obvious_script import Found, keep_attention, measure_layer

        attention = keep_attention(self.model, self.ids, self.prefix_ids)
        started, found = time.perf_counter(), Found()
        for sequence, layer in self.places:
            if sequence < len(self.ids):
                measure_layer(attention, sequence, layer, found)
        return time.perf_counter() - started

    def run(self) -> float:
        self._synchronise()
        started = time.perf_counter()
        loops = self.work()
        return time.perf_counter() - started + loops * (1 / self.share - 1)

    def warm(self) -> None:
        places, self.places = self.places, self.places[:1]
        super().warm()
        self.places = places

    def columns(self) -> tuple[Columns, Columns]:
        """Over every map, however long it takes."""
        from .obvious_script import Found, head_columns, keep_attention, measure_layer

        attention, found = keep_attention(self.model, self.ids, self.prefix_ids), Found()
        for sequence in range(len(self.ids)):
            for layer in range(self.shape.layers):
                measure_layer(attention, sequence, layer, found)
        redundancy = np.zeros((len(self.ids), self.shape.layers))
        for place, value in found.redundancy.items():
            redundancy[place] = value
        return head_columns(attention, found) | {"head_redundancy": redundancy.mean(0)}, {}


class Lens(Contender):
    """TransformerLens with the pattern of every layer cached, then scipy and numpy over whole layers."""

    def __init__(self, shape: Shape) -> None:
        from .vectorised import lens_bridge

        super().__init__(shape)
        with tempfile.TemporaryDirectory() as folder:
            self.bridge = lens_bridge(self.model, folder)

    def work(self) -> list[Columns]:
        from .vectorised import lens_columns

        ids = torch.from_numpy(self.ids).to(self.model.device)
        with torch.inference_mode():
            return lens_columns(self.bridge, ids, self.shape.layers)

    def columns(self) -> tuple[Columns, Columns]:
        layers = self.work()
        return {name: np.stack([layer[name] for layer in layers]) for name in layers[0]}, {}


CONTENDERS: dict[str, Callable[[Shape], Contender]] = {
    "bare forward": Bare,
    "tracker, no scale variants": TrackerPlain,
    "tracker": Tracker,
    "tracker, 128 queries": TrackerQueries,
    "obvious script": Script,
    "TransformerLens": Lens,
}


def contender(name: str, shape: Shape, **changed: Any) -> Contender:
    """The contender of that name, on the shape with some fields changed."""
    return CONTENDERS[name](replace(shape, **changed))
