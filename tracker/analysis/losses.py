"""Checkpoints whose loss on the probe is that of another step: their weights may be another checkpoint's.

Loss falls as training goes on, so an early checkpoint that is far better than several later ones holds late
weights. Where a curve of the model is published, steps between which that rises are not compared, and where
it falls a late checkpoint with an early one's loss is found as well. Levels are not compared: texts differ.

T: checkpoints.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tracker import facts

LEAST, SHARE, JITTER = 0.3, 0.1, 6.0
"""How far a loss must be on the wrong side of another: nats a token, of the range of all, of their jitter."""
WITNESSES = 2
"""Checkpoints on whose wrong side one must be."""
ROSE, FELL = 0.25, 1.0
"""Changes of the published log perplexity between two steps that count: a rise, and a large fall."""
FAR = 8
"""Factor between a checkpoint's step and the one that its loss fits."""
UPPER = 0.954
"""Upper quartile of differences of two normal values, in standard deviations of one."""
SIZE = re.compile(r"(pythia-[\d.]+[mb](?:-deduped)?)(?:-seed\d+)?")


@dataclass(frozen=True)
class Misnamed:
    """A checkpoint whose loss does not fit its step."""

    step: int
    like: int
    """The step that its loss would fit: the first after it, or the last before it, that is as good."""

    @property
    def sentence(self) -> str:
        """What is wrong with it, without its name."""
        return f"has the loss of about step {self.like}, it may hold other weights"


def published_curve(model: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Return a model's steps and published log perplexities on LAMBADA; None where there are none.

    Args:
        model: ``pythia-70m``, with or without its owner, ``-deduped`` and ``-seed3``.
    """
    match = SIZE.fullmatch(model.rpartition("/")[2])
    rows = facts.table("pythia_lambada").filter(pl.col("model") == match[1]) if match else None
    if rows is None or not rows.height:
        return None
    return rows["step"].to_numpy(), np.log(rows["perplexity"].to_numpy())


def curve_of(suite: str, model: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the published curve of a run, by the names that its suite has in a store."""
    named = {"pythia": f"pythia-{model}", "polypythias": f"pythia-{model}"}
    named["pythia-deduped"] = f"pythia-{model}-deduped"
    return published_curve(named.get(suite, model))


def misnamed(
    steps: Sequence[int], losses: Sequence[float], published: tuple[np.ndarray, np.ndarray] | None = None
) -> list[Misnamed]:
    """Find the checkpoints of one run whose loss is that of another step.

    Args:
        steps: of the checkpoints, (T,).
        losses: their losses on one probe, nats a token; those that are not finite are left out.
        published: from ``published_curve``; without it late names with early weights are not found, since
            a run's own instability looks the same.

    Example:
        >>> steps = [0, 1, 16, 64, 256, 1000, 4000, 16000]
        >>> misnamed(steps, [10.8, 10.8, 3.4, 10.2, 8.1, 5.2, 3.9, 3.4])
        [Misnamed(step=16, like=16000)]
    """
    known = sorted((step, loss) for step, loss in zip(steps, losses, strict=True) if np.isfinite(loss))
    if len(known) <= WITNESSES + 1:
        return []
    at, loss = np.array([step for step, _ in known]), np.array([value for _, value in known])
    wrong = _wrong_side(at, loss, _margin(loss), published)
    good = np.ones(len(at), dtype=bool)
    while True:
        pairs = (wrong > 0) & good & good[:, None]
        counts = pairs.sum(0) + pairs.sum(1)
        if counts.max() < WITNESSES:
            break
        excess = (wrong * pairs).sum(0) + (wrong * pairs).sum(1)
        good[max(np.flatnonzero(counts == counts.max()), key=lambda each: excess[each])] = False
    found = [_judged(int(place), at, loss, wrong, good) for place in np.flatnonzero(~good)]
    return [each for each in found if each is not None and (each.like > each.step or _fell(each, published))]


def _fell(found: Misnamed, published: tuple[np.ndarray, np.ndarray] | None) -> bool:
    """Whether a late checkpoint with an early loss is no mere instability of the training."""
    if published is None:
        return False
    return _level(found.like, published) - _level(found.step, published) > FELL


def _margin(loss_T: np.ndarray) -> float:
    """How far apart two losses must be to be told apart; jitter shows where losses rise."""
    jitter = max(0.0, float(np.quantile(np.diff(loss_T), 0.75))) / UPPER
    return max(LEAST, SHARE * float(np.ptp(loss_T)), JITTER * jitter)


def _wrong_side(
    at_T: np.ndarray, loss_T: np.ndarray, margin: float, published: tuple[np.ndarray, np.ndarray] | None
) -> np.ndarray:
    """(T, T): by how much more than the margin the earlier, row, is better than the later, column."""
    excess = np.triu(loss_T[None, :] - loss_T[:, None] - margin, 1)
    if published is not None:
        level_T = _level(at_T, published)
        excess[level_T[None, :] - level_T[:, None] > ROSE] = 0.0
    return np.maximum(excess, 0.0)


def _level(at: Any, published: tuple[np.ndarray, np.ndarray]) -> Any:
    """The published log perplexity at some steps, linear in their logarithm."""
    return np.interp(np.log1p(at), np.log1p(published[0]), published[1])


def _judged(
    place: int, at_T: np.ndarray, loss_T: np.ndarray, wrong_TT: np.ndarray, good_T: np.ndarray
) -> Misnamed | None:
    """What a checkpoint is like, judged against the good ones alone; None where that does not tell."""
    better = int(((wrong_TT[place] > 0) & good_T).sum())
    worse = int(((wrong_TT[:, place] > 0) & good_T).sum())
    if max(better, worse) < WITNESSES:
        return None
    step, near = int(at_T[place]), LEAST / 3
    if better > worse:
        alike = at_T[good_T & (at_T > step) & (loss_T <= loss_T[place] + near)][:1]
    else:
        alike = at_T[good_T & (at_T < step) & (loss_T >= loss_T[place] - near)][-1:]
    far = [int(like) for like in alike if max(like, step) >= FAR * max(1, min(like, step))]
    return Misnamed(step, far[0]) if far else None
