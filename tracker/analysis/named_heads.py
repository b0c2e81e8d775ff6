"""Heads that do what the literature has a name for, read off two scores.

A head attends to the previous token, or completes a pattern that it has seen (induction), where most of its
attention goes there on average; both limits are ours, and stand in the table.
"""

from dataclasses import dataclass

import polars as pl

PREVIOUS_TOKEN, INDUCTION = "previous token", "induction"


@dataclass(frozen=True)
class Limits:
    """Least mean attention from which a head has the name."""

    previous_token: float = 0.6
    induction: float = 0.3


def named_heads(heads: pl.DataFrame, limits: Limits | None = None) -> pl.DataFrame:
    """The heads that have a name, strongest first.

    Args:
        heads: a table of heads of one checkpoint, with layer, head, previous_token_score and
            prefix_matching_score.
        limits: from which score a head has the name; None: the defaults.

    Returns:
        Columns name, layer, head, score, limit; empty where no head has a name.

    Example:
        >>> scores = {"previous_token_score": [0.9, 0.1], "prefix_matching_score": [0.0, None]}
        >>> named_heads(pl.DataFrame({"layer": [0, 0], "head": [0, 1], **scores})).rows()
        [('previous token', 0, 0, 0.9, 0.6)]
    """
    limits = limits or Limits()
    judged = (
        (PREVIOUS_TOKEN, "previous_token_score", limits.previous_token),
        (INDUCTION, "prefix_matching_score", limits.induction),
    )
    parts = [
        heads.filter(pl.col(column) >= limit).select(
            pl.lit(name).alias("name"),
            pl.col("layer").cast(pl.Int64),
            pl.col("head").cast(pl.Int64),
            pl.col(column).cast(pl.Float64).alias("score"),
            pl.lit(limit).alias("limit"),
        )
        for name, column, limit in judged
    ]
    return pl.concat(parts).sort(["name", "score"], descending=[True, True])
