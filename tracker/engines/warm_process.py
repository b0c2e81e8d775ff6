"""One worker in a process of its own, kept warm: its imports and its live module outlast each unit."""

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

from tracker.engines.consistency import Known
from tracker.engines.worker_spec import Placement, WorkerSpec
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
    known: Known


@dataclass(frozen=True)
class Report:
    """What a worker process tells of a unit."""

    outcome: Outcome
    known: Known
    memory: int
    """Bytes that the process holds beside its model."""


class WarmProcess:
    """Starts a worker process and speaks with it; one thread at a time may do so."""

    def __init__(self, worker_spec: WorkerSpec, placement: Placement, name: str) -> None:
        """Starts it; it answers after its imports, which take seconds."""
        spawn = get_context("spawn")
        self._connection, theirs = spawn.Pipe()
        with _one_at_a_time:
            self._process: BaseProcess = spawn.Process(
                target=_serve, args=(worker_spec, placement, theirs), name=name, daemon=True
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
        """Has a unit measured and recorded.

        Args:
            task: the unit.
            seconds: how long it may take, the process's start not counted; None: as long as it takes.

        Raises:
            ProcessDied, TookTooLong: no report came; the process is gone.
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
        """The next message; the end of the pipe is the end of the process, however it came."""
        if not wait([self._connection], seconds):
            self.stop()
            raise TookTooLong
        return self._connection.recv()

    def kill(self) -> None:
        """Ends the process at once, whatever it is doing; any thread may call this."""
        self._process.kill()

    def stop(self, patience: float = 0.0) -> None:
        """Ends the process, at once where there is no patience."""
        with contextlib.suppress(OSError):
            self._connection.close()
        with _one_at_a_time:
            self._process.join(patience)
            if self._process.is_alive():
                self._process.kill()
                self._process.join()


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """A process that is started here is deaf to Ctrl-C from its first moment."""
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


def _serve(worker_spec: WorkerSpec, placement: Placement, connection: Connection) -> None:
    """The whole life of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver decides
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    worker = worker_spec.worker(placement)
    with contextlib.suppress(EOFError, BrokenPipeError):  # the driver closed the pipe: nothing left to do
        connection.send("ready")
        while True:
            task: Task = connection.recv()
            worker.learn(task.planned.unit, task.known)
            try:
                outcome = worker.run(task.planned, task.fetched)
            except TrackerError as error:
                connection.send(error)
                continue
            memory = max(0, _resident() - worker.model_bytes)
            connection.send(Report(outcome, worker.known(task.planned.unit), memory))


def _end_with_parent() -> None:
    """A driver that was killed leaves no workers behind that go on measuring."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _resident() -> int:
    """Bytes of memory that this process takes now; at most so far where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most << 10
