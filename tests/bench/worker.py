"""One contender in a process of its own: ``python -m bench.worker`` reads what to do, a JSON line each.

The first line names contender and shape; the answer tells the peak memory of the first whole call. Then
``run`` is answered with seconds and ``columns`` with what was found, until the input ends.
"""

import json
import os
import sys
from typing import Any

import torch

from .contenders import CONTENDERS, Columns, Contender
from .memory import peak_beyond
from .shapes import Shape


def listed(columns: Columns) -> dict[str, Any]:
    """As JSON takes it."""
    return {name: value.tolist() for name, value in columns.items()}


def prepared(name: str, shape: Shape) -> tuple[Contender, int | None]:
    """The contender, warm, and the peak memory of its first whole call beyond the weights."""
    runner = CONTENDERS[name](shape)
    runner.warm()
    peak, _ = peak_beyond(runner.run, shape.device)
    return runner, peak


def main() -> None:
    """Answers until the input ends; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    request = json.loads(sys.stdin.readline())
    if request["threads"]:
        torch.set_num_threads(request["threads"])
    runner, peak = prepared(request["contender"], Shape(**request["shape"]))
    answer: Any = {"peak": peak, "share": getattr(runner, "share", 1.0)}
    while True:
        print(json.dumps(answer), file=answers, flush=True)
        order = sys.stdin.readline().strip()
        if not order:
            return
        answer = runner.run() if order == "run" else [listed(part) for part in runner.columns()]


if __name__ == "__main__":
    main()
