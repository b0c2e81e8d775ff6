"""Where the processor seconds of a unit go: checkpoints of one model from a local folder, on one thread.

``python -m tests.bench.unit`` measures as many tokens as the default probe has on three sizes of models, each
in a process of its own: the first checkpoint builds the model, the next ones go into its module.
Handing over is what the publisher (in a sweep a process of its own) takes to write a checkpoint's W&B rows.
"""

import argparse
import functools
import os
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from rich.console import Console

from tracker.checkpoints import discover_folder
from tracker.engines import worker as worker_module
from tracker.engines.inline import run_inline
from tracker.engines.placement import Placement
from tracker.engines.worker import Worker
from tracker.engines.worker_spec import WorkerSpec
from tracker.measurement import measure as measure_module
from tracker.measurement.probe import probe_spec
from tracker.models import attention_stream, reuse
from tracker.models.attention_interface import LayerAttention
from tracker.records import Conventions, PlannedUnit, ProbeSource, Unit
from tracker.store import Store
from tracker.wandb_sink.options import SinkOptions
from tracker.wandb_sink.publisher import publish

from .memory import peak_beyond
from .shapes import SHAPES, Shape, random_model
from .tables import Row, machine, markdown, table

STAGES: dict[str, tuple[tuple[Any, str], ...]] = {
    "open": ((worker_module, "memory_needed"), (reuse, "architecture_key"), (reuse, "TensorFiles")),
    "build": ((reuse, "load_model"), (reuse, "_own")),
    "read into the module": ((reuse, "_refilled"),),
    "check for NaN": ((reuse, "refuse_nan"),),
    "tokenise": ((Worker, "_tokens"),),
    "forward": ((attention_stream._Forward, "advance"), (LayerAttention, "tile")),
    "loss": ((measure_module, "sequence_losses"), (measure_module, "logits_way")),
    "metrics": ((worker_module, "measure"),),
    "write": ((Store, "write"),),
}
"""Functions whose processor seconds, without those of the stages that they call, are a stage's."""
USEFUL = ("forward", "loss", "metrics")


class Clock:
    """Processor seconds by stage, each without the stages inside it."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._open = ["other"]
        self._since = time.process_time()
        self._thread = threading.get_ident()

    def _turn(self) -> None:
        now = time.process_time()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Counts a block as a stage; in the thread that measures alone."""
        if threading.get_ident() != self._thread:
            yield
            return
        self._turn()
        self._open.append(name)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def taken(self) -> dict[str, float]:
        """The seconds since the last call, by stage."""
        self._turn()
        found, self.seconds = dict(self.seconds), Counter()
        return found  # pyright: ignore[reportReturnType]

    def watched(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """The same function, counted as a stage."""

        @functools.wraps(function, updated=())
        def counted(*given: Any, **named: Any) -> Any:
            with self.stage(name):
                return function(*given, **named)

        return counted


@contextmanager
def watching(clock: Clock) -> Iterator[None]:
    """Counts every function of ``STAGES`` for a block's length."""
    with ExitStack() as stack:
        for name, places in STAGES.items():
            for owner, attribute in places:
                watched = clock.watched(getattr(owner, attribute), name)
                stack.enter_context(patch.object(owner, attribute, watched))
        yield


@dataclass(frozen=True)
class Measured:
    """Of one unit: seconds by stage; bytes at its peak beyond interpreter and libraries."""

    seconds: dict[str, float]
    peak: int | None


def planned(folder: Path, shape: Shape, number: int, source: ProbeSource) -> list[PlannedUnit]:
    """Units of checkpoints in float16, as Pythia's are, below a folder."""
    model = random_model(shape).half()
    for step in range(number):
        model.save_pretrained(folder / "suite" / f"step{step}")
    probe = probe_spec(source, name="bench", n=shape.n, number=shape.batch)
    found = discover_folder(folder / "suite")
    return [PlannedUnit(Unit(each, probe, Conventions()), "to do") for each in found]


def measured(shape: Shape, number: int, tokenizer: str | None) -> tuple[list[Measured], float]:
    """Every unit of one model in turn, and the seconds of handing over one more to its W&B run."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        small = replace(SHAPES["tiny"], vocabulary=shape.vocabulary, n=shape.n, batch=shape.batch)
        _run(folder / "warm", small, 1, tokenizer)  # imports and first calls
        _published(folder / "warm" / "store")
        _run(folder / "one", shape, 1, tokenizer)
        found = _run(folder / "timed", shape, number, tokenizer)
        alone, all_of_them = (_published(folder / each / "store") for each in ("one", "timed"))
    return found, max(0.0, all_of_them - alone) / (number - 1)


def _published(store: Path) -> float:
    """Processor seconds of opening a W&B run offline and writing a store's checkpoints to it."""
    started = os.times()
    publish(store, SinkOptions(mode="offline"))
    return sum(after - before for before, after in zip(started[:4], os.times()[:4], strict=True))


def _run(folder: Path, shape: Shape, number: int, tokenizer: str | None) -> list[Measured]:
    folder.mkdir()
    ids = np.random.default_rng(0).integers(0, shape.vocabulary, (shape.batch, shape.n))
    np.save(folder / "ids.npy", ids)
    source = ProbeSource(tokenizer=tokenizer) if tokenizer else ProbeSource(ids=str(folder / "ids.npy"))
    units = planned(folder, shape, number, source)
    worker = Worker.from_spec(WorkerSpec(folder / "store", source), Placement("cpu", threads=1))
    clock, found = Clock(), []
    with watching(clock):
        outcomes, held = run_inline(units, worker), 0
        for _ in units:
            clock.taken()
            peak, outcome = peak_beyond(functools.partial(next, outcomes), "cpu")
            assert outcome.status == "ok", outcome.reason  # pyright: ignore[reportAttributeAccessIssue]
            found.append(Measured(clock.taken(), None if peak is None else peak + held))
            held = worker.model_bytes
    return found


def rows_of(name: str, shape: Shape, number: int, tokenizer: str | None) -> list[Row]:
    """Two rows: the model's first checkpoint, and the median of those after it."""
    units, handed = measured(shape, number, tokenizer)
    weights = sum(parameter.numel() for parameter in random_model(shape).parameters()) * 4
    rows: list[Row] = []
    for kind, chosen in (("first", units[:1]), ("next", units[1:])):
        seconds = {
            stage: statistics.median(each.seconds.get(stage, 0.0) for each in chosen)
            for stage in (*STAGES, "other")
        } | {"hand over": handed}
        total = sum(seconds.values())
        peaks = [each.peak for each in chosen if each.peak is not None]
        rows.append(
            {"shape": name, "checkpoint": kind}
            | seconds
            | {
                "total s": total,
                "not forward, loss, metrics": f"{1 - sum(seconds[each] for each in USEFUL) / total:.0%}",
                "peak MB": max(peaks) / 1e6 if peaks else None,
                "weights MB": weights / 1e6,
            }
        )
    return rows


def main(given: Sequence[str] | None = None, console: Console | None = None) -> list[Row]:
    """Measures some checkpoints of each size and prints where their seconds go."""
    parser = argparse.ArgumentParser("tests.bench.unit", description=main.__doc__)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=("14m", "70m", "160m"))
    parser.add_argument("--checkpoints", type=int, default=4, help="of each; the first builds the model")
    parser.add_argument("--tokenizer", help="folder with a tokenizer; without one the probe is token ids")
    options, console = parser.parse_args(given), console or Console(width=160)
    rows: list[Row] = []
    for name in options.shapes:
        shape = replace(SHAPES[name], n=96, batch=16)
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            rows += pool.submit(rows_of, name, shape, options.checkpoints, options.tokenizer).result()
    console.print(f"{machine('cpu')}, one thread, processor seconds a unit")
    turned = [
        {"": stage} | {f"{row['shape']}, {row['checkpoint']}": row[stage] for row in rows}
        for stage in list(rows[0])[2:]
    ]
    console.print(table("a unit's seconds", turned))
    console.print(markdown(turned), soft_wrap=True, markup=False, highlight=False)
    return rows


if __name__ == "__main__":
    main()
