"""Interleaved timing: every contender in turn, round after round, so that a slow minute slows them all."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tracker.measurement.process import share_buffers_of_products

from .contenders import Columns
from .shapes import Shape
from .worker import prepared

TESTS = Path(__file__).parent.parent


class NotRun(Exception):
    """A contender that cannot be run here; says why."""


class Local:
    """A contender in this process; its peak memory is mixed with that of the others."""

    def __init__(self, name: str, shape: Shape) -> None:
        self.runner, self.peak = prepared(name, shape)
        self.share = getattr(self.runner, "share", 1.0)

    def run(self) -> float:
        """Seconds of one whole measurement."""
        return self.runner.run()

    def columns(self) -> tuple[Columns, Columns]:
        """Means and standard errors over sequences."""
        return self.runner.columns()

    def close(self) -> None:
        """Nothing to end."""


class Child:
    """A contender in a process of its own, so that its peak memory is its own."""

    def __init__(self, name: str, shape: Shape, *, python: str = sys.executable, threads: int = 0) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  lives as long as the child
        share_buffers_of_products()
        paths = [str(TESTS), str(TESTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        try:
            self._process = subprocess.Popen(
                [python, "-m", "bench.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"},
            )
        except OSError as error:
            self._log.close()
            raise NotRun(f"{python} does not start: {error.strerror}") from error
        told = self._ask(json.dumps({"contender": name, "shape": asdict(shape), "threads": threads}))
        self.peak: int | None = told["peak"]
        self.share: float = told["share"]

    def _ask(self, line: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(line, file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            code = self._process.wait()
            self._log.seek(0)
            said = self._log.read().strip().splitlines() or [f"it ended with exit code {code}"]
            self.close()
            raise NotRun(said[-1])
        return json.loads(answer)

    def run(self) -> float:
        """Seconds of one whole measurement."""
        return self._ask("run")

    def columns(self) -> tuple[Columns, Columns]:
        """Means and standard errors over sequences."""
        means, errors = (
            {name: np.array(v, float) for name, v in part.items()} for part in self._ask("columns")
        )
        return means, errors

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._log.close()


@dataclass
class Lane:
    """What a contender has shown."""

    name: str
    seconds: list[float] = field(default_factory=list)
    peak: int | None = None
    share: float = 1.0
    """Of the work that was timed; the rest is scaled up."""
    not_run: str | None = None
    columns: Columns = field(default_factory=dict)
    errors: Columns = field(default_factory=dict)

    @property
    def best(self) -> float | None:
        """The quickest round, seconds: what disturbs a run only ever makes it longer."""
        return min(self.seconds, default=None)


def race(
    names: Iterable[str],
    shape: Shape,
    *,
    rounds: int,
    local: bool = False,
    threads: int = 0,
    pythons: dict[str, str | None] | None = None,
    columns: Collection[str] = (),
) -> dict[str, Lane]:
    """Times the contenders in turn.

    Args:
        names: keys of ``CONTENDERS``; the first is what the others are compared with.
        shape: model and tokens.
        rounds: how often each is run after its first, untimed call.
        local: all in this process instead of one process each.
        threads: torch threads of each; 0 leaves torch's own choice.
        pythons: interpreters of those that need another one; None where it is not at hand.
        columns: those that are asked for what they find as well.
    """
    lanes = {name: Lane(name) for name in names}
    runners: dict[str, Local | Child] = {}

    def start(lane: Lane) -> None:
        python = (pythons or {}).get(lane.name, sys.executable)
        if python is None:
            raise NotRun("no interpreter that has it was given")
        runner = Local(lane.name, shape) if local else Child(lane.name, shape, python=python, threads=threads)
        stack.callback(runner.close)
        runners[lane.name], lane.peak, lane.share = runner, runner.peak, runner.share

    def run(lane: Lane) -> None:
        lane.seconds.append(runners[lane.name].run())

    def ask(lane: Lane) -> None:
        if lane.name in columns:
            lane.columns, lane.errors = runners[lane.name].columns()

    with contextlib.ExitStack() as stack:
        for turn in (start, *(run for _ in range(rounds)), ask):
            for lane in lanes.values():
                if lane.not_run is None:
                    _take(turn, lane)
    return lanes


def _take(turn: Callable[[Lane], None], lane: Lane) -> None:
    """One contender's turn; where it breaks down, the others go on without it."""
    try:
        turn(lane)
    except NotRun as reason:
        lane.not_run, lane.seconds = str(reason), []
