"""Signs that a training run becomes unstable, from what was measured of it so far.

S: sequences of the probe; L: layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tracker.analysis.text import titled

LEAST_MOVES = 4
"""Earlier moves that are needed before one can be called sudden."""


@dataclass(frozen=True)
class Observation:
    """One measured step of a run."""

    step: int
    samples: dict[str, np.ndarray]
    """Metric -> (S,) values of the probe's sequences."""
    layer_entropy: np.ndarray
    """(L,) mean positional entropy of each layer, nats."""
    uniform_entropy: float
    """What uniform causal attention would have, nats."""


@dataclass(frozen=True)
class Limits:
    """Where a run counts as unstable."""

    collapse: float = 0.1
    """Share of uniform attention's entropy below which a layer has collapsed."""
    largest: float = 2.0
    """A sudden change moves a metric by more than so many times its largest move before,"""
    usual: float = 5.0
    """by more than so many times its median move before,"""
    errors: float = 6.0
    """and by more than so many standard errors over the probe's sequences."""


@dataclass(frozen=True)
class Instability:
    """One finding at the last step; ``level`` is WARN, or INFO for a change that may be as it should."""

    condition: str
    step: int
    sentence: str
    level: str = "WARN"


def uniform_entropy(n: int) -> float:
    """Compute the mean entropy in nats of causal attention that is uniform over n, n - 1, ... 1 keys.

    Example:
        >>> uniform_entropy(1)
        0.0
    """
    return float(np.log(np.arange(1, n + 1)).mean())


def instabilities(history: Sequence[Observation], limits: Limits | None = None) -> list[Instability]:
    """Find what is new at the last observation of a run.

    Entropy collapse: the mean positional entropy of a layer falls below ``collapse`` of uniform attention's
    after it was at twice that; reported once until it has recovered (Zhai et al., arXiv 2303.06296, where
    training that diverges is preceded by such a fall). Sudden change: a metric moves further from one
    measurement to the next than it ever did.

    Args:
        history: in step order; the last one is judged.
        limits: where to judge; None: the defaults.
    """
    limits = limits or Limits()
    return [*_collapses(history, limits), *_sudden(history, limits)] if history else []


def _collapses(history: Sequence[Observation], limits: Limits) -> list[Instability]:
    last, found = history[-1], []
    limit = limits.collapse * last.uniform_entropy
    for layer, entropy in enumerate(last.layer_entropy):
        if not entropy < limit:
            continue
        earlier = [each.layer_entropy[layer] for each in history[:-1]]
        high = [index for index, value in enumerate(earlier) if value >= 2 * limit]
        if not high or any(value < limit for value in earlier[high[-1] :]):
            continue
        found.append(
            Instability(
                "entropy collapse",
                last.step,
                f"layer {layer}: mean attention entropy has fallen to {entropy:.2g} nats at step "
                f"{last.step}, {entropy / last.uniform_entropy:.0%} of uniform attention's",
            )
        )
    return found


def _sudden(history: Sequence[Observation], limits: Limits) -> list[Instability]:
    last = history[-1]
    measured = [name for name, values in last.samples.items() if np.isfinite(values).any()]
    return [each for name in measured if (each := _sudden_change(history, name, limits)) is not None]


def _sudden_change(history: Sequence[Observation], name: str, limits: Limits) -> Instability | None:
    """The last move of one metric, where it is larger than any before; steps without a value are skipped."""
    known = [each for each in history if np.isfinite(each.samples.get(name, np.nan)).any()]
    if len(known) < LEAST_MOVES + 2:
        return None
    # Measurements may stop at different numbers of sequences; only those that all of them have are compared.
    sequences = min(len(each.samples[name]) for each in known)
    same = np.array([each.samples[name][:sequences] for each in known])
    same = same[:, np.isfinite(same).all(0)]
    if not same.size:
        return None
    *before, last = np.diff(same, axis=0)
    move, error = float(last.mean()), float(last.std(ddof=1) / np.sqrt(len(last)) if len(last) > 1 else 0)
    sizes = np.abs([each.mean() for each in before])
    bound = max(limits.largest * sizes.max(), limits.usual * np.median(sizes), limits.errors * error)
    if abs(move) <= bound:
        return None
    return Instability(
        f"sudden change of {name}",
        known[-1].step,
        f"{titled(name)} moves by {move:+.3g} from step {known[-2].step} to {known[-1].step}; "
        f"its largest move before was {sizes.max():.3g}",
        "INFO",
    )
