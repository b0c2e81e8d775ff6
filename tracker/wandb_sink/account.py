"""What a publisher did, as numbers and as sentences for the user."""

import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tracker.wandb_sink.identity import RunIdentity


@dataclass(frozen=True)
class Published:
    """What one call of ``publish`` did."""

    rows: int = 0
    """Checkpoints sent by this call."""
    runs: int = 0
    """W&B runs that this call opened."""
    urls: tuple[str, ...] = ()
    """Addresses of the projects that the runs are in, where they went to a server."""
    failure: str | None = None
    """What W&B failed with, None where it did not; the rows then lie on disk."""
    sentences: list[str] = field(default_factory=list)
    """For the user: where the runs are, how to deliver them, or what went wrong."""


def account(folder: Path, rows: int, touched: Mapping[RunIdentity, str | None], failure: str | None,
            *, unsure: int = 0, left: int = 0, unreadable: Collection[Path] = (),
            refused: Mapping[str, str] | None = None, postponed: int = 0) -> Published:  # fmt: skip
    """The account of one publisher.

    Args:
        folder: the store's folder.
        rows: checkpoints that were sent.
        touched: the runs that were opened and their addresses, None for one that went to disk.
        failure: what W&B failed with.
        unsure: rows that a server may have or not.
        left: rows that are left to the publisher of another sweep.
        unreadable: record folders that do not read back.
        refused: artifacts that the server did not take, and why.
        postponed: artifacts that were too large to be sent at the end of a sweep.
    """
    urls = tuple(sorted({url.split("/runs/")[0] for url in touched.values() if url}))
    what = f"{_counted(rows, 'checkpoint')} in {_counted(len(touched), 'run')}"
    where = folder / "wandb"
    if failure is not None:
        sentences = list(_after_failure(folder, what, failure))
    elif not touched:
        sentences = ["W&B: nothing new to send."]
    elif urls:
        sentences = [f"W&B: {what} at {', '.join(urls)}"]
    else:
        sentences = [
            f"W&B, offline: {what} written to {where}; after `wandb login`, {_sync(where)} delivers them."
        ]
    if unsure:
        sentences.append(
            f"W&B: {_counted(unsure, 'checkpoint')} may have arrived or not when the connection broke; "
            f"{_stream(folder)} asks the server and sends what is missing, no file does."
        )
    if left:
        sentences.append(
            f"W&B: {_counted(left, 'checkpoint')} left to the publisher of another sweep that still measures "
            f"earlier ones; {_stream(folder)} makes sure."
        )
    if unreadable:
        names = ", ".join(sorted(str(place) for place in unreadable)[:3])
        number = _counted(len(unreadable), "record")
        sentences.append(f"W&B: {number} not sent, since the tables do not read back: {names}")
    if postponed:
        sentences.append(
            f"W&B: the records of {_counted(postponed, 'run')} are too large to be waited for; "
            f"{_stream(folder)} sends them as artifacts."
        )
    sentences += [f"W&B: the artifact {name} was not sent: {why}" for name, why in (refused or {}).items()]
    return Published(rows, len(touched), urls, failure, sentences)


def _after_failure(folder: Path, what: str, failure: str) -> Iterator[str]:
    where = folder / "wandb"
    yield f"W&B failed ({failure}); nothing is lost: {what} lie in {where}."
    yield (
        f"Once W&B answers, {_stream(folder)} sends what is missing; "
        f"or deliver the files that were written offline with {_sync(where)}."
    )


def _stream(folder: Path) -> str:
    return f"`tracker stream store={shlex.quote(str(folder))}`"


def _sync(place: Path) -> str:
    return f"`wandb sync {shlex.quote(str(place))}`"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
