"""A whole suite's results, made up: every size of Pythia at every step it was saved at, with its heads.

T: checkpoints; S: sequences of the probe; H: heads.
"""

import numpy as np
import polars as pl

from tracker.analysis.synthetic import SHARED, noisy_samples, persistent, training_curves
from tracker.facts import table

PYTHIA_STEPS = np.array([0, *(2**power for power in range(10)), *range(1000, 144_000, 1000)])
"""The 154 steps at which Pythia was saved."""
ERROR = 0.004
"""Standard error of a checkpoint's mean over sequences."""
WOBBLE, KEPT = 1.0, 0.5
"""What training itself adds, in those errors, and how much of it stays to the next checkpoint."""
THRESHOLD, STEP = "averaged_scale_sensitivity_0.5", -0.08
"""The metric that falls between 160m and 410m, and by how much."""


def pythia_like(
    steps: np.ndarray = PYTHIA_STEPS, sequences: int = 500, seed: int = 0
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """The tables of checkpoints, sequences and heads of ten models.

    Every model goes through the paper's phases (``training_curves``), with noise of sequences, persistent
    wobble of training, and one threshold over size.

    Args:
        steps: (T,) training steps.
        sequences: S.
        seed: of all noise.
    """
    rng = np.random.default_rng(seed)
    parts: list[tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]] = []
    for number, facts in enumerate(table("pythia_suite").to_dicts()):
        curves = training_curves(steps)
        size = 0.15 + 0.004 * rng.normal() + (STEP if number > 3 else 0.0)
        curves |= {THRESHOLD: np.full(len(steps), size), "loss": 3 + 7.8 * np.exp(-np.log2(steps + 1) / 5)}
        samples = noisy_samples(curves, sequences, rng, error=ERROR, wobble=WOBBLE, kept=KEPT)
        for each in samples.values():
            each[steps == 1] = each[0]  # the learning rate is 0 at iteration 0
        parts.append(
            (
                _checkpoints(facts, steps, samples),
                _sequences(facts, steps, samples),
                _heads(facts, steps, curves, rng),
            )
        )
    whole = [pl.concat(frames) for frames in zip(*parts, strict=True)]
    return whole[0], whole[1], whole[2]


def _identity(facts: dict, steps: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame({"step": steps}).select(
        pl.lit("pythia-synthetic").alias("suite"),
        pl.lit(facts["size"]).alias("model"),
        pl.lit(0, pl.Int64).alias("seed"),
        pl.col("step").cast(pl.Int64),
        pl.lit("synthetic-probe").alias("probe"),
        pl.lit("paper-synthetic").alias("conventions"),
        pl.lit("ok").alias("status"),
    )


def _checkpoints(facts: dict, steps: np.ndarray, samples: dict[str, np.ndarray]) -> pl.DataFrame:
    known = {
        "params_total": "params_total",
        "params_non_embedding": "params_non_embedding",
        "n_layers": "layers",
        "n_heads": "heads",
        "d_model": "d_model",
        "d_head": "d_head",
        "rotary_dims": "rotary_dims",
    }
    return _identity(facts, steps).with_columns(
        pl.lit(None, pl.String).alias("reason"),
        (pl.col("step") * 2_097_152).alias("tokens_seen"),
        *(pl.lit(facts[column], pl.Int64).alias(name) for name, column in known.items()),
        *(pl.Series(name, each.mean(axis=1)) for name, each in samples.items()),
    )


def _sequences(facts: dict, steps: np.ndarray, samples: dict[str, np.ndarray]) -> pl.DataFrame:
    number = next(iter(samples.values())).shape[1]
    rows = _identity(facts, np.repeat(steps, number))
    return rows.with_columns(
        pl.Series("sequence", np.tile(np.arange(number), len(steps))),
        *(pl.Series(name, each.ravel()) for name, each in samples.items()),
    )


def _heads(
    facts: dict, steps: np.ndarray, curves: dict[str, np.ndarray], rng: np.random.Generator
) -> pl.DataFrame:
    """Heads that move by shares of their own, each with its own wobble."""
    layers, heads = facts["layers"], facts["heads"]
    count = layers * heads
    share = rng.gamma(2.0, 0.5, count)
    rows = _identity(facts, np.repeat(steps, count)).with_columns(
        pl.Series("layer", np.tile(np.repeat(np.arange(layers), heads), len(steps))),
        pl.Series("head", np.tile(np.arange(heads), len(steps) * layers)),
    )
    values = {}
    for name in ("spectral_entropy", "frequency_selectivity"):
        moved = (curves[name] - curves[name][0])[:, None] * share
        noise = 0.02 * persistent(rng.normal(size=(len(steps), count)), SHARED)
        values[name] = (curves[name][0] + moved + noise).ravel()
    values["prefix_matching_score"] = np.repeat(np.clip(np.log2(steps + 1) / 20 - 0.4, 0, 1), count)
    return rows.with_columns(pl.Series(name, each) for name, each in values.items())
