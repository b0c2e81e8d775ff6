"""Runs training jobs side by side, in processes of one thread each, and reports from all of them."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from time import monotonic

from tracker.atomic import locked
from tracker.errors import TrackerError
from tracker.nano.job import Job

REPORT_SECONDS = 0.1
OnJobStep = Callable[[Job, int, float], None]
_reports: "Connection | None" = None
"""In a worker process: the pipe to the process that started it; a message is one atomic write."""


def processors() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def run_jobs(jobs: list[Job], side_by_side: int, on_step: OnJobStep) -> None:
    """Train every job, at most ``side_by_side`` at a time, in the order given.

    Whatever ends this call early, an error or Ctrl-C, stops the processes first; what they saved stays,
    and the next call resumes from there.

    Args:
        jobs: what to train.
        side_by_side: processes at a time, at least 1.
        on_step: called in this process with job, finished step and training loss.

    Raises:
        TrackerError: a job failed; the message names model, seed and the last step it reported.
    """
    spawn, others = multiprocessing.get_context("spawn"), set(multiprocessing.active_children())
    ours, theirs = spawn.Pipe(duplex=False)
    pool = ProcessPoolExecutor(side_by_side, spawn, _begin, (theirs,))
    steps = [0] * len(jobs)
    try:
        pending = {pool.submit(_train, number, job): number for number, job in enumerate(jobs)}
        while pending:
            done, _ = wait(pending, REPORT_SECONDS, FIRST_COMPLETED)
            while ours.poll():
                number, steps[number], loss = ours.recv()
                on_step(jobs[number], steps[number], loss)
            for future in sorted(done, key=lambda each: pending[each]):
                error = future.exception()
                if isinstance(error, BrokenProcessPool):  # it breaks off every training that was running
                    running = sorted(pending.values())[:side_by_side]
                    raise _failure(jobs, steps, running, "its process was killed") from None
                if error is not None:
                    reason = str(error) if isinstance(error, TrackerError) else repr(error)
                    raise _failure(jobs, steps, [pending[future]], reason) from None
                del pending[future]
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        ours.close()
        theirs.close()


def _failure(jobs: list[Job], steps: list[int], failed: list[int], reason: str) -> TrackerError:
    which = " or ".join(f"{jobs[number].label} failed after step {steps[number]}" for number in failed)
    folders = ", ".join(str(jobs[number].folder) for number in failed)
    return TrackerError(
        f"training of {which}: {reason}. Checkpoints below {folders} are kept; run the same command to "
        "resume."
    )


def _begin(reports: Connection) -> None:
    """Prepare a worker process."""
    global _reports
    _reports = reports
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver decides
    import torch
    from transformers.utils import logging

    torch.set_num_threads(1)
    logging.disable_progress_bar()


def _train(number: int, job: Job) -> None:
    """Train one job in a worker process."""
    from tracker.nano.training import train_model

    last = 0.0

    def report(step: int, loss: float) -> None:
        nonlocal last
        if _reports is not None and (monotonic() - last >= REPORT_SECONDS or step == job.recipe.train_steps):
            last = monotonic()
            try:
                _reports.send((number, step, loss))
            except BrokenPipeError:  # the driver was killed; all that this process has to lose is saved
                os._exit(1)

    with locked(job.folder / ".lock"):  # a second driver waits here and then finds the work done
        train_model(job, report)
