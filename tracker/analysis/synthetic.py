"""Curves whose truth is known, with the noise that measured ones have: for tests and for validation.

T: checkpoints; S: sequences of the probe; M: models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from scipy import signal

from tracker.analysis.smooth import RISE, unit_range
from tracker.errors import unknown_value

SHARED = 0.9
"""Correlation of the noise of metrics that come from one spectrum."""
SEQUENCE_SPREAD = 3.0
"""A sequence's own level, in units of one sequence's noise at one checkpoint: some texts are harder."""
ScaleKind = Literal["noise", "line", "hinge", "sigmoid", "step"]


@dataclass(frozen=True)
class SyntheticRun:
    """Metrics over steps, (T, S) each, and the brackets of the changes that were put in."""

    steps: np.ndarray
    metrics: dict[str, np.ndarray]
    brackets: tuple[tuple[int, int], ...]


def log_steps(points: int) -> np.ndarray:
    """0, 1, 2, 4, ... 512, 1000, 2000, 4000, ...: ``points`` steps as Pythia saved them, doubling on."""
    early = [0, *(2**power for power in range(10))]
    late = [1000 * 2**power for power in range(max(points - len(early), 0))]
    return np.array([*early, *late][:points])


def persistent(white: np.ndarray, kept: float) -> np.ndarray:
    """Turn white noise (T, ...) into unit noise of which the share ``kept`` stays at the next checkpoint."""
    scaled = white.copy()
    scaled[1:] *= np.sqrt(1 - kept**2)
    return np.asarray(signal.lfilter([1.0], [1.0, -kept], scaled, axis=0))


def noisy_samples(
    curves: Mapping[str, np.ndarray],
    sequences: int,
    rng: np.random.Generator,
    *,
    error: float = 1.0,
    shared: float = SHARED,
    wobble: float = 0.0,
    kept: float = 0.0,
) -> dict[str, np.ndarray]:
    """Samples (T, S) around each curve (T,).

    Args:
        curves: name -> the true mean at each checkpoint.
        sequences: S.
        rng: source of the noise.
        error: standard error of a checkpoint's mean; a sequence's own noise is sqrt(S) times that.
        shared: correlation of the noise between metrics.
        wobble: of training itself, alike in every sequence, in units of ``error``: no sequence shows it.
        kept: share of the wobble that stays from checkpoint to checkpoint (an AR(1) process).
    """
    points = len(next(iter(curves.values())))
    alike = rng.normal(size=(points, sequences))
    training = wobble * persistent(rng.normal(size=(points, 1)), kept) if wobble else 0.0
    samples = {}
    for name, curve in curves.items():
        own = rng.normal(size=(points, sequences))
        level = SEQUENCE_SPREAD * rng.normal(size=sequences)
        noise = np.sqrt(shared) * alike + np.sqrt(1 - shared) * own + level - level.mean()
        samples[name] = curve[:, None] + error * (np.sqrt(sequences) * noise + training)
    return samples


def shifting_run(
    steps: np.ndarray,
    starts: Sequence[int],
    size: float,
    rng: np.random.Generator,
    *,
    metrics: int = 3,
    sequences: int = 16,
) -> SyntheticRun:
    """Levels that jump by ``size`` standard errors, up and down in turn, at the checkpoints ``starts``.

    Args:
        steps: (T,) training steps.
        starts: indices of the first checkpoint after each change.
        size: of each shift, in standard errors of a checkpoint's mean.
        rng: source of the noise.
        metrics: how many curves.
        sequences: S.
    """
    level = np.zeros(len(steps))
    for number, start in enumerate(starts):
        level[start:] += size * (-1) ** number
    curves = {f"metric_{number}": level * (-1) ** number for number in range(metrics)}
    brackets = tuple((int(steps[start - 1]), int(steps[start])) for start in starts)
    return SyntheticRun(steps, noisy_samples(curves, sequences, rng), brackets)


def drift(position: np.ndarray, kind: Literal["flat", "line", "sigmoid"], width: float = 0.6,
          centre: float = 0.5) -> np.ndarray:  # fmt: skip
    """A smooth curve from 0 to 1 over ``position`` (T,).

    Args:
        position: rising places.
        kind: flat, line or sigmoid.
        width: of the sigmoid between 10 and 90 %, as a share of the range.
        centre: of the sigmoid, as a share of the range.

    Raises:
        RequestError: the kind is not known.
    """
    place = unit_range(position)
    if kind == "flat":
        return np.zeros(len(place))
    if kind == "line":
        return place
    if kind == "sigmoid":
        return 1 / (1 + np.exp(-(place - centre) * RISE / width))
    raise unknown_value("kind", kind, ("flat", "line", "sigmoid"))


def training_curves(steps: np.ndarray, first: int = 128, peak: int = 1000) -> dict[str, np.ndarray]:
    """Curves (T,) like the paper's table 5, smooth: flat to ``first``, extremum at ``peak``, then recovery.

    Args:
        steps: (T,) training steps.
        first: last step of the initial phase.
        peak: step of highest entropy and lowest selectivity.
    """
    place = np.log2(steps + 1.0)
    begin, top, end = np.log2(first + 1.0), np.log2(peak + 1.0), max(place[-1], np.log2(peak + 1.0) + 1)
    rise = np.clip((place - begin) / (top - begin), 0, 1)
    rise = rise**2 * (3 - 2 * rise)
    recovery = np.clip((place - top) / (end - top), 0, 1)
    return {
        "spectral_entropy": 2.28 + 1.24 * rise - 0.5 * recovery,
        "frequency_selectivity": 0.76 - 0.53 * rise + 0.22 * recovery,
        "band_power_low": 0.77 - 0.33 * rise + 0.16 * recovery,
        "scale_sensitivity_0.5": 0.52 + 0.10 * rise + 0.12 * np.sqrt(recovery),
    }


def scale_values(scale: np.ndarray, kind: ScaleKind, height: float, rng: np.random.Generator, *,
                 below: int = 3, width: float = 0.6) -> np.ndarray:  # fmt: skip
    """A metric over model sizes, (M,), with unit noise from model to model.

    Args:
        scale: (M,) sizes, rising.
        kind: noise, line, hinge (flat up to somewhere, then a line), sigmoid (smooth, ``width`` of the log
            range) or step.
        height: from the smallest to the largest model, in units of the noise.
        rng: source of the noise.
        below: models below the step.
        width: of the sigmoid.

    Raises:
        RequestError: the kind is not known.
    """
    noise = rng.normal(size=len(scale))
    if kind == "step":
        return noise + height * (np.arange(len(scale)) >= below)
    if kind == "noise":
        return noise
    if kind == "hinge":
        place = unit_range(np.log(scale))
        bend = rng.uniform(0.1, 0.8)
        return noise + height * np.maximum(place - bend, 0) / (1 - bend)
    if kind not in ("line", "sigmoid"):
        raise unknown_value("kind", kind, ("noise", "line", "hinge", "sigmoid", "step"))
    return noise + height * drift(np.log(scale), kind, width)


def stored_tables(
    runs: Mapping[tuple[str, int], SyntheticRun],
    sizes: Mapping[str, int],
    *,
    suite: str = "synthetic",
    probe: str = "synthetic-probe",
    conventions: str = "paper-synthetic",
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The store's checkpoint and sequence tables for made-up runs.

    Args:
        runs: (model, seed) -> run.
        sizes: model -> non-embedding parameters.
        suite: value of the column.
        probe: value of the column.
        conventions: value of the column.
    """
    checkpoints, sequences = [], []
    for (model, seed), run in runs.items():
        for row, step in enumerate(run.steps):
            identity = {"suite": suite, "model": model, "seed": seed, "step": int(step), "probe": probe,
                        "conventions": conventions, "status": "ok"}  # fmt: skip
            means = {name: float(samples[row].mean()) for name, samples in run.metrics.items()}
            facts = {"reason": None, "tokens_seen": int(step) * 1024, "params_total": 2 * sizes[model],
                     "params_non_embedding": sizes[model]}  # fmt: skip
            checkpoints.append(identity | facts | means)
            number = next(iter(run.metrics.values())).shape[1]
            for sequence in range(number):
                values = {name: float(samples[row, sequence]) for name, samples in run.metrics.items()}
                sequences.append(identity | {"sequence": sequence} | values)
    return pl.DataFrame(checkpoints, infer_schema_length=None), pl.DataFrame(sequences)
