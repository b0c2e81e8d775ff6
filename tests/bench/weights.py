"""What measuring weights costs beside reading them: ``python -m tests.bench.weights``.

Reading alone copies the same matrices from the file into memory, and is timed twice: from the system's page
cache, and from the disk after the cache was told to forget the file. Each round times reading and measuring
one after the other, on one thread. The figures of one layer are compared with numpy's in float64.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from tracker.measurement.measure import measure_model
from tracker.measurement.probe import probe_tokens
from tracker.measurement.weights import WeightMeter
from tracker.metrics.registry import option_columns
from tracker.models.layer_weights import LayerReader, LayerWeights
from tracker.records import Conventions

from .shapes import SHAPES, Shape, random_ids, random_model
from .tables import Row, machine, markdown, table

MEASURES: tuple[str, ...] = ("stable_rank", "effective_rank", "spectral_norm")


def matrices_of(layer: LayerWeights) -> dict[str, torch.Tensor]:
    """The layer's matrices by the names that columns end with."""
    assert layer.heads is not None
    heads = {name[0]: each.reshape(-1, each.shape[-1]) for name, each in vars(layer.heads).items()}
    return heads | {f"mlp_{part}": each for part, each in layer.mlp.items()}


def read_alone(reader: LayerReader, folder: Path) -> int:
    """Copies every matrix into memory; how many bytes that were."""
    return sum(each.clone().nbytes for layer in reader.layers(folder) for each in matrices_of(layer).values())


def seconds_of(work: Callable[[], object]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def forget(folder: Path) -> None:
    """Asks the system to drop the folder's files from its page cache."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def singular(matrix: np.ndarray) -> dict[str, float]:
    """The measures of a matrix from numpy's singular values."""
    found = np.linalg.svd(matrix, compute_uv=False)
    shares = found[found > 0] / found.sum()
    rank = float(np.exp(-(shares * np.log(shares)).sum()))
    return dict(zip(MEASURES, (float((found**2).sum() / found[0] ** 2), rank, float(found[0])), strict=True))


def accuracy(folder: Path) -> dict[str, float]:
    """The largest relative distance of each measure from numpy, over the first layer and its first head."""
    layer = next(LayerReader().layers(folder))
    assert layer.heads is not None
    found = WeightMeter().measure(folder)
    mine = found.layers.row(0, named=True) | {
        name: found.heads[name][0] for name in option_columns("weights", level="head")
    }
    exact = {part: each.double().numpy() for part, each in matrices_of(layer).items()}
    query, key, value, output = (each[0].double().numpy() for each in vars(layer.heads).values())
    exact |= {"qk": query.T @ key, "ov": output.T @ value}
    worst = dict.fromkeys(MEASURES, 0.0)
    for part, matrix in exact.items():
        for measure, wanted in singular(matrix).items():
            worst[measure] = max(worst[measure], abs(mine[f"{measure}_{part}"] / wanted - 1))
    return worst


def rows_of(folder: Path, rounds: int) -> list[Row]:
    """Reading alone and measuring, warm and cold: best of the rounds."""
    reader, meter = LayerReader(), WeightMeter()
    size = read_alone(reader, folder)
    meter.measure(folder)
    rows: list[Row] = []
    for state, before in (("page cache", lambda: None), ("disk", lambda: forget(folder))):
        best = {"read": float("inf"), "measure": float("inf")}
        for _ in range(rounds):
            for name, work in (
                ("read", lambda: read_alone(reader, folder)),
                ("measure", lambda: meter.measure(folder)),
            ):
                before()
                best[name] = min(best[name], seconds_of(work))
        rows.append(
            {
                "from": state, "MB read": size / 1e6, "reading alone, s": best["read"],
                "measuring, s": best["measure"], "ratio": best["measure"] / best["read"],
            }
        )  # fmt: skip
    return rows


def states_row(shape: Shape, rounds: int) -> Row:
    """Measuring a probe with and without hidden states, processor seconds, best of the rounds."""
    model, (ids, prefix) = random_model(shape), random_ids(shape)
    tokens = probe_tokens(ids, prefix)
    best = {False: float("inf"), True: float("inf")}
    for _ in range(rounds):
        for states in best:
            started = time.process_time()
            measure_model(model, tokens, Conventions(), states=states)
            best[states] = min(best[states], time.process_time() - started)
    return {"without, s": best[False], "with states, s": best[True], "ratio": best[True] / best[False]}


def main(given: Sequence[str] | None = None, console: Console | None = None) -> list[Row]:
    """Times the weights of one checkpoint and prints how far they are from numpy's."""
    parser = argparse.ArgumentParser("tests.bench.weights", description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="160m")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--half", action="store_true", help="the file is float16, as Pythia's are")
    options, console = parser.parse_args(given), console or Console(width=160)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = random_model(SHAPES[options.shape])
        (model.half() if options.half else model).save_pretrained(folder)
        rows, worst = rows_of(folder, options.rounds), accuracy(folder)
    console.print(f"{machine('cpu')}, {options.threads} threads, best of {options.rounds} rounds")
    console.print(table(f"weights of {options.shape}", rows))
    console.print(markdown(rows), soft_wrap=True, markup=False, highlight=False)
    row = states_row(replace(SHAPES[options.shape], n=96, batch=16), options.rounds)
    console.print(table("hidden states, 16 x 96 tokens", [row]))
    said = ", ".join(f"{measure} {error:.1e}" for measure, error in worst.items())
    console.print(f"largest relative distance from numpy.linalg.svd in float64: {said}")
    return rows


if __name__ == "__main__":
    main()
