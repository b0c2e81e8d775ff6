"""The embedded suite as a source of checkpoints: what it consists of, and training what is not there."""

from collections.abc import Callable, Sequence
from pathlib import Path

from tracker.errors import RequestError, unknown_value
from tracker.nano.corpus import Corpus, Document, documents, prepare, text_digest
from tracker.nano.job import Job
from tracker.nano.recipe import NanoRecipe, encoding_of_model, size_of
from tracker.nano.workers import processors, run_jobs
from tracker.records import Checkpoint

OnProgress = Callable[[str, int, int, int, float], None]
"""Gets model, seed, finished step, steps in all, training loss (nats per token)."""


def suite_checkpoints(
    recipe: NanoRecipe, folder: Path, models: Sequence[str], seeds: int
) -> list[Checkpoint]:
    """List every checkpoint of the suite, trained or not; takes well under a second and imports no torch.

    Args:
        recipe: how the suite is trained.
        folder: where trained suites lie, each below ``<recipe digest>-<text digest>/``.
        models: names from ``SIZES``, each alone (rotary) or with an encoding behind it (``0.2m-alibi``).
        seeds: how many; seeds 0 to ``seeds - 1``.

    Returns:
        by model, seed, step; ``exists`` is True where the checkpoint is saved and None where it will be.

    Raises:
        RequestError: an unknown model, one named twice, none at all, or fewer than one seed.
        TrackerError: this Python carries too little text.
    """
    check_request(models, seeds)
    jobs = _jobs(recipe, documents(recipe.text_bytes), folder, models, seeds)
    return [checkpoint for job in jobs for checkpoint in job.checkpoints()]


def train_suite(
    recipe: NanoRecipe,
    folder: Path,
    models: Sequence[str],
    seeds: int,
    on_progress: OnProgress | None = None,
    threads: int | None = None,
) -> None:
    """Train what is not there yet: one process of one thread for each model and seed, longest first.

    Interrupted in any way, it leaves whole checkpoints only, and the next call goes on from the last.

    Args:
        recipe, folder, models, seeds: as for ``suite_checkpoints``.
        on_progress: called in this process, at most ten times a second for each training.
        threads: trainings side by side; None: as many as there are processors.

    Raises:
        RequestError: as ``suite_checkpoints``, or fewer than one thread.
        TrackerError: a training failed (the message names model, seed and step), or too little text.
    """
    check_request(models, seeds)
    if threads is not None and threads < 1:
        raise unknown_value("suite.threads", threads, "whole numbers from 1, or null for all processors")
    found = documents(recipe.text_bytes)
    pending = [job for job in _jobs(recipe, found, folder, models, seeds) if job.missing()]
    if not pending:
        return
    prepare(recipe, found, pending[0].corpus.folder)
    pending.sort(key=lambda job: job.size.non_embedding, reverse=True)

    def report(job: Job, step: int, loss: float) -> None:
        if on_progress is not None:
            on_progress(job.model, job.seed, step, recipe.train_steps, loss)

    run_jobs(pending, min(threads or processors(), processors()), report)


def check_request(models: Sequence[str], seeds: int) -> None:
    """Refuse models and seeds that the suite does not have, before anything is read or written.

    Raises:
        RequestError: names the field, the value and what is allowed.
    """
    if not models:
        raise RequestError("suite.models=[]: nothing to train; name at least one model")
    for model in models:
        size_of(model)
        encoding_of_model(model)
    if len(set(models)) < len(models):
        raise RequestError(f"suite.models={list(models)}: a model is named twice; name each once")
    if seeds < 1:
        raise unknown_value("suite.seeds", seeds, "whole numbers from 1")


def _jobs(
    recipe: NanoRecipe, found: list[Document], folder: Path, models: Sequence[str], seeds: int
) -> list[Job]:
    text = text_digest(found)
    root = Path(folder).absolute() / f"{recipe.digest}-{text[:8]}"
    corpus = Corpus(root / "text", text)
    return [
        Job(recipe, model, seed, corpus, root / model / f"seed-{seed}")
        for model in models
        for seed in range(seeds)
    ]
