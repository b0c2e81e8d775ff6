"""The benchmark's command: ``python -m tests.bench``, tables of contenders, overheads and growing shapes."""

import argparse
import importlib.util
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from .agreement import disagreements, in_standard_errors
from .contenders import CONTENDERS
from .overhead import overhead_rows, shapes
from .race import Lane, race
from .shapes import SHAPES, Shape
from .tables import Row, described, machine, markdown, race_rows, sweep_row, table
from .vectorised import LEFT_OUT

SWEPT = {"n": (128, 256, 512, 1024), "layers": (3, 6, 12), "heads": (4, 8, 16), "batch": (2, 8, 16)}
NOTES = {
    "tracker, no scale variants": "alphas=()",
    "TransformerLens": f"{LEFT_OUT}; times tracker without scale variants",
}


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("tests.bench", description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="70m")
    parser.add_argument("--n", type=int, help="tokens per sequence; the shape's own by default")
    parser.add_argument("--batch", type=int, help="sequences; the shape's own by default")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--rounds", type=int, default=5, help="timed calls of each contender")
    parser.add_argument("--threads", type=int, default=0, help="torch threads; by default torch's own choice")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, help="race these alone")
    parser.add_argument("--sweep", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--overhead", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--local", action="store_true", help="all in this process; peaks are then mixed")
    parser.add_argument("--transformer-lens", metavar="PYTHON", help="interpreter that has it")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--markdown", action="store_true", help="print the tables as markdown too")
    return parser.parse_args(given)


def lens_python(given: str | None) -> str | None:
    """The interpreter for TransformerLens: the one given, this one where it has it, or none."""
    return given or (sys.executable if importlib.util.find_spec("transformer_lens") else None)


def main_race(options: argparse.Namespace, shape: Shape) -> dict[str, Lane]:
    """All contenders on one shape, with the columns of the two that ``queries_row`` compares."""
    names = options.only or list(CONTENDERS)
    if options.local and not options.only:
        names.remove("TransformerLens")
    lanes = race(
        names,
        shape,
        rounds=options.rounds,
        local=options.local,
        threads=options.threads,
        pythons={"TransformerLens": lens_python(options.transformer_lens)},
        columns=("tracker", "tracker, 128 queries", "TransformerLens"),
    )
    return lanes


def queries_row(every: Lane, some: Lane) -> Row:
    """What 128 evenly spaced query rows save, and what they cost in precision."""
    apart = in_standard_errors(some.columns, every.columns, every.errors)
    worst = max(apart, key=lambda name: apart[name])
    moved = sorted(value for value in apart.values() if value > 0)
    return {
        "option": "spectrum.queries=128",
        "speed-up": every.best / some.best if every.best and some.best else None,
        "largest error, standard errors": apart[worst],
        "in column": worst,
        "median over columns that it changes": moved[len(moved) // 2] if moved else 0.0,
    }


def lens_row(tracker: Lane, lens: Lane) -> Row:
    """Whether the vectorised metrics on TransformerLens's patterns are tracker's."""
    apart = disagreements(lens.columns, tracker.columns)
    worst = max(apart, key=lambda name: apart[name])
    return {
        "TransformerLens against tracker": f"{len(apart)} columns in common",
        "largest difference, of 1e-4 relative or 1e-6": apart[worst],
        "in column": worst,
    }


def sweep_rows(options: argparse.Namespace, shape: Shape) -> list[Row]:
    """Bare forward and tracker on shapes that differ from the base shape in one number."""
    rows, seen = [], {}
    for axis, values in SWEPT.items():
        for value in values:
            varied = replace(shape, **{axis: value})
            if varied not in seen:
                seen[varied] = race(
                    ("bare forward", "tracker"),
                    varied,
                    rounds=min(options.rounds, 2),
                    local=options.local,
                    threads=options.threads,
                )
            rows.append(sweep_row(f"{axis} = {value}", varied, seen[varied]))
    return rows


def all_tables(options: argparse.Namespace, shape: Shape) -> dict[str, list[Row]]:
    """Every table by its title."""
    lanes = main_race(options, shape)
    rows = race_rows(lanes)
    for row in rows:
        row["note"] = row["note"] or NOTES.get(str(row["contender"]), "")
    found = {"contenders": rows}
    lane = {name: each for name, each in lanes.items() if each.columns}
    if {"tracker", "tracker, 128 queries"} <= lane.keys():
        found["queries"] = [queries_row(lane["tracker"], lane["tracker, 128 queries"])]
    if {"tracker", "TransformerLens"} <= lane.keys():
        found["agreement"] = [lens_row(lane["tracker"], lane["TransformerLens"])]
    if options.overhead:
        wanted = [
            (name, replace(each, device=options.device, dtype=options.dtype)) for name, each in shapes()
        ]
        threads = [options.threads] if options.threads else []
        found["overhead over what must be run"] = overhead_rows(
            wanted, rounds=options.rounds, threads=threads
        )
    if options.sweep:
        found["sweep"] = sweep_rows(options, shape)
    return found


def main(given: Sequence[str] | None = None, console: Console | None = None) -> dict[str, Any]:
    """Runs the benchmark, prints its tables and returns them."""
    options, console = arguments(given), console or Console(width=None if sys.stdout.isatty() else 160)
    changed = {name: getattr(options, name) for name in ("n", "batch") if getattr(options, name)}
    shape = replace(SHAPES[options.shape], device=options.device, dtype=options.dtype, **changed)
    title = f"{described(shape)}\n{machine(shape.device)}, best of {options.rounds} rounds, interleaved"
    found = all_tables(options, shape)
    console.print(title)
    for name, rows in found.items():
        console.print(table(name, rows))
        if options.markdown:
            console.print(markdown(rows), soft_wrap=True, markup=False, highlight=False)
    result = {"shape": asdict(shape), "machine": machine(shape.device), "tables": found}
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    return result


if __name__ == "__main__":
    main()
