"""What each head does at the end of training, and since when: roles claimed with a margin over chance.

H: heads of a model; T: checkpoints.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from tracker.analysis.schema import HeadRole, ModelRoles
from tracker.analysis.t_interval import t_quantile
from tracker.analysis.text.roles import role_sentence
from tracker.records import Conventions

LEVEL = 0.95
BANDS = ("low", "mid", "high")


@dataclass(frozen=True)
class Role:
    """One role: the score that shows it, and how far towards a perfect head the score has to be."""

    name: str
    column: str
    least: float
    """Share of the way from uniform attention (0) to a head that does nothing else (1)."""
    away: bool = False
    """Whether the role is the absence of what the column measures."""


INDUCTION = Role("induction", "prefix_matching_score", 0.1)
PREVIOUS_TOKEN = Role("previous-token", "previous_token_score", 0.5)
ROLES = (
    INDUCTION,
    PREVIOUS_TOKEN,
    Role("sink", "sink_share", 0.5),
    Role("local", "local_share", 0.5),
    Role("global", "local_share", 0.5, away=True),
)
"""The first that holds is the head's role: a previous-token head is local as well, and not called so.

Half of the way, since a head that surely spends more on one thing than on all others may be named by it. A
tenth for induction, whose test is a repeated sequence of random tokens such as no model was trained on.
"""
NAMED = (PREVIOUS_TOKEN, INDUCTION)
"""Roles that the literature has a name for."""
NO_ROLE = "none claimed"
COLUMNS = [
    "suite", "model", "seed", "step", "layer", "head", "status", "previous_token_score",
    "previous_token_score_std", "prefix_matching_score", "sink_share", "sink_share_std", "local_share",
    "local_share_std", "band_power_low", "band_power_mid", "band_power_high", "spectrum",
]  # fmt: skip
"""What is read of the store's table of heads."""


@dataclass(frozen=True)
class Measured:
    """How the scores of one checkpoint were measured."""

    n: int
    """Tokens per sequence."""
    sequences: int
    span: int = Conventions.span
    """Keys that count as local."""
    block: int = Conventions.block
    """Length of the block written twice; half of the positions of a model that has fewer than two blocks."""


def chance(column: str, measured: Measured) -> float:
    """Compute what a causal head that spreads its attention evenly scores.

    Args:
        column: one of the roles' columns.
        measured: how it was measured.

    Example:
        >>> round(chance("previous_token_score", Measured(n=96, sequences=16)), 3)
        0.044
    """
    if column == INDUCTION.column:
        return float(np.mean(1 / np.arange(measured.block + 1, 2 * measured.block + 1)))
    if column == "local_share":
        queries = np.arange(measured.span + 1, max(measured.n, measured.span + 1) + 1)
        return float(np.mean(np.minimum(1.0, measured.span / queries)))
    return float(np.mean(1 / np.arange(2, measured.n + 1)))


def excess(role: Role, scores_H: np.ndarray, slack_H: np.ndarray, expected: float) -> np.ndarray:
    """Compute how far each head surely is from chance towards a perfect head, (H,); NaN where not measured.

    Args:
        role: the role.
        scores_H: (H,) the score of each head.
        slack_H: half width of its interval (NaN: nothing is sure), by which it is brought nearer to chance.
        expected: what chance gives.
    """
    if role.away:
        return (expected - (scores_H + slack_H)) / expected
    return (scores_H - slack_H - expected) / (1 - expected)


def claimed(heads: pl.DataFrame, measured: Measured) -> tuple[list[str], list[float | None]]:
    """Claim a role for every head of one checkpoint, as far as one is sure.

    Sure at 95 % for all heads and roles of the checkpoint together (Bonferroni), but for induction, whose
    four sequences are stored as their mean.

    Args:
        heads: its rows of the table of heads.
        measured: how they were measured.

    Returns:
        Per head the role's name or ``NO_ROLE``, and its sure share of the way from chance (None without one).
    """
    names = [NO_ROLE] * heads.height
    shares: list[float | None] = [None] * heads.height
    for role in reversed(ROLES):
        expected = chance(role.column, measured)
        shares_H = excess(role, _numbers(heads, role.column), _slack(heads, role.column, measured), expected)
        for head in np.flatnonzero(shares_H >= role.least):
            names[head], shares[head] = role.name, float(shares_H[head])
    return names, shares


def _slack(heads: pl.DataFrame, column: str, measured: Measured) -> np.ndarray:
    """Half width of each score's interval, (H,); NaN of one sequence, 0 where no spread is stored."""
    spread = f"{column}_std"
    if spread not in heads.columns:
        return np.zeros(heads.height)
    level = 1 - 2 * (1 - LEVEL) / max(1, heads.height * len(ROLES))
    sure = t_quantile(level, max(1, measured.sequences - 1))
    return sure * _numbers(heads, spread) / np.sqrt(measured.sequences)


def _numbers(heads: pl.DataFrame, column: str) -> np.ndarray:
    return heads[column].cast(pl.Float64).fill_null(float("nan")).to_numpy()


def named_heads(heads: pl.DataFrame, measured: Measured) -> pl.DataFrame:
    """Return the previous-token and induction heads of one checkpoint, strongest first.

    By the thresholds of ``claimed``: the score is surely ``Role.least`` of the way from chance to a perfect
    head. Of one sequence nothing is sure, and the score alone decides.

    Args:
        heads: a table of heads of one checkpoint, with layer, head, previous_token_score and
            prefix_matching_score.
        measured: how they were measured.

    Returns:
        Columns name, layer, head, score, limit (the score that ``Role.least`` stands for); empty where no
        head has a name.

    Example:
        >>> scores = {"previous_token_score": [0.9, 0.1], "prefix_matching_score": [0.0, None]}
        >>> table = pl.DataFrame({"layer": [0, 0], "head": [0, 1], **scores})
        >>> named_heads(table, Measured(n=96, sequences=16)).select("name", "layer", "head", "score").rows()
        [('previous token', 0, 0, 0.9)]
    """
    parts = []
    for role in NAMED:
        expected = chance(role.column, measured)
        limit = expected + role.least * (1 - expected)
        slack_H = np.nan_to_num(_slack(heads, role.column, measured))
        shares_H = excess(role, _numbers(heads, role.column), slack_H, expected)
        parts.append(
            heads.filter(pl.Series(shares_H >= role.least, dtype=pl.Boolean)).select(
                pl.lit(role.name.replace("-", " ")).alias("name"),
                pl.col("layer").cast(pl.Int64),
                pl.col("head").cast(pl.Int64),
                pl.col(role.column).cast(pl.Float64).alias("score"),
                pl.lit(limit).alias("limit"),
            )
        )
    return pl.concat(parts).sort(["name", "score"], descending=[True, True])


def typical_scale(spectrum: list[float] | None) -> float | None:
    """Compute the tokens per period at the frequency below which half of the power lies.

    Args:
        spectrum: shares of power in equal bands up to the Nyquist frequency (half a cycle a token).
    """
    if not spectrum or any(share is None for share in spectrum) or sum(spectrum) <= 0:
        return None
    total = np.concatenate([[0.0], np.cumsum(spectrum)]) / sum(spectrum)
    share = float(np.interp(0.5, total, np.linspace(0, 1, len(total))))
    return 2 / share if share > 0 else None


def measured_as(checkpoint: Mapping[str, Any], conventions: Conventions | None = None) -> Measured:
    """Return how one checkpoint was measured, from its row of the table of checkpoints.

    Span and block stand in the row; records of earlier versions lack them, and take those of
    ``conventions`` where these are the record's own, else the defaults.
    """
    own = conventions is not None and conventions.label == checkpoint.get("conventions")
    usual = conventions if conventions is not None and own else Conventions()
    return Measured(
        checkpoint["n_tokens"],
        checkpoint["n_sequences"],
        checkpoint.get("local_span") or usual.span,
        checkpoint.get("prefix_block") or usual.block,
    )


def head_roles(
    heads: pl.DataFrame, checkpoints: pl.DataFrame, conventions: Conventions | None = None
) -> list[ModelRoles]:
    """Find the role of every head of each model and seed at its last checkpoint, and since when.

    Args:
        heads: the store's table of heads, with ``COLUMNS``.
        checkpoints: its table of checkpoints.
        conventions: of the request, for records that do not hold span and block (``measured_as``).
    """
    keys = ["suite", "model", "seed", "step"]
    attended = checkpoints.filter(pl.col("status") == "ok", pl.col("n_tokens").is_not_null())
    sizes = {
        tuple(row[key] for key in keys): measured_as(row, conventions)
        for row in attended.iter_rows(named=True)
    }
    entries = []
    measured = heads.filter(pl.col("status") == "ok").sort(*keys, "layer", "head")
    for run, rows in measured.group_by(keys[:3], maintain_order=True):
        found = {
            step: (table, *claimed(table, sizes[*run, step]))
            for (step,), table in rows.group_by("step", maintain_order=True) if (*run, step) in sizes
        }  # fmt: skip
        if found:
            entries.append(_model_roles(run, found))
    return entries


def _model_roles(run: tuple[Any, ...], found: Mapping[Any, Any]) -> ModelRoles:
    steps = list(found)
    names = [found[step][1] for step in steps]
    table, last, margins = found[steps[-1]]
    heads = []
    for number, row in enumerate(table.iter_rows(named=True)):
        band = _band(row)
        births = _birth(steps, [each[number] for each in names])
        heads.append(
            HeadRole(
                row["layer"],
                row["head"],
                last[number],
                margin=margins[number],
                band=band,
                band_share=row[f"band_power_{band}"] if band else None,
                scale=typical_scale(row["spectrum"]),
                birth=births if last[number] != NO_ROLE else None,
            )
        )
    counts = {role.name: tuple(each.count(role.name) for each in names) for role in ROLES}
    suite, model, seed = run
    entry = ModelRoles(suite, model, seed, steps[-1], tuple(steps), tuple(heads), counts)
    return replace(entry, sentence=role_sentence(entry))


def _band(row: Mapping[str, Any]) -> str | None:
    shares = {band: row[f"band_power_{band}"] for band in BANDS if row[f"band_power_{band}"] is not None}
    return max(shares, key=shares.__getitem__) if shares else None


def _birth(steps: Sequence[int], names: Sequence[str]) -> tuple[int, int]:
    at = len(steps) - 1
    while at > 0 and names[at - 1] == names[-1]:
        at -= 1
    return steps[max(0, at - 1)], steps[at]
