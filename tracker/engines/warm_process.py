"""One worker in a process of its own, kept warm: its imports and its model outlast each unit."""

import contextlib
import math
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tracker.engines.placement import Placement
from tracker.engines.worker_spec import WorkerSpec
from tracker.errors import CheckpointError, TrackerError
from tracker.records import Fetched, Outcome, PlannedUnit

ALIVE = "alive"
"""What a process sends while it measures."""
SIGN_SECONDS = 5.0
"""How often it does."""
SILENT_SECONDS = 120.0
"""A process that sends nothing for so long stands still: stopped, or waiting for a dead file system."""
STOP_SECONDS = 5.0
"""How long a process has to end by itself."""
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


@dataclass(frozen=True)
class Report:
    """What a worker process reports of a unit."""

    outcome: Outcome
    memory: int
    """Bytes that the process holds beside its model."""
    broken: bool
    """Whether CUDA would fail every later unit of the process."""


class WarmProcess:
    """A worker process, started anew whenever it is needed and gone; one thread at a time may use it.

    Args:
        spec, placement: what the worker is made from, and where it runs.
        name: of the process.
        recycle_bytes: a process that holds more memory than this beside its model is replaced.
    """

    def __init__(
        self, spec: WorkerSpec, placement: Placement, name: str, recycle_bytes: int | None = None
    ) -> None:
        self.name = name
        self.ready = False
        """Whether the present or last process has come through its imports."""
        self.failed_starts = 0
        """Processes in a row that died during their imports."""
        self._spec, self._placement, self._recycle_bytes = spec, placement, recycle_bytes
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None
        self._worn_out = self._closed = False

    def start(self) -> Connection:
        """Start a process if there is none that can be used; it answers after its imports, in seconds."""
        if self._worn_out:
            self.stop(STOP_SECONDS)
        if self._connection is None:
            spawn = get_context("spawn")
            self._connection, theirs = spawn.Pipe()
            self.ready = False
            with _one_at_a_time, _without_interrupts():
                process = spawn.Process(
                    target=_serve, args=(self._spec, self._placement, theirs), name=self.name, daemon=True
                )
                process.start()
            theirs.close()
            self._process = process
            if self._closed:  # `kill` came meanwhile
                process.kill()
        return self._connection

    def carry_out(self, task: Task, limit: Callable[[], float] = lambda: math.inf) -> Report:
        """Have a unit measured and recorded.

        Args:
            task: the unit.
            limit: how many seconds it may take, the process's start not counted, by what is known by then.

        Raises:
            ProcessDied, TookTooLong: no report came; the process has ended.
            TrackerError: what the worker raised; the sweep cannot go on.
        """
        connection = self.start()
        try:
            if not self.ready:
                self._answer(connection, lambda: math.inf)
                self.ready, self.failed_starts = True, 0
            connection.send(task)
            found = self._answer(connection, limit)
        except ProcessDied:
            self.failed_starts += not self.ready
            raise
        except (EOFError, OSError) as error:  # the end of the pipe is the end of the process
            self.failed_starts += not self.ready
            raise ProcessDied(_how_it_ended(self.stop(STOP_SECONDS))) from error
        if isinstance(found, BaseException):
            raise found
        grown = self._recycle_bytes is not None and found.memory > self._recycle_bytes
        self._worn_out = found.broken or grown
        return found

    def _answer(self, connection: Connection, limit: Callable[[], float]) -> Any:
        """Wait for a report; a process that gives no sign of life any more is ended.

        Time in which this process itself was stopped, as by Ctrl-Z, does not count.

        Raises:
            ProcessDied, TookTooLong: as of ``carry_out``.
        """
        spent = silent = 0.0
        while True:
            piece = max(0.0, min(SIGN_SECONDS, limit() - spent, SILENT_SECONDS - silent))
            began = time.monotonic()
            if wait([connection], piece):
                silent, found = 0.0, connection.recv()
                if found != ALIVE:
                    return found
            else:
                silent += piece
            spent += min(piece, time.monotonic() - began)
            if spent >= limit():
                self.stop()
                raise TookTooLong
            if silent >= SILENT_SECONDS:
                self.stop()
                raise ProcessDied(f"gave no sign of life for {SILENT_SECONDS:g} s")

    def kill(self) -> None:
        """End the process at once, whatever it is doing, for good; any thread may call this."""
        self._closed = True
        if self._process is not None:
            self._process.kill()

    def stop(self, patience: float = 0.0) -> int | None:
        """End the process, after ``patience`` seconds by force; return its exit code."""
        if self._connection is None or self._process is None:
            return None
        with contextlib.suppress(OSError):
            self._connection.close()
        with _one_at_a_time:
            self._process.join(patience)
            if self._process.is_alive():
                self._process.kill()
                self._process.join()
        self._connection, self._worn_out = None, False
        return self._process.exitcode


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
    with _showing_life(connection):
        from tracker.engines.worker import Worker  # the driver imports no torch for this module

        worker = Worker.from_spec(spec, placement)
    with contextlib.suppress(EOFError, BrokenPipeError):  # the driver closed the pipe: nothing left to do
        connection.send("ready")
        while True:
            task: Task = connection.recv()
            try:
                with _showing_life(connection):
                    outcome = worker.run(task.planned, task.fetched)
            except TrackerError as error:
                connection.send(error)
                continue
            memory = max(0, _resident() - worker.model_bytes)
            connection.send(Report(outcome, memory, worker.broken))


@contextlib.contextmanager
def _showing_life(connection: Connection) -> Iterator[None]:
    """Send ``ALIVE`` every few seconds for the length of a block."""
    ended = threading.Event()

    def send() -> None:
        while not ended.wait(SIGN_SECONDS):
            with contextlib.suppress(OSError):
                connection.send(ALIVE)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    try:
        yield
    finally:
        ended.set()
        sender.join()


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
