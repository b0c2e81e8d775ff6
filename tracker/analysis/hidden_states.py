"""A second opinion on phases: a hidden Markov model over checkpoints, which knows no drifts.

T: checkpoints; D: metrics; K: states.
"""

import logging
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from hmmlearn.hmm import GaussianHMM

from tracker.analysis.curves import Curves

MOST_STATES = 5
COMPONENTS = 2
"""Principal components of the z-scored metrics that the model sees."""
VARIANCE_FLOOR = 1e-2
"""Share of a component's variance below which no state's goes, so that no state holds one checkpoint."""
STAY = 0.8
"""First guess of the chance to stay in a state."""


@dataclass(frozen=True)
class SecondOpinion:
    """How many states the hidden Markov model takes, and where they part."""

    states: int
    boundaries: tuple[tuple[int, int], ...]
    """(last step of one state, first step of the next)."""


def second_opinion(curves: Curves) -> SecondOpinion | None:
    """A left-to-right Gaussian HMM with as many states as BIC chooses; None for fewer than 8 checkpoints.

    Source: Rabiner 1989, Proc. IEEE 77:257 (left-to-right models); Schwarz 1978 for BIC.

    Args:
        curves: metrics at the checkpoints where all are defined.
    """
    if len(curves.steps) < 8 or not curves.names:
        return None
    scaled = (curves.values - curves.values.mean(axis=0)) / curves.values.std(axis=0)
    left, sizes, _ = np.linalg.svd(scaled, full_matrices=False)
    seen = (left * sizes)[:, :COMPONENTS]
    places = (np.arange(len(seen)), np.log2(curves.steps + 1.0))
    fits = [_fitted(seen, places[start], states) for states in range(1, MOST_STATES + 1) for start in (0, 1)]
    _, path = min(fits, key=lambda fit: fit[0])
    steps = curves.steps
    borders = tuple(
        (int(steps[at]), int(steps[at + 1])) for at, (a, b) in enumerate(pairwise(path)) if a != b
    )
    return SecondOpinion(len(borders) + 1, borders)


def _fitted(seen_TD: np.ndarray, place: np.ndarray, states: int) -> tuple[float, np.ndarray]:
    """BIC and the most likely states, started from equal stretches of ``place`` (T,)."""
    model = GaussianHMM(
        states, "diag", params="tmc", init_params="", n_iter=50, random_state=0, min_covar=1e-3
    )
    model.startprob_ = np.eye(states)[0]
    chain = STAY * np.eye(states) + (1 - STAY) * np.eye(states, k=1)
    model.transmat_ = chain / chain.sum(axis=1, keepdims=True)
    cuts = np.searchsorted(place, place[0] + np.ptp(place) * np.arange(1, states) / states)
    parts = [part if len(part) else seen_TD for part in np.split(seen_TD, cuts)]
    floor = VARIANCE_FLOOR * seen_TD.var(axis=0) + 1e-12
    model.means_ = np.array([part.mean(axis=0) for part in parts])
    model.covars_ = np.array([np.maximum(part.var(axis=0), floor) for part in parts])
    model.covars_prior = 2 * float(floor.mean())
    log = logging.getLogger("hmmlearn")
    before = log.level
    log.setLevel(logging.ERROR)  # that a short run does not converge is no news
    try:
        model.fit(seen_TD)
        numbers = (states - 1) + 2 * states * seen_TD.shape[1]
        bic = numbers * np.log(len(seen_TD)) - 2 * model.score(seen_TD)
        return float(bic), model.predict(seen_TD)
    except ValueError:  # a state that lost every checkpoint
        return float("inf"), np.zeros(len(seen_TD), dtype=int)
    finally:
        log.setLevel(before)


def agreement(changes: list[tuple[int, int]], opinion: SecondOpinion) -> int:
    """How many of the intervals (low, high] hold a boundary of the hidden Markov model."""
    return sum(
        any(low < high_edge and low_edge < high for low_edge, high_edge in opinion.boundaries)
        for low, high in changes
    )
