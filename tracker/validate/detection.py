"""Phases and thresholds on synthetic curves whose truth is known: found where they are, and nowhere else.

The figures are shares of runs; their limits are what the analysis has to meet, whether or not it does today.
"""

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import polars as pl

from tracker.analysis import analyse_phases, find_phases, find_threshold
from tracker.analysis.controls import alarm_rates
from tracker.analysis.synthetic import drift, log_steps, noisy_samples, scale_values, shifting_run
from tracker.analysis.trajectories import Suspects
from tracker.validate.finding import Finding, at_least, at_most

POINTS = 19
LONG = 60
SIZES = np.geomspace(1e7, 1e10, 8)
HOLD = 0.87
"""Least share of intervals claimed at 90 % that hold the truth."""
WIDTH = {3: 3, 6: 1}
"""Largest median width of those intervals in gaps between checkpoints, by the size of the shift."""
SHIFTS_FOUND = {3: 0.3, 6: 0.85}
"""Least share of shifts that are found, by their size in standard errors; small ones are often missed."""
BOTH_FOUND = 0.9
"""Least share of runs with two clear shifts in which both are found."""
ALARMS = 0.05
"""Largest share of runs without any change in which one is claimed."""
FOUND = 0.8
"""Least share of clear steps over model size that are found."""
PLACED = 0.95
"""Least share of those that are placed between the right two sizes."""
Drift = Literal["flat", "line", "sigmoid"]
Advance = Callable[[], object]


def _intervals(named: str, held: list[bool], widths: list[int], widest: float) -> Iterator[Finding]:
    """Coverage and median width of the intervals of one kind of run."""
    share = sum(held) / len(held) if held else float("nan")
    yield at_least(f"{named}: of {len(held)} intervals claimed at 90 %, hold it", share, HOLD)
    width = float(np.median(widths)) if widths else float("nan")
    yield at_most(f"{named}: median width of the intervals, gaps", width, widest, "1")


def shifts(runs: int, seed: int, advance: Advance) -> Iterator[Finding]:
    """One shift in levels, of 3 and of 6 standard errors, in three metrics of 16 sequences."""
    steps = log_steps(POINTS)
    for size, least in SHIFTS_FOUND.items():
        rng = np.random.default_rng([seed, size])
        exact, held, widths = 0, [], []
        for _ in range(runs):
            run = shifting_run(steps, [int(rng.integers(4, POINTS - 4))], size, rng)
            points = find_phases(run.steps, run.metrics).change_points
            exact += tuple((point.step_low, point.step_high) for point in points) == run.brackets
            ((truth_low, truth_high),) = run.brackets
            for low, high in (point.interval for point in points if point.interval):
                held.append(low <= truth_low and truth_high <= high)
                widths.append(int(np.searchsorted(steps, high) - np.searchsorted(steps, low)))
            advance()
        named = f"shift of {size} standard errors, {runs} runs"
        yield at_least(f"{named}: found, between the right two checkpoints", exact / runs, least)
        yield from _intervals(named, held, widths, WIDTH[size])


def two_shifts(runs: int, seed: int, advance: Advance) -> Iterator[Finding]:
    """Two shifts of 5 standard errors, up and down."""
    rng, exact = np.random.default_rng([seed, 2]), 0
    for _ in range(runs):
        run = shifting_run(log_steps(POINTS), [5, 12], 5, rng)
        points = find_phases(run.steps, run.metrics, resamples=2).change_points
        exact += tuple((point.step_low, point.step_high) for point in points) == run.brackets
        advance()
    yield at_least(
        f"two shifts of 5 standard errors, {runs} runs: both found, rightly", exact / runs, BOTH_FOUND
    )


def false_alarms(runs: int, seed: int, advance: Advance) -> Iterator[Finding]:
    """Noise and smooth drift alone: no change may be claimed."""
    steps = log_steps(POINTS)
    place = np.log2(steps + 1.0)
    kinds: tuple[tuple[Drift, float, str], ...] = (
        ("flat", 0, "noise alone"), ("line", 5, "a straight drift of 5 standard errors"),
        ("line", 50, "a straight drift of 50"), ("sigmoid", 5, "a wide sigmoid of 5"),
        ("sigmoid", 50, "a wide sigmoid of 50"),
    )  # fmt: skip
    for number, (kind, height, name) in enumerate(kinds):
        rng, claimed = np.random.default_rng([seed, 100 + number]), 0
        for _ in range(runs):
            curve = height * drift(place, kind, width=rng.uniform(0.5, 1), centre=rng.uniform(0.3, 0.7))
            samples = noisy_samples({"a": curve, "b": -curve, "c": 0.5 * curve}, 16, rng)
            claimed += bool(find_phases(steps, samples, resamples=2).change_points)
            advance()
        yield at_most(f"{name}, {runs} runs: a change is claimed", claimed / runs, ALARMS)


def persistent_noise(runs: int, seed: int, advance: Advance) -> Iterator[Finding]:
    """Wobble of training that no sequence shows and that stays in part from checkpoint to checkpoint."""
    for number, (points, kept) in enumerate(((POINTS, 0.5), (LONG, 0.5))):
        rng, claimed = np.random.default_rng([seed, 300 + number]), 0
        steps = np.unique([*log_steps(11), *range(1000, 1000 * (points - 9), 1000)])[:points]
        for _ in range(runs):
            flat = np.zeros(len(steps))
            samples = noisy_samples({"a": flat, "b": flat, "c": flat}, 16, rng, wobble=2.0, kept=kept)
            claimed += bool(find_phases(steps, samples, resamples=2).change_points)
            advance()
        yield at_most(
            f"wobble of twice the sequences' noise, {kept:.0%} kept, {points} checkpoints, {runs} runs: a "
            "change is claimed", claimed / runs, ALARMS,
        )  # fmt: skip


def thresholds(runs: int, seed: int, advance: Advance) -> Iterator[Finding]:
    """A step over 8 model sizes, and noise, trend and smooth sigmoid without one."""
    rng = np.random.default_rng([seed, 1])
    places = []
    for _ in range(runs):
        found = find_threshold(SIZES, scale_values(SIZES, "step", 10, rng, below=3))
        places += [(found.low, found.high)] if found else []
        advance()
    yield at_least(f"step of 10 over 8 sizes, {runs} runs: found", len(places) / runs, FOUND)
    right = places.count((SIZES[2], SIZES[3])) / len(places) if places else float("nan")
    yield at_least(f"of those {len(places)}: between the right two sizes", right, PLACED)
    yield from _threshold_intervals(runs, seed, advance)
    for number, (kind, height) in enumerate((("noise", 0), ("line", 10), ("sigmoid", 8))):
        rng, claimed = np.random.default_rng([seed, 200 + number]), 0
        for _ in range(runs):
            values = scale_values(SIZES, kind, height, rng, width=rng.uniform(0.5, 1))  # type: ignore[arg-type]
            claimed += find_threshold(SIZES, values) is not None
            advance()
        name = kind if kind == "noise" else f"smooth {kind} of {height}"
        yield at_most(f"{name} over 8 sizes, {runs} runs: a threshold is claimed", claimed / runs, ALARMS)


def _threshold_intervals(runs: int, seed: int, advance: Advance) -> Iterator[Finding]:
    """Steps of 3 and 6 times the models' scatter, anywhere."""
    for height in WIDTH:
        rng, held, widths = np.random.default_rng([seed, 400 + height]), [], []
        for _ in range(runs):
            below = int(rng.integers(2, len(SIZES) - 1))
            found = find_threshold(SIZES, scale_values(SIZES, "step", height, rng, below=below))
            if found:
                low, high = (int(np.searchsorted(SIZES, size * 0.999)) for size in found.interval)
                held.append(low < below <= high)
                widths.append(high - low)
            advance()
        named = f"step of {height} over 8 sizes, {runs} runs"
        yield from _intervals(named, held, widths, WIDTH[height])


PARTS = ((shifts, 2), (two_shifts, 1), (false_alarms, 5), (persistent_noise, 2), (thresholds, 6))
"""Each part, and how many kinds of run it makes."""


def runs_in_all(runs: int) -> int:
    """Count the runs that ``detection`` makes with ``runs`` of each kind."""
    return runs * sum(kinds for _, kinds in PARTS)


def stored_alarms(checkpoints: pl.DataFrame, sequences: pl.DataFrame, suspects: Suspects) -> list[Finding]:
    """Count the changes claimed on null curves made of a store's own noise (``controls.alarm_rates``).

    Args:
        checkpoints: the store's checkpoint table.
        sequences: its table of sequences.
        suspects: checkpoints that are left out.

    Returns:
        One finding per kind of null curve, none without a run that has five checkpoints. The limit is that
        of synthetic runs and two standard errors of a share of so many curves.
    """
    found = analyse_phases(checkpoints, sequences, suspects)
    rates = alarm_rates([run for run, _ in found], [entry for _, entry in found])
    kinds = (
        (rates.permuted, "the stored runs' scatter in random order"),
        (rates.resampled, "flat curves with the noise of stored runs"),
    )
    return [
        at_most(
            f"{name}, {rate.curves} curves: a change is claimed",
            rate.claimed / rate.curves,
            ALARMS + 2 * float(np.sqrt(ALARMS * (1 - ALARMS) / rate.curves)),
        )
        for rate, name in kinds
        if rate.curves
    ]


def detection(runs: int, advance: Advance = lambda: None, *, seed: int = 0) -> list[Finding]:
    """Try detection, brackets and false alarms on synthetic runs.

    Args:
        runs: how many of each kind, at least 1.
        seed: another draws other runs: the analysis may not lean on those that it was made with.
        advance: called after each of the ``runs_in_all(runs)``, for a progress bar.
    """
    return [finding for part, _ in PARTS for finding in part(runs, seed, advance)]
