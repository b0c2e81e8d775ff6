"""Training step, tokens seen, seed and stage from the name of a branch, tag or folder."""

import re
from dataclasses import dataclass

from tracker.errors import RequestError

KNOWN = (
    r"(?:(?P<stage>stage\d+)-(?:ingredient(?P<seed>\d+)-)?)?step[-_]?(?P<step>\d+)(?:-tokens(?P<tokens>\d+[KMBT]?))?",
    r"step[-_]?(?P<step>\d+)-(?P<tokens>\d+[KMBT])T?",
    r"step[-_]?(?P<step>\d+)-seed[-_]?(?P<seed>[a-z0-9]+(?:-[a-z0-9]+)*)",
    r"checkpoint-(?P<step>\d+)",
    r"(?:ckpt|iter|global_step)[-_]?(?P<step>\d+)",
)
"""The forms read by default: Pythia and OLMo, FineWeb's ablations, DataDecide, transformers' Trainer, Amber,
Megatron and DeepSpeed."""

ON_HUB = (*KNOWN, r"(?:train_|chck_|tokens?[-_]?)?(?P<tokens>\d+[KMBT])", r"(?P<step>\d+)")
"""Of revisions also tokens alone and bare numbers; folders of such names may be models (``1B``)."""

EXAMPLES = (
    "step1000, checkpoint-500, step1000-tokens4B, stage1-step1000-tokens4B, step-001000-2BT, "
    "step1000-seed-default, ckpt_000, iter_0002384, global_step1000"
)

FIRST_STAGES = ("pretraining", "stage1", "phase1")
"""How names and requests call pretraining itself; the others are stages after it."""

_THOUSANDS = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


@dataclass(frozen=True)
class Named:
    """What one name contains; None where it has no such part."""

    step: int | None
    """None: it counts tokens alone."""
    tokens: int | None = None
    seed: int | None = None
    stage: str | None = None
    """A stage after pretraining, as the name calls it: ``stage2``, ``decay``."""

    def at(self, tokens_per_step: int | None = None) -> int:
        """Return the step; of tokens alone the step they make, or, where that is unknown, their millions."""
        if self.step is not None:
            return self.step
        assert self.tokens is not None
        return round(self.tokens / tokens_per_step) if tokens_per_step else self.tokens // 10**6

    def seen(self, tokens_per_step: int | None = None) -> int | None:
        """Return the tokens seen, where the name or the tokens of a step tell them."""
        if self.tokens is None and self.step is not None and tokens_per_step and self.stage is None:
            return self.step * tokens_per_step
        return self.tokens

    def model(self, model: str) -> str:
        """Return the name to record under: a stage is a run of its own, never mixed with another's steps."""
        return model if self.stage is None else f"{model}-{self.stage}"


@dataclass(frozen=True)
class Labels:
    """What checkpoints are recorded under; None where their source is to name it."""

    suite: str | None = None
    model: str | None = None
    seed: int = 0
    """Where the name has none."""


def compiled(pattern: str | None, forms: tuple[str, ...] = KNOWN) -> tuple[re.Pattern[str], ...]:
    """Return the regular expressions that a name is tried against: the user's, or the known forms.

    Args:
        pattern: regular expression for the whole name, with a group ``(?P<step>...)`` or ``(?P<tokens>...)``
            and optionally ``(?P<seed>...)`` and ``(?P<stage>...)``; None for the known forms.
        forms: the known forms.

    Raises:
        RequestError: the pattern is no regular expression, or has no group named ``step`` or ``tokens``.
    """
    if pattern is None:
        return tuple(re.compile(known) for known in forms)
    try:
        own = re.compile(pattern)
    except re.error as error:
        raise RequestError(f"suite.pattern={pattern}: not a regular expression: {error}") from error
    if not {"step", "tokens"} & set(own.groupindex):
        raise RequestError(
            f"suite.pattern={pattern}: has no group named step or tokens; write the digits of the step as "
            r"(?P<step>\d+), or the tokens as (?P<tokens>\d+B), and where the name has them (?P<seed>\d+) "
            r"and (?P<stage>\w+)"
        )
    return (own,)


def read(name: str, pattern: str | None = None, forms: tuple[str, ...] = KNOWN) -> Named | None:
    """Read one name; the whole of it has to match.

    Args:
        name: of a branch, tag or folder.
        pattern: see ``compiled``.
        forms: see ``compiled``.

    Returns:
        Its parts, or None where it does not match. Numbers may end in K, M, B or T (10^3 to 10^12); a seed
        may be words that end in its number (``small-aux-2``), or ``default``, which is 0.

    Raises:
        RequestError: the pattern is wrong, or one of its groups matched something that is not a number.
    """
    for expression in compiled(pattern, forms):
        match = expression.fullmatch(name)
        if match is not None:
            return _named(match, pattern)
    return None


def suggested(name: str) -> str:
    """Return the pattern that would read a name: its longest number as the step.

    Example:
        >>> suggested("run3-it000100")
        'run\\\\d+\\\\-it(?P<step>\\\\d+)'
    """
    numbers = re.findall(r"\d+", name)
    longest = max(numbers, key=len, default="")
    parts = re.split(r"(\d+)", name)
    chosen = parts.index(longest) if longest else -1
    return "".join(
        (r"(?P<step>\d+)" if at == chosen else r"\d+") if at % 2 else re.escape(part)
        for at, part in enumerate(parts)
    )


def _named(match: re.Match[str], pattern: str | None) -> Named:
    groups = match.groupdict()
    numbers = {key: _number(groups.get(key)) for key in ("step", "tokens")}
    numbers["seed"] = _seed(groups.get("seed"))
    for key, number in numbers.items():
        if number is None and groups.get(key):
            raise _no_number(match, pattern, key)
    if numbers["step"] is None and numbers["tokens"] is None:
        raise _no_number(match, pattern, "step" if "step" in groups else "tokens")
    stage = groups.get("stage")
    return Named(**numbers, stage=None if stage in FIRST_STAGES else stage or None)


def _no_number(match: re.Match[str], pattern: str | None, key: str) -> RequestError:
    return RequestError(
        f"suite.pattern={pattern}: its group {key} matched {match.groupdict().get(key)!r} in the name "
        f"{match.string!r}, which is not a number; let the group match digits only"
    )


def _number(text: str | None) -> int | None:
    match = re.fullmatch(r"([0-9]+)(\.[0-9]+)?([KMBT]?)", text or "", re.IGNORECASE)
    if match is None or (match[2] and not match[3]):
        return None
    thousands = _THOUSANDS.get(match[3].upper(), 1)
    return int(match[1]) * thousands + round(float(match[2] or 0) * thousands)


def _seed(text: str | None) -> int | None:
    match = re.fullmatch(r"(?:[\w-]*[a-z_-])?([0-9]+)", text or "", re.IGNORECASE)
    return 0 if text == "default" else int(match[1]) if match else None
