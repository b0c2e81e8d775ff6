"""One worker in a process of its own, kept warm: its imports and its model outlast each unit."""

import contextlib
import os
import resource
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tracker.engines.consistency import ModelSignature
from tracker.engines.placement import Placement
from tracker.engines.worker_spec import WorkerSpec
from tracker.errors import CheckpointError, TrackerError
from tracker.records import Fetched, Outcome, PlannedUnit

STOP_SECONDS = 5.0
_one_at_a_time = threading.Lock()
"""Starting and reaping children: the standard library does not expect that of several threads."""


class ProcessDied(Exception):
    """The process ended without an answer; says how."""


class TookTooLong(Exception):
    """The process was killed because its unit's time was over."""


@dataclass(frozen=True)
class Task:
    """One unit for a worker process."""

    planned: PlannedUnit
    fetched: Fetched | CheckpointError
    signature: ModelSignature
    """Of its model, as far as it is known."""


@dataclass(frozen=True)
class Report:
    """What a worker process reports of a unit."""

    outcome: Outcome
    signature: ModelSignature
    memory: int
    """Bytes that the process holds beside its model."""
    broken: bool
    """Whether CUDA would fail every later unit of the process."""


class WarmProcess:
    """Starts a worker process and exchanges messages with it; one thread at a time may do so."""

    def __init__(self, spec: WorkerSpec, placement: Placement, name: str) -> None:
        """Start it; it answers after its imports, which take seconds."""
        spawn = get_context("spawn")
        self._connection, theirs = spawn.Pipe()
        with _one_at_a_time:
            self._process: BaseProcess = spawn.Process(
                target=_serve, args=(spec, placement, theirs), name=name, daemon=True
            )
            with _without_interrupts():
                self._process.start()
        theirs.close()
        self.ready = False
        """Whether it has come through its imports."""

    @property
    def alive(self) -> bool:
        """Whether it can be given a unit, as far as is known."""
        return not self._connection.closed

    def carry_out(self, task: Task, seconds: float | None) -> Report:
        """Have a unit measured and recorded.

        Args:
            task: the unit.
            seconds: how long it may take, the process's start not counted; None: as long as it takes.

        Raises:
            ProcessDied, TookTooLong: no report came; the process has ended.
            TrackerError: what the worker raised; the sweep cannot go on.
        """
        try:
            if not self.ready:
                self.ready = self._answer(None) is not None
            self._connection.send(task)
            found = self._answer(seconds)
        except (EOFError, OSError) as error:
            self.stop(STOP_SECONDS)
            raise ProcessDied(_how_it_ended(self._process.exitcode)) from error
        if isinstance(found, BaseException):
            raise found
        return found

    def _answer(self, seconds: float | None) -> Any:
        """Wait for the next message; the end of the pipe is the end of the process."""
        if not wait([self._connection], seconds):
            self.stop()
            raise TookTooLong
        return self._connection.recv()

    def kill(self) -> None:
        """End the process at once, whatever it is doing; any thread may call this."""
        self._process.kill()

    def stop(self, patience: float = 0.0) -> None:
        """End the process, after ``patience`` seconds by force."""
        with contextlib.suppress(OSError):
            self._connection.close()
        with _one_at_a_time:
            self._process.join(patience)
            if self._process.is_alive():
                self._process.kill()
                self._process.join()


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Let a process that is started here ignore Ctrl-C from its first moment."""
    resource_tracker.ensure_running()  # started later, it would let interrupts through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
    return f"ended with code {code}"


def _serve(spec: WorkerSpec, placement: Placement, connection: Connection) -> None:
    """Measure units until the driver closes the pipe; the whole life of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver decides
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from tracker.engines.worker import Worker  # the driver imports no torch for this module

    worker = Worker.from_spec(spec, placement)
    with contextlib.suppress(EOFError, BrokenPipeError):  # the driver closed the pipe: nothing left to do
        connection.send("ready")
        while True:
            task: Task = connection.recv()
            worker.learn(task.planned.unit, task.signature)
            try:
                outcome = worker.run(task.planned, task.fetched)
            except TrackerError as error:
                connection.send(error)
                continue
            memory = max(0, _resident() - worker.model_bytes)
            signature = worker.signature(task.planned.unit)
            connection.send(Report(outcome, signature, memory, worker.broken))


def _end_with_parent() -> None:
    """End this process when its driver ends, also when that is killed."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _resident() -> int:
    """Return the bytes of memory that this process takes; its peak if the system gives no current value."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most << 10
