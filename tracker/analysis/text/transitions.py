"""Moves in words: which way, from where to where, between which steps."""

from collections.abc import Mapping, Sequence

from tracker.analysis.order import USUAL
from tracker.analysis.schema import ChangeContext, Lag
from tracker.analysis.text import listed, number, titled
from tracker.analysis.transition_types import CurveTransitions, Move, Passing, Turn

VERDICTS = {
    "before": "before", "with": "with", "after": "after", "still": "no change beyond noise",
    "cannot tell": "unclear", "undefined": "not measured",
}  # fmt: skip
"""Verdicts of a lag and how sentences call them."""
PLACED = {
    "before": "half way before it", "with": "half way with it", "after": "half way after it",
    "cannot tell": "order unclear",
}  # fmt: skip
"""Verdicts of covariates that move, before a list of their names."""
VERBS = {"up": "rises", "down": "falls"}


def span(interval: tuple[int, int]) -> str:
    """Return ``(16, 32]``: after the first checkpoint, at or before the second."""
    return f"({interval[0]}, {interval[1]}]"


def dated(passing: Passing) -> str:
    """Return where a move passes, with its 90 % interval where that is wider."""
    own = span((passing.step_low, passing.step_high))
    wide = span(passing.interval)
    return own if own == wide else f"{own} (90%: {wide})"


def move_words(name: str, move: Move) -> str:
    """Return ``selectivity falls 0.71 -> 0.16``."""
    return f"{titled(name)} {VERBS[move.direction]} {number(move.start)} -> {number(move.finish)}"


def turn_words(turn: Turn) -> str:
    """Return where a curve turns and how much of its move comes back by the end of the next."""
    low, high = turn.recovered_interval
    return (
        f"turning point at step {turn.step} (90%: {span(turn.interval)}), {turn.recovered:.0%} of the way "
        f"back by the end ({low:.0%} to {high:.0%})"
    )


def nothing_moves(curves: Mapping[str, CurveTransitions], p_value: float) -> str:
    """Say that nothing moves beyond noise, and what would have been seen."""
    seen = [f"{number(each.smallest)} in {titled(name)}" for name, each in curves.items() if each.smallest]
    least = f"; lasting shifts of {', '.join(seen)} would have been seen" if seen else ""
    return f"no transition beyond noise (p = {p_value:.2g}){least}"


def lag_words(name: str, lag: Lag) -> str:
    """Return one covariate's part of a sentence: which way it moves, and how that lies to the transition."""
    if lag.direction is None or lag.interval is None or lag.start is None or lag.finish is None:
        return f"{titled(name)}: {VERDICTS.get(lag.verdict, lag.verdict)}"
    moved = f"{titled(name)} {VERBS[lag.direction]} {number(lag.start)} -> {number(lag.finish)}"
    return f"{moved}{', ' if lag.verdict == 'cannot tell' else ' '}{lag_order(lag)}"


def lag_order(lag: Lag, than: str = "") -> str:
    """Return how much earlier or later a move is half way, at 90 %; ``than`` names what it is compared to."""
    assert lag.interval is not None
    low, high = lag.interval
    if lag.verdict == "with":
        return f"together with {than or 'it'}, within {max(-low, high):.1f} octaves"
    if lag.verdict == "cannot tell":
        return f"order unclear ({low:+.1f} to {high:+.1f} octaves{f' against {than}' if than else ''})"
    near, far = sorted((abs(low), abs(high)))
    word = "earlier" if lag.verdict == "before" else "later"
    return f"{near:.1f} to {far:.1f} octaves {word}{f' than {than}' if than else ''}"


def _by_order(lags: Mapping[str, Lag]) -> list[str]:
    """Name many covariates by how they lie to the transition; those that do not move are counted."""
    parts = []
    for verdict, words in PLACED.items():
        names = [titled(name) for name, lag in lags.items() if lag.verdict == verdict]
        if names:
            parts.append(f"{words}: {', '.join(_joined(names))}")
    still = sum(lag.verdict == "still" for lag in lags.values())
    if still:
        parts.append(f"no change beyond noise in {still} of {len(lags)} measures of weights and states")
    return parts


def _joined(titles: Sequence[str]) -> list[str]:
    """Join what is measured of several matrices: ``stable rank of Wq and Wk``."""
    whole: dict[str, list[str]] = {}
    for measure, _, of in (title.partition(" of ") for title in titles):
        whole.setdefault(measure, []).append(of)
    return [f"{measure} of {listed(of)}" if all(of) else measure for measure, of in whole.items()]


def context_sentence(entry: ChangeContext) -> str:
    """Say what else moves around the transition of one run."""
    place = f"half way of {entry.model} seed {entry.seed} in {span((entry.step_low, entry.step_high))}"
    known = {name: lag for name, lag in entry.covariates.items() if lag.verdict != "undefined"}
    further = {name: lag for name, lag in known.items() if name not in USUAL}
    parts = [lag_words(name, lag) for name, lag in known.items() if name not in further]
    parts += _by_order(further)
    heads = entry.contributions.get("frequency_selectivity")
    if heads is not None:
        parts.append(f"{heads.half_by} of {heads.of} heads make up half of the change of selectivity")
    return f"Around the transition ({place}): {'; '.join(parts)}." if parts else ""
