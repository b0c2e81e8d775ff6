"""What the name of a branch or folder says: training step, tokens seen, seed."""

import re
from dataclasses import dataclass

from tracker.errors import RequestError

KNOWN = (
    r"step[-_]?(?P<step>\d+)",
    r"checkpoint-(?P<step>\d+)",
    # Later stages count their steps from zero again, so only the first one is a trajectory by default.
    r"(?:stage1-)?step(?P<step>\d+)-tokens(?P<tokens>\d+[KMBT]?)",
)
"""The forms read by default: Pythia, transformers' Trainer, OLMo."""

EXAMPLES = "step1000, checkpoint-500, step1000-tokens4B, stage1-step1000-tokens4B"

_THOUSANDS = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


@dataclass(frozen=True)
class Named:
    """What one name says; None where it is silent."""

    step: int
    tokens: int | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Labels:
    """What checkpoints are recorded under; None where their source is to name it."""

    suite: str | None = None
    model: str | None = None
    seed: int = 0
    """Where no name says it."""


def compiled(pattern: str | None) -> tuple[re.Pattern[str], ...]:
    """Return the regular expressions that a name is tried against: the user's own one, or the known forms.

    Args:
        pattern: regular expression for the whole name, with a group ``(?P<step>...)`` and optionally
            ``(?P<tokens>...)`` and ``(?P<seed>...)``; None for the known forms.

    Raises:
        RequestError: the pattern is no regular expression, or has no group named ``step``.
    """
    if pattern is None:
        return tuple(re.compile(known) for known in KNOWN)
    try:
        own = re.compile(pattern)
    except re.error as error:
        raise RequestError(f"suite.pattern={pattern}: not a regular expression: {error}") from error
    if "step" not in own.groupindex:
        raise RequestError(
            f"suite.pattern={pattern}: has no group named step; write the digits of the step as "
            r"(?P<step>\d+), and where the name has them (?P<tokens>\d+) and (?P<seed>\d+)"
        )
    return (own,)


def read(name: str, pattern: str | None = None) -> Named | None:
    """Read one name; the whole of it has to match.

    Args:
        name: of a branch or folder.
        pattern: see ``compiled``.

    Returns:
        What it says, or None where it does not match. ``tokens`` may end in K, M, B or T (10^3 to 10^12).

    Raises:
        RequestError: the pattern is wrong, or one of its groups matched something that is not a number.
    """
    for expression in compiled(pattern):
        match = expression.fullmatch(name)
        if match is not None:
            return _named(match, pattern)
    return None


def _named(match: re.Match[str], pattern: str | None) -> Named:
    groups = match.groupdict()
    numbers = {key: _number(groups.get(key)) for key in ("step", "tokens", "seed")}
    for key, number in numbers.items():
        if number is None and (key == "step" or groups.get(key)):
            raise RequestError(
                f"suite.pattern={pattern}: its group {key} matched {groups.get(key)!r} in the name "
                f"{match.string!r}, which is not a number; let the group match digits only"
            )
    step = numbers["step"]
    assert step is not None
    return Named(step, numbers["tokens"], numbers["seed"])


def _number(text: str | None) -> int | None:
    match = re.fullmatch(r"([0-9]+)([KMBT]?)", text or "", re.IGNORECASE)
    return int(match[1]) * _THOUSANDS.get(match[2].upper(), 1) if match else None
