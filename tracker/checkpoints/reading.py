"""Checkpoints from the names of a repository's revisions, or of repositories; what was not read is told."""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tracker.checkpoints import names
from tracker.checkpoints.files import listed
from tracker.checkpoints.names import FIRST_STAGES, ON_HUB, Named
from tracker.errors import RequestError, unknown_value
from tracker.records import Checkpoint

MOST_CHOICES = 10_000
"""Numbers that a pair of braces may stand for: a slip of the keys must not make millions of repositories."""
NO_CHECKPOINTS = ("main", "master")


@dataclass(frozen=True)
class Naming:
    """How the names of a suite are read."""

    pattern: str | None = None
    """See ``names.compiled``."""
    tokens_per_step: int | None = None
    """Gives tokens seen where names have none, and steps where names have tokens alone."""
    stages: tuple[str, ...] | None = None
    """Which stages are taken; None: pretraining alone."""

    def read(self, name: str) -> Named | None:
        """Read one name; of a folder, ``branch:folder``, its whole path or else the last part of it."""
        folder = name.partition(":")[2]
        if not folder:
            return names.read(name, self.pattern, ON_HUB)
        return names.read(folder, self.pattern) or names.read(folder.rpartition("/")[2], self.pattern)


@dataclass(frozen=True)
class Found:
    """Checkpoints, and what a person should know of how they were found."""

    checkpoints: list[Checkpoint]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Read:
    """What the names of one repository say."""

    repo: str
    checkpoints: dict[str | None, list[Checkpoint]]
    """By stage; None is pretraining. Each ordered by seed and step."""
    notes: tuple[str, ...]

    def chosen(self, stages: Sequence[str] | None) -> Found:
        """Return the checkpoints of some stages (``pretraining`` too is one); None: of pretraining, or of all
        stages where there is none.

        Raises:
            RequestError: there is no such stage.
        """
        present = ["pretraining" if stage is None else stage for stage in self.checkpoints]
        for stage in stages or ():
            if stage not in present and stage not in FIRST_STAGES:
                raise unknown_value("suite.stages", stage, present)
        if stages is None:
            wanted = {None} if None in self.checkpoints else set(self.checkpoints)
        else:
            wanted = {None if stage in FIRST_STAGES else stage for stage in stages}
        taken = [each for stage in sorted(wanted, key=str) for each in self.checkpoints.get(stage, ())]
        others = {stage: len(held) for stage, held in self.checkpoints.items() if stage not in wanted}
        told = ", ".join(f"{stage or 'pretraining'} ({count})" for stage, count in others.items())
        left = (
            f"{self.repo}: stages that are not planned: {told}; suite.stages=[{','.join(present)}] adds them"
        )
        return Found(_ordered(taken), (*self.notes, *([left] if others else [])))


def read_revisions(like: Checkpoint, commits: Mapping[str, str], naming: Naming) -> Read:
    """Read the names of a repository's revisions.

    Args:
        like: gives suite, model and repository, and the seed where a name has none.
        commits: revision -> commit.
        naming: how names are read.
    """
    taken: dict[tuple[str | None, int, int], Checkpoint] = {}
    unread, notes, by_tokens = [], [], False
    for revision, commit in sorted(commits.items(), key=lambda each: (":" in each[0], each)):
        read = naming.read(revision)
        if read is None:
            unread += [] if _names_no_step(revision) else [revision]
            continue
        by_tokens |= read.step is None and not naming.tokens_per_step
        found = replace(_placed(like, read, naming), revision=revision, commit=commit, exists=True)
        other = taken.setdefault((read.stage, found.seed, found.step), found)
        if other is not found:
            notes.append(
                f"{like.location}: {other.revision} and {revision} are both {found.label}; {revision} is "
                "left out; to read it, set suite.pattern to a form that keeps them apart"
            )
    notes += [_tokens_alone(like.location)] if by_tokens else []
    notes += [unread_note(like.location, unread)] if unread else []
    stages: dict[str | None, list[Checkpoint]] = {}
    for (stage, _, _), checkpoint in taken.items():
        stages.setdefault(stage, []).append(checkpoint)
    return Read(like.location, {stage: _ordered(held) for stage, held in stages.items()}, tuple(notes))


def read_repositories(like: Checkpoint, repos: Iterable[str], naming: Naming) -> Found:
    """Read a suite that has one repository per checkpoint, from the repositories' names; without a request.

    Args:
        like: gives suite and model, and the seed where a name has none.
        repos: ``owner/name`` each; their branch main is the checkpoint.
        naming: how names without the owner are read.

    Raises:
        RequestError: no name is read, or two are of one step.
    """
    found: dict[tuple[str, int, int], Checkpoint] = {}
    unread = []
    for repo in repos:
        read = naming.read(repo.rpartition("/")[2])
        if read is None:
            unread.append(repo)
            continue
        one = replace(_placed(like, read, naming), location=repo, revision="main")
        other = found.setdefault((one.model, one.seed, one.step), one)
        if other is not one:
            raise RequestError(
                f"suite.repos: {other.location} and {repo} are both {one.label}; leave one out"
            )
    if not found:
        raise RequestError(f"suite.repos: no name has a step; found {listed(unread)}; set suite.pattern")
    return Found(_ordered(found.values()), (unread_note("suite.repos", unread),) if unread else ())


def expanded(repo: str) -> list[str]:
    """Expand the braces in a repository's name as a shell does.

    Raises:
        RequestError: a range that falls, or of more than ``MOST_CHOICES`` numbers.

    Example:
        >>> expanded("lab/seed_{0..1}-step_{0,20}k")
        ['lab/seed_0-step_0k', 'lab/seed_0-step_20k', 'lab/seed_1-step_0k', 'lab/seed_1-step_20k']
    """
    parts = enumerate(re.split(r"\{([^{}]*)\}", repo))
    choices = [_choices(part, repo) if at % 2 else [part] for at, part in parts]
    return ["".join(each) for each in itertools.product(*choices)]


def _choices(text: str, repo: str) -> list[str]:
    match = re.fullmatch(r"(\d+)\.\.(\d+)", text)
    if match is None:
        return text.split(",")
    first, last = int(match[1]), int(match[2])
    if not first <= last < first + MOST_CHOICES:
        raise RequestError(
            f"suite.repo={repo}: {{{text}}} is no range of 1 to {MOST_CHOICES} rising numbers, as {{0..4}} is"
        )
    return [str(each) for each in range(first, last + 1)]


def _placed(like: Checkpoint, read: Named, naming: Naming) -> Checkpoint:
    return replace(
        like,
        model=read.model(like.model),
        seed=like.seed if read.seed is None else read.seed,
        step=read.at(naming.tokens_per_step),
        tokens_seen=read.seen(naming.tokens_per_step),
    )


def _ordered(checkpoints: Iterable[Checkpoint]) -> list[Checkpoint]:
    return sorted(checkpoints, key=lambda each: (each.model, each.seed, each.step))


def _names_no_step(revision: str) -> bool:
    """Whether a name is none that could be meant for a checkpoint: folders are often of other things."""
    return revision in NO_CHECKPOINTS or (":" in revision and not re.search(r"\d", revision))


def _tokens_alone(repo: str) -> str:
    return (
        f"{repo}: its names count tokens, not steps: `step` counts millions of tokens; "
        "suite.tokens_per_step=N turns them into steps"
    )


def unread_note(place: str, unread: Sequence[str]) -> str:
    """Say which names of a place were not read as checkpoints, with the pattern to write for them."""
    with_digits = next((name for name in unread if re.search(r"\d", name)), None)
    form = names.suggested(re.split("[/:]", with_digits)[-1]) if with_digits else r"NAME(?P<step>\d+)"
    return (
        f"{place}: not read as checkpoints: {listed(unread)}; a form of their own is given as "
        f"\"suite.pattern='{form}'\""
    )
