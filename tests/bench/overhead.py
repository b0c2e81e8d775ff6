"""Overhead over what must be run: processor seconds of ``measure`` beside those of the bare passes it needs.

What must be run are the original and the shortened sequences and those of prefix matching, once through the
body with SDPA, and the vocabulary head at the positions that the loss is scored at. Everything that is timed
takes turns in one process, and medians are compared: other work on the machine changes how long a call takes,
hardly how much processor time. ``python -m tests.bench.overhead`` prints this table alone.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from tracker.metrics.scale import kept_positions
from tracker.models.architecture import model_facts
from tracker.models.loss import loss_positions

from .contenders import Bare, Tracker
from .shapes import SHAPES, Shape
from .tables import Row, machine, markdown, table

HEAD_TOKENS = 256
"""Tokens whose logits are there at once."""


class MustRun(Bare):
    """Every bare forward pass that the measurement needs, and the head where the loss is scored."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        facts = model_facts(self.model)
        everywhere = facts.vocabulary * facts.d_model < facts.params_non_embedding
        self.scored = np.unique(np.concatenate(loss_positions(shape.n, all_positions=everywhere)))
        self.shortened = [self.ids[:, kept_positions(shape.n, alpha)] for alpha in Tracker.alphas]

    def work(self) -> None:
        with torch.inference_mode():
            hidden = self._pass(self.ids)
            for ids in (*self.shortened, self.prefix_ids):
                self._pass(ids)
            head = self.model.get_output_embeddings()
            for tokens in hidden[:, self.scored].flatten(0, 1).split(HEAD_TOKENS):
                head(tokens)

    def _pass(self, ids: np.ndarray) -> Tensor:
        given = torch.from_numpy(ids).to(self.model.device)
        return self.model.base_model(input_ids=given, use_cache=False).last_hidden_state


def of_pythia(name: str, n: int, batch: int) -> Shape:
    """A shape by its name with other tokens."""
    return replace(SHAPES[name], n=n, batch=batch)


def shapes() -> list[tuple[str, Shape]]:
    """What people run: the default probe on four sizes, and longer sequences."""
    default = [(name, of_pythia(name, 96, 16)) for name in ("14m", "70m", "160m", "410m")]
    return [*default, ("70m", of_pythia("70m", 512, 8)), ("70m", of_pythia("70m", 2048, 2))]


@dataclass(frozen=True)
class Medians:
    """Processor seconds of one call, medians over the rounds."""

    bare: float
    must: float
    full: float


def processor_seconds(work: Callable[[], Any], device: str) -> float:
    """Seconds of one call: of the processor over all threads, or, on a GPU, by the clock."""
    clock = time.process_time
    if device == "cuda":
        torch.cuda.synchronize()
        clock = time.perf_counter
    started = clock()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - started


def medians(shape: Shape, rounds: int, threads: int) -> Medians:
    """Bare forward, what must be run and the whole measurement in turn, on one set of weights."""
    torch.set_num_threads(threads)
    runners = [kind(shape) for kind in (Bare, MustRun, Tracker)]
    for runner in runners:
        runner.model = runners[0].model
    seconds: list[list[float]] = [[] for _ in runners]
    for turn in range(rounds + 1):
        for runner, taken in zip(runners, seconds, strict=True):
            runner.prepare()
            found = processor_seconds(runner.work, shape.device)
            if turn:  # the first call of each fills caches
                taken.append(found)
    return Medians(*(statistics.median(taken) for taken in seconds))


def overhead_rows(
    wanted: Iterable[tuple[str, Shape]],
    *,
    rounds: int,
    threads: Sequence[int] = (),
    told: Callable[[Row], Any] = lambda row: None,
) -> list[Row]:
    """One row per shape and number of threads: one, and all that torch would take; ``told`` gets each."""
    every = torch.get_num_threads()
    rows: list[Row] = []
    try:
        for name, shape in wanted:
            for number in threads or sorted({1, every}):
                rows.append(_row(name, shape, number, medians(shape, rounds, number)))
                told(rows[-1])
    finally:
        torch.set_num_threads(every)
    return rows


def _row(name: str, shape: Shape, threads: int, found: Medians) -> Row:
    return {
        "shape": f"{name}, n {shape.n}, {shape.batch} sequences",
        "threads": str(threads),
        "bare s": found.bare,
        "must be run s": found.must,
        "tracker s": found.full,
        "tracker / bare": found.full / found.bare,
        "overhead": found.full / found.must,
    }


def main(given: Sequence[str] | None = None, console: Console | None = None) -> list[Row]:
    """Prints the table of overheads alone and returns its rows."""
    parser = argparse.ArgumentParser("tests.bench.overhead", description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="timed calls of each; medians are printed")
    parser.add_argument("--threads", type=int, nargs="+", default=(), help="torch threads; default 1 and all")
    parser.add_argument("--only", nargs="+", default=(), metavar="NAME", help="as 14m-96: these shapes alone")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    options, console = parser.parse_args(given), console or Console(width=140)
    wanted = [
        (name, replace(shape, device=options.device, dtype=options.dtype))
        for name, shape in shapes()
        if not options.only or f"{name}-{shape.n}" in options.only
    ]

    def told(row: Row) -> None:  # a machine that is lent may be gone before the last
        console.print(", ".join(f"{name} {value}" for name, value in row.items()), highlight=False)

    rows = overhead_rows(wanted, rounds=options.rounds, threads=options.threads, told=told)
    console.print(f"{machine(options.device)}, medians of {options.rounds} rounds, interleaved")
    console.print(table("overhead over what must be run", rows))
    console.print(markdown(rows), soft_wrap=True, markup=False, highlight=False)
    return rows


if __name__ == "__main__":
    main()
