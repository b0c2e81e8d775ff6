"""What a GPU is asked to do for one measurement: kernels, copies and waits per layer, where its time goes.

``python -m tests.bench.launches`` needs CUDA. Small models are bound by the number of kernels, large ones by
what the kernels do: busy tells which, the share of the clock in which a kernel was running.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from rich.console import Console
from torch.profiler import ProfilerActivity, profile

from .contenders import Contender, Tracker
from .overhead import MustRun, of_pythia
from .shapes import Shape
from .tables import Row, machine, markdown, table

WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


def asked(runner: Contender) -> tuple[Row, list[tuple[str, float, int]]]:
    """One call's kernels, copies and waits, and its ten most expensive kernels: (name, ms, calls)."""
    for _ in range(2):
        runner.run()
    started = time.perf_counter()
    runner.run()
    plain = time.perf_counter() - started
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        runner.run()
    every = seen.key_averages()
    device = [each for each in every if each.device_type.name == "CUDA"]
    kernels = [each for each in device if not each.key.startswith("Mem")]
    copies = sum(each.count for each in device if each.key.startswith("Memcpy"))
    waits = sum(each.count for each in every if each.key in WAITS)
    busy = sum(each.self_device_time_total for each in device) / 1e6
    layers = runner.shape.layers
    row: Row = {
        "kernels a layer": sum(each.count for each in kernels) / layers,
        "copies a layer": copies / layers,
        "waits a layer": waits / layers,
        "ms": plain * 1e3,
        "kernels ms": busy * 1e3,
        "busy": f"{busy / plain:.0%}",
    }
    top = sorted(kernels, key=lambda each: -each.self_device_time_total)[:16]
    return row, [(each.key[:110], each.self_device_time_total / 1e3, each.count) for each in top]


def main(given: Sequence[str] | None = None, console: Console | None = None) -> list[Row]:
    """Counts what each shape asks of the GPU."""
    parser = argparse.ArgumentParser("tests.bench.launches", description=main.__doc__)
    parser.add_argument("--shapes", nargs="+", default=("70m-96-16", "410m-96-500", "70m-2048-8"))
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="bfloat16")
    parser.add_argument("--kernels", action="store_true", help="print the most expensive kernels too")
    options, console = parser.parse_args(given), console or Console(width=150)
    rows: list[Row] = []
    for text in options.shapes:
        name, n, batch = text.split("-")
        shape: Shape = replace(of_pythia(name, int(n), int(batch)), device="cuda", dtype=options.dtype)
        for kind in (MustRun, Tracker):
            row, top = asked(kind(shape))
            rows.append({"shape": f"{name}, n {n}, {batch} sequences", "run": kind.__name__} | row)
            for kernel, milliseconds, calls in top if options.kernels else ():
                console.print(f"{milliseconds:9.2f} ms {calls:6d} x {kernel}", markup=False, highlight=False)
            torch.cuda.empty_cache()
    console.print(machine("cuda"))
    console.print(table("asked of the GPU", rows))
    console.print(markdown(rows), soft_wrap=True, markup=False, highlight=False)
    return rows


if __name__ == "__main__":
    main()
