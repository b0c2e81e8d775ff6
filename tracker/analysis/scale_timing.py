"""Do larger models turn earlier? The dates of each model's transition against its size, for analysis.json.

R: draws of the noise; M: models.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tracker.analysis.phase_report import RunFindings
from tracker.analysis.scale_values import AXIS, TURNING, ModelValues, Sized, gather
from tracker.analysis.schema import EndToEnd, ModelLeftOut, ThresholdEntry
from tracker.analysis.shift import find_shift, over_seeds, stability_of, without_each
from tracker.analysis.text.scale import threshold_sentence
from tracker.analysis.thresholds import ENOUGH

FEWEST_MODELS = 2
DRAWS = 2000


@dataclass(frozen=True)
class _Dates:
    """When one run's main move is 10, 50 and 90 % of its way, in log2(step + 1)."""

    model: str
    facts: dict[str, int | None]
    step: int
    """The last measured one."""
    draws: np.ndarray
    """(R, 3)."""


def find_timing(suite: str, found: Sequence[RunFindings]) -> list[ThresholdEntry]:
    """Weigh how onset, half and end of the transition go with model size.

    Args:
        suite: name of the suite.
        found: what its runs show; those without a transition are left out and named.

    Returns:
        One entry per date, over non-embedding parameters; none with fewer than two models.
    """
    dates = [date for each in found if (date := _dates(each)) is not None]
    dated = {each.model for each in dates}
    if len(dated) < FEWEST_MODELS:
        return []
    still = dict.fromkeys(each.run.model for each in found if each.run.model not in dated)
    lost = tuple(ModelLeftOut(model, "no transition") for model in still)
    return [_entry(suite, _sized(name, part, dates, lost), part, dates) for part, name in enumerate(TURNING)]


def _dates(found: RunFindings) -> _Dates | None:
    """Draws of the dates, anywhere within the gap between checkpoints in which a draw passes."""
    main = found.transitions.structure.main
    if main is None or main.passed is None:
        return None
    low, high = main.passed[..., 0], main.passed[..., 1]
    within = np.random.default_rng(0).uniform(size=low.shape)
    step = int(found.run.steps[-1])
    return _Dates(found.run.model, found.run.facts, step, low + within * (high - low))


def _sized(name: str, part: int, dates: Sequence[_Dates], lost: tuple[ModelLeftOut, ...]) -> Sized:
    """One date of every model that has one, in order of size."""
    values = []
    for model in dict.fromkeys(each.model for each in dates):
        mine = [each for each in dates if each.model == model]
        seeds = tuple(float(np.median(each.draws[:, part])) for each in mine)
        values.append(ModelValues(model, mine[0].facts, seeds))
    sized = gather(name, max(each.step for each in dates), values)
    return replace(sized, left_out=lost + sized.left_out)


def _entry(suite: str, sized: Sized, part: int, dates: Sequence[_Dates]) -> ThresholdEntry:
    scale = np.array([facts[AXIS] for facts in sized.facts], dtype=float)
    drawn = [_mean_of_seeds(model, part, dates) for model in sized.models]
    errors = [float(each.std()) for each in drawn]
    error = float(np.sqrt(np.mean(np.square(errors)))) if errors else 0.0
    shift = find_shift(scale, sized.seeds, error=error)
    entry = ThresholdEntry(
        suite,
        sized.metric,
        AXIS,
        sized.step,
        models=sized.models,
        scale=tuple(scale.tolist()),
        values=tuple(over_seeds(sized.seeds)[0].tolist()) if len(scale) else (),
        spread=tuple(errors),
        seeds=tuple(int(number) for number in np.isfinite(sized.seeds).sum(axis=1)),
        left_out=sized.left_out,
        sizes=len(np.unique(scale)),
        trend=_trend(drawn),
        shift=shift,
        stability=stability_of(without_each(scale, sized.seeds, sized.models, error)) if shift else None,
    )
    if shift is not None and shift.stepped and len(scale) >= ENOUGH:
        (low, high), interval = shift.gap, shift.gap_interval
        entry = replace(entry, low=low, high=high, interval=interval, effect=shift.effect)
    return replace(entry, sentence=threshold_sentence(entry))


def _mean_of_seeds(model: str, part: int, dates: Sequence[_Dates]) -> np.ndarray:
    """(DRAWS,) the mean date over a model's seeds, those resampled and each of them drawn."""
    mine = [each.draws[:, part] for each in dates if each.model == model]
    rng = np.random.default_rng(1)
    chosen = rng.integers(len(mine), size=(DRAWS, len(mine)))
    drawn = np.stack([rng.choice(each, (DRAWS, len(mine))) for each in mine])
    return np.take_along_axis(drawn, chosen[None], axis=0)[0].mean(axis=1)


def _trend(drawn: Sequence[np.ndarray]) -> EndToEnd | None:
    """The largest model against the smallest, over draws of the noise of both."""
    if len(drawn) < FEWEST_MODELS:
        return None
    first, last = drawn[0], np.random.default_rng(2).permutation(drawn[-1])
    low, high = np.quantile(last - first, [0.05, 0.95])
    return EndToEnd(float(np.median(last) - np.median(first)), (float(low), float(high)), "the noise of both")
