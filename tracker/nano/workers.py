"""Runs training jobs side by side, one process of one thread each, and reports from all of them."""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from time import monotonic

from tracker.errors import TrackerError
from tracker.nano.job import Job

REPORT_SECONDS = 0.1
STOP_SECONDS = 5.0
OnJobStep = Callable[[Job, int, float], None]


@dataclass
class _Worker:
    job: Job
    process: BaseProcess
    step: int = 0


def processors() -> int:
    """Processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def run_jobs(jobs: list[Job], side_by_side: int, on_step: OnJobStep) -> None:
    """Train every job, at most ``side_by_side`` at a time, in the order given.

    Whatever ends this call early, an error or Ctrl-C, stops the processes first; what they saved stays,
    and the next call goes on from there.

    Args:
        jobs: what to train.
        side_by_side: processes at a time, at least 1.
        on_step: called in this process with job, finished step and training loss.

    Raises:
        TrackerError: a job failed; the message names model, seed and the last step it reported.
    """
    waiting, running = list(jobs), dict[Connection, _Worker]()
    try:
        while waiting or running:
            while waiting and len(running) < side_by_side:
                _start(waiting.pop(0), running)
            for connection in wait(list(running)):
                assert isinstance(connection, Connection)
                _receive(connection, running, on_step)
    finally:
        _stop([worker.process for worker in running.values()])


def _start(job: Job, running: dict[Connection, _Worker]) -> None:
    """Start one process with a pipe of its own: its end of file is seen even if it is killed."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_work, args=(job, theirs), name=f"nano {job.label}", daemon=True)
    process.start()
    theirs.close()
    running[ours] = _Worker(job, process)


def _receive(connection: Connection, running: dict[Connection, _Worker], on_step: OnJobStep) -> None:
    """Handle one message of one worker, or its end."""
    worker = running[connection]
    try:
        message = connection.recv()
    except EOFError:
        worker.process.join()
        reason = f"its process ended with code {worker.process.exitcode}"
        raise TrackerError(_failure(worker, reason)) from None
    match message:
        case ("step", step, loss):
            worker.step = step
            on_step(worker.job, step, loss)
        case ("failed", reason):
            raise TrackerError(_failure(worker, reason))
        case ("done",):
            del running[connection]
            connection.close()
            worker.process.join()


def _failure(worker: _Worker, reason: str) -> str:
    return (
        f"training of {worker.job.label} failed after step {worker.step}: {reason}. "
        f"What it saved below {worker.job.folder} stays; the same command goes on from there."
    )


def _stop(processes: list[BaseProcess]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(STOP_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()


def _work(job: Job, connection: Connection) -> None:
    """The whole life of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver decides
    with contextlib.suppress(BrokenPipeError):  # the driver is gone: stop quietly, the state is saved
        try:
            _train(job, connection)
        except BrokenPipeError:
            raise
        except Exception as error:
            connection.send(("failed", str(error) if isinstance(error, TrackerError) else repr(error)))
        else:
            connection.send(("done",))


def _train(job: Job, connection: Connection) -> None:
    import torch
    from filelock import FileLock
    from transformers.utils import logging

    from tracker.nano.training import train_model

    torch.set_num_threads(1)
    logging.disable_progress_bar()
    last = 0.0

    def report(step: int, loss: float) -> None:
        nonlocal last
        if monotonic() - last >= REPORT_SECONDS or step == job.recipe.train_steps:
            last = monotonic()
            connection.send(("step", step, loss))

    job.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(job.folder / ".lock"):  # a second driver waits here and then finds the work done
        train_model(job, report)
