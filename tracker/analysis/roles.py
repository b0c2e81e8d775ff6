"""What each head does at the end of training, and since when: roles claimed with a margin over chance.

H: heads of a model; T: checkpoints.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tracker.analysis.t_interval import t_quantile

Entry = dict[str, Any]
LEVEL = 0.95
SPAN, BLOCK = 16, 50
"""Of ``local_share`` and ``prefix_matching_score`` (records.Conventions)."""
BANDS = ("low", "mid", "high")


@dataclass(frozen=True)
class Role:
    """One role: the score that tells it, and how far towards a perfect head the score has to be."""

    name: str
    column: str
    least: float
    """Share of the way from uniform attention (0) to a head that does nothing else (1)."""
    away: bool = False
    """Whether the role is the absence of what the column measures."""


ROLES = (
    Role("induction", "prefix_matching_score", 0.1),
    Role("previous-token", "previous_token_score", 0.5),
    Role("sink", "sink_share", 0.5),
    Role("local", "local_share", 0.5),
    Role("global", "local_share", 0.5, away=True),
)
"""The first that holds is the head's role: a previous-token head is local as well, and not called so.

Half of the way, since a head that surely spends more on one thing than on all others may be named by it. A
tenth for induction, whose test is a repeated sequence of random tokens such as no model was trained on.
"""
NO_ROLE = "none claimed"
COLUMNS = [
    "suite", "model", "seed", "step", "layer", "head", "status", "previous_token_score",
    "previous_token_score_std", "prefix_matching_score", "sink_share", "sink_share_std", "local_share",
    "local_share_std", "band_power_low", "band_power_mid", "band_power_high", "spectrum",
]  # fmt: skip
"""What is read of the store's table of heads."""


def chance(column: str, n: int, *, span: int = SPAN, block: int = BLOCK) -> float:
    """What a causal head that spreads its attention evenly scores.

    Args:
        column: one of the roles' columns.
        n: tokens per sequence.
        span, block: of the conventions.
    """
    if column == "prefix_matching_score":
        return float(np.mean(1 / np.arange(block + 1, 2 * block + 1)))
    if column == "local_share":
        return float(np.mean(np.minimum(1.0, span / np.arange(span + 1, max(n, span + 1) + 1))))
    return float(np.mean(1 / np.arange(2, n + 1)))


def excess(role: Role, scores: np.ndarray, errors: np.ndarray, sure: float, expected: float) -> np.ndarray:
    """How far each head surely is from chance towards a perfect head, (H,); NaN where not measured.

    Args:
        role: the role.
        scores, errors: of each head, and its standard error over sequences (NaN: nothing is sure).
        sure: quantile of Student's t by which the score is brought nearer to chance.
        expected: what chance gives.
    """
    slack = sure * errors
    if role.away:
        return (expected - (scores + slack)) / expected
    return (scores - slack - expected) / (1 - expected)


def claimed(heads: pl.DataFrame, n: int, sequences: int) -> tuple[list[str], list[float | None]]:
    """The role of every head of one checkpoint, and by how much it is exceeded.

    Args:
        heads: its rows of the table of heads.
        n, sequences: tokens per sequence, and how many of them.

    Returns:
        Per head the role's name or ``NO_ROLE``, and its sure share of the way from chance (None without one).
        Sure at 95 % for all heads and roles of the checkpoint together (Bonferroni), but for induction, whose
        four sequences are stored as their mean.
    """
    freedom = max(1, sequences - 1)
    sure = t_quantile(1 - 2 * (1 - LEVEL) / max(1, heads.height * len(ROLES)), freedom)
    names = [NO_ROLE] * heads.height
    shares: list[float | None] = [None] * heads.height
    for role in reversed(ROLES):
        spread = f"{role.column}_std"
        # The store has no spread of prefix matching; one sequence has none of anything, and claims nothing.
        errors = _numbers(heads, spread) / np.sqrt(sequences) if spread in heads.columns else np.zeros(1)
        shares_H = excess(role, _numbers(heads, role.column), errors, sure, chance(role.column, n))
        for head in np.flatnonzero(shares_H >= role.least):
            names[head], shares[head] = role.name, float(shares_H[head])
    return names, shares


def _numbers(heads: pl.DataFrame, column: str) -> np.ndarray:
    return heads[column].cast(pl.Float64).fill_null(float("nan")).to_numpy()


def typical_scale(spectrum: list[float] | None) -> float | None:
    """Tokens per period at the frequency below which half of the power lies.

    Args:
        spectrum: shares of power in equal bands up to the Nyquist frequency (half a cycle a token).
    """
    if not spectrum or any(share is None for share in spectrum) or sum(spectrum) <= 0:
        return None
    total = np.concatenate([[0.0], np.cumsum(spectrum)]) / sum(spectrum)
    share = float(np.interp(0.5, total, np.linspace(0, 1, len(total))))
    return 2 / share if share > 0 else None


def head_roles(heads: pl.DataFrame, checkpoints: pl.DataFrame) -> list[Entry]:
    """The ``roles`` of analysis.json.

    Args:
        heads: the store's table of heads, with ``COLUMNS``.
        checkpoints: its table of checkpoints.

    Returns:
        One entry per suite, model and seed: step (the last), heads (layer, head, role, margin, band,
        band_share, scale in tokens, birth: the checkpoints between which it takes the role for good, or the
        first measured one twice where it has it by then), steps, counts (role -> heads with it at each step)
        and a sentence.
    """
    keys = ["suite", "model", "seed", "step"]
    told = checkpoints.filter(status="ok").select(*keys, "n_tokens", "n_sequences")
    sizes = {row[:4]: row[4:] for row in told.iter_rows()}
    entries = []
    measured = heads.filter(pl.col("status") == "ok").sort(*keys, "layer", "head")
    for run, rows in measured.group_by(keys[:3], maintain_order=True):
        found = {
            step: (table, *claimed(table, *sizes[*run, step]))
            for (step,), table in rows.group_by("step", maintain_order=True) if (*run, step) in sizes
        }  # fmt: skip
        if found:
            entries.append(_entry(run, found))
    return entries


def _entry(run: tuple[Any, ...], found: Mapping[Any, Any]) -> Entry:
    steps = list(found)
    names = [found[step][1] for step in steps]
    table, last, margins = found[steps[-1]]
    heads = [
        {
            "layer": row["layer"], "head": row["head"], "role": role, "margin": margin,
            "band": (band := _band(row)), "band_share": row[f"band_power_{band}"] if band else None,
            "scale": typical_scale(row["spectrum"]),
            "birth": _birth(steps, [each[number] for each in names]) if role != NO_ROLE else None,
        }
        for number, (row, role, margin) in enumerate(
            zip(table.iter_rows(named=True), last, margins, strict=True)
        )
    ]  # fmt: skip
    counts = {role.name: [each.count(role.name) for each in names] for role in ROLES}
    entry = dict(zip(("suite", "model", "seed"), run, strict=True))
    entry |= {"step": steps[-1], "steps": steps, "heads": heads, "counts": counts}
    return entry | {"sentence": role_sentence(entry)}


def _band(row: Mapping[str, Any]) -> str | None:
    shares = {band: row[f"band_power_{band}"] for band in BANDS if row[f"band_power_{band}"] is not None}
    return max(shares, key=shares.__getitem__) if shares else None


def _birth(steps: list[int], names: list[str]) -> list[int]:
    at = len(steps) - 1
    while at > 0 and names[at - 1] == names[-1]:
        at -= 1
    return [steps[max(0, at - 1)], steps[at]]


def born(birth: Sequence[int]) -> str:
    """When a head took its role for good, in words: ``(16, 32]`` is after step 16, by 32.

    Example:
        >>> born([16, 32]), born([0, 0]), born([512, 512])
        ('(16, 32]', 'the start', 'by 512')
    """
    low, high = birth
    return f"({low}, {high}]" if low < high else "the start" if high == 0 else f"by {high}"


def role_sentence(entry: Entry) -> str:
    """Which heads have which role at the end, and what the first checkpoint gives."""
    head = f"{entry['model']} seed {entry['seed']}, step {entry['step']}"
    told = []
    for role in ROLES:
        own = [each for each in entry["heads"] if each["role"] == role.name]
        if not own:
            continue
        names = ", ".join(f"({each['layer']}, {each['head']})" for each in own[:6])
        told.append(f"{role.name} {len(own)} {names}{' ...' if len(own) > 6 else ''}")
    none = sum(each["role"] == NO_ROLE for each in entry["heads"])
    text = f"{head}: roles of {len(entry['heads'])} heads (layer, head): {'; '.join(told) or 'none claimed'}"
    if told and none:
        text += f"; none claimed for {none}"
    first = sum(counts[0] for counts in entry["counts"].values())
    before = f" At step {entry['steps'][0]}, {first} had one." if len(entry["steps"]) > 1 else ""
    return f"{text}.{before}"
