"""What a publisher did, as numbers and as sentences for the user."""

import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tracker.sinks.identity import RunIdentity


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
            undelivered: Collection[str], unreadable: Collection[Path]) -> Published:  # fmt: skip
    """The account of one publisher.

    Args:
        folder: the store's folder.
        rows: checkpoints that were sent.
        touched: the runs that were opened and their addresses, None for one that went to disk.
        failure: what W&B failed with.
        undelivered: run folders whose rows a server did not confirm.
        unreadable: record folders that do not read back.
    """
    urls = tuple(sorted({url.split("/runs/")[0] for url in touched.values() if url}))
    what = f"{_counted(rows, 'checkpoint')} in {_counted(len(touched), 'run')}"
    if failure is not None:
        sentences = list(_after_failure(folder, what, failure, undelivered))
    elif not touched:
        sentences = ["W&B: nothing new to send."]
    elif urls:
        sentences = [f"W&B: {what} at {', '.join(urls)}"]
    else:
        where = folder / "wandb"
        sentences = [
            f"W&B, offline: {what} written to {where}; after `wandb login`, {_sync(where)} delivers them."
        ]
    if unreadable:
        names = ", ".join(sorted(str(place) for place in unreadable)[:3])
        number = _counted(len(unreadable), "record")
        sentences.append(f"W&B: {number} not sent, since the tables do not read back: {names}")
    return Published(rows, len(touched), urls, failure, sentences)


def _after_failure(folder: Path, what: str, failure: str, undelivered: Collection[str]) -> Iterator[str]:
    where = folder / "wandb"
    yield f"W&B failed ({failure}); nothing is lost: {what} lie in {where}."
    yield (
        f"Once W&B answers, `tracker stream store={shlex.quote(str(folder))}` sends what is missing; "
        f"or deliver the files with {_sync(where)}."
    )
    for name in undelivered:
        sync = _sync(where / name, "--include-online ")
        yield f"Only partly delivered: {where / name}; {sync} delivers it."


def _sync(place: Path, options: str = "") -> str:
    return f"`wandb sync {options}{shlex.quote(str(place))}`"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
