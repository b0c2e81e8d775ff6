"""A plausible store whose truth is known: a planted exploratory phase, written through tracker.store.

Selectivity falls and entropy rises up to ``PEAK``, then both come back half the way; larger models move
further and a little earlier. Nothing here measures anything: it gives views and sinks something to show.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tracker.analysis.json_types import to_dict
from tracker.analysis.schema import RunTransitions
from tracker.analysis.transition_types import CurveTransitions, Move, Passing, Turn
from tracker.metrics.registry import METRICS, head_columns, layer_columns, sequence_columns
from tracker.records import Checkpoint, Conventions, Measurement, ProbeSpec, Unit, digest
from tracker.store import SPECTRUM_BANDS, Store

SMALL_STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 2000, 4000, 8000, 16000)
PYTHIA_STEPS = (0, *(2**k for k in range(10)), *range(1000, 144000, 1000))
PEAK = 9.0
"""log2(step + 1) of the exploratory phase's extremum."""
WAVELET_SCALES = 6
TOKENS_PER_STEP = 2048
PROBE = ProbeSpec("default", "0" * 64, n=96, number=8)


@dataclass(frozen=True)
class Shape:
    """The architecture of one synthetic model."""

    model: str
    layers: int
    heads: int
    d_model: int
    non_embedding: int


SMALL = (
    Shape("0.05m", 2, 4, 48, 56_000), Shape("0.2m", 4, 4, 64, 200_000), Shape("0.8m", 4, 8, 128, 800_000),
)  # fmt: skip
PYTHIA = (
    Shape("14m", 6, 4, 128, 1189888), Shape("31m", 6, 8, 256, 4739072), Shape("70m", 6, 8, 512, 18915328),
    Shape("160m", 12, 12, 768, 85056000), Shape("410m", 24, 16, 1024, 302311424),
    Shape("1b", 16, 8, 2048, 805736448), Shape("1.4b", 24, 16, 2048, 1208602624),
    Shape("2.8b", 32, 32, 2560, 2517652480), Shape("6.9b", 32, 32, 4096, 6444163072),
    Shape("12b", 36, 40, 5120, 11327027200),
)  # fmt: skip


def write_store(folder: Path, shapes: Sequence[Shape] = SMALL, steps: Sequence[int] = SMALL_STEPS, *,
                suite: str = "nano", seeds: int = 1, holes: bool = True) -> Path:  # fmt: skip
    """Writes the store and returns its folder; with ``holes`` two checkpoints fail or are missing."""
    store = Store(folder)
    for size, shape in enumerate(shapes):
        for seed in range(seeds):
            for step in steps:
                unit = unit_of(suite, shape, seed, step)
                if holes and size == 0 and seed == 0 and step == steps[3]:
                    store.write_hole(unit, "missing", f"branch step{step} does not exist")
                elif holes and size == len(shapes) - 1 and seed == 0 and step == steps[5]:
                    store.write_hole(unit, "failed", "shard 2 of 3 is truncated <b>at</b> byte 17")
                else:
                    store.write(unit, measurement_of(unit, shape, size / max(1, len(shapes) - 1)))
    return folder


def write_audit(folder: Path, shape: Shape, step: int, *, suite: str = "nano") -> Path:
    """An audit that finds one checkpoint of one model to hold another's weights, and a gap elsewhere."""
    same = {"step": step, "fault": "same-weights", "with": "main", "file": None, "known": "org/repo#1",
            "seed": 0, "revision": f"step{step}", "commit": None,
            "sentence": f"step {step}: its weights are those of main"}  # fmt: skip
    gap = same | {"step": 3, "fault": "missing", "with": None, "known": None, "revision": None,
                  "sentence": "step 3: no such branch"}  # fmt: skip
    entry = {"repo": f"{suite}/{shape.model}", "checked": [0, step], "findings": [same, gap],
             "disagreements": [], "revisions": [], "main": None}  # fmt: skip
    (folder / "audit.json").write_text(json.dumps({"repos": [entry]}))
    return folder


def unit_of(suite: str, shape: Shape, seed: int, step: int) -> Unit:
    checkpoint = Checkpoint(
        suite, shape.model, seed, step, "folder", f"{suite}/{shape.model}", f"step{step}",
        tokens_seen=step * TOKENS_PER_STEP, commit=digest([seed, step], 40),
    )  # fmt: skip
    return Unit(checkpoint, PROBE, Conventions())


def progress(step: int, size: float) -> tuple[float, float]:
    """(exploration in 0..1, maturity in 0..1) at a step; size 0 is the smallest model, 1 the largest."""
    u = np.log2(step + 1.0)
    peak = PEAK - size
    rise = 1 / (1 + np.exp(-(u - peak + 2.0) * 2.2))
    back = 1 / (1 + np.exp(-(u - peak - 2.0) * 2.2))
    return float(rise - 0.5 * back) * (0.7 + 0.3 * size), float(back)


def measurement_of(unit: Unit, shape: Shape, size: float) -> Measurement:
    """The four tables of one checkpoint."""
    step, seed = unit.checkpoint.step, unit.checkpoint.seed
    fixed = np.random.default_rng([seed, shape.d_model])
    fresh = np.random.default_rng([seed, shape.d_model, step])
    count = shape.layers * shape.heads
    character = fixed.uniform(0, 1, count)
    exploration, maturity = progress(step, size)
    noise = fresh.normal(0, 0.012, count) + fixed.normal(0, 0.03, count)
    amount = exploration * (0.6 + 0.8 * character) + noise
    heads = {name: np.full(count, np.nan) for name in head_columns(own=False)}
    heads |= _head_values(amount, character, maturity)
    identity = unit.identity("ok")
    places = {"layer": np.repeat(np.arange(shape.layers), shape.heads),
              "head": np.tile(np.arange(shape.heads), shape.layers)}  # fmt: skip
    stds = {f"{name}_std": 0.05 * np.abs(values) for name, values in heads.items()}
    table = pl.DataFrame(places | heads | stds).with_columns(
        spectrum=_spectra(amount, SPECTRUM_BANDS), wavelet_energy=_spectra(2 * amount, WAVELET_SCALES)
    )
    sequences = _sequences(heads, fresh, exploration, step, unit.probe.number)
    layers = _layers(amount.reshape(shape.layers, shape.heads), fresh)
    lits = [pl.lit(value).alias(name) for name, value in identity.items()]
    row = identity | _facts(unit, shape) | _summary(heads, layers, sequences)
    return Measurement(table.with_columns(lits), layers.with_columns(lits), sequences.with_columns(lits),
                       pl.DataFrame([row]))  # fmt: skip


def _head_values(amount: np.ndarray, character: np.ndarray, maturity: float) -> dict[str, np.ndarray]:
    previous = maturity * np.where(character > 0.85, 0.8, 0.03) + 0.03
    induction = maturity * np.where(character < 0.1, 0.7, 0.01) + 0.01
    values = {
        "spectral_entropy": 2.28 + 1.7 * amount, "spectral_entropy_normalised": (2.28 + 1.7 * amount) / 4.17,
        "frequency_selectivity": 0.74 * np.exp(-2.2 * amount), "band_power_low": 0.8 - 0.38 * amount,
        "band_power_mid": 0.14 + 0.24 * amount, "band_power_high": 0.06 + 0.14 * amount,
        "positional_entropy": 3.4 - 0.9 * amount - 1.2 * previous,
        "position_spectrum_correlation": np.clip(-0.4 - 0.3 * amount, -1, 1),
        "scale_sensitivity_0.5": 0.52 - 0.2 * amount, "scale_sensitivity_0.25": 0.54 - 0.2 * amount,
        "reconstruction_error": np.full(len(amount), 3e-7),
        "window_entropy_16": 0.87 + 0.02 * amount, "window_entropy_32": 0.88 + 0.02 * amount,
        "window_entropy_64": 0.89 + 0.01 * amount,
        "local_share": 0.35 + 0.2 * amount, "previous_token_score": previous,
        "prefix_matching_score": induction, "sink_share": 0.05 + 0.1 * maturity * character,
    }  # fmt: skip
    values |= {f"wavelet_entropy_{j}": 0.3 + 0.1 * j + 0.2 * amount for j in range(WAVELET_SCALES)}
    both = {metric.name for metric in METRICS if metric.averaged}
    return values | {f"averaged_{name}": 0.9 * array for name, array in values.items() if name in both}


def _spectra(amount: np.ndarray, parts: int) -> pl.Series:
    """(heads, parts) shares that add up to one: white where exploration is high, steep where it is low."""
    decay = np.clip(0.55 - 0.45 * amount, 0.02, None)
    power = np.exp(-decay[:, None] * np.arange(parts))
    return pl.Series((power / power.sum(axis=1, keepdims=True)).tolist(), dtype=pl.List(pl.Float64))


def _sequences(heads: dict[str, np.ndarray], fresh: np.random.Generator, exploration: float, step: int,
               number: int) -> pl.DataFrame:  # fmt: skip
    columns: dict[str, Any] = {"sequence": np.arange(number)}
    for name in sequence_columns(own=False):
        if name in heads:
            columns[name] = np.mean(heads[name]) * (1 + fresh.normal(0, 0.03, number))
    columns["loss"] = 3.4 + 3.7 * np.exp(-np.log2(step + 1) / 4.5) + fresh.normal(0, 0.12, number)
    columns["in_context_score"] = -0.4 * exploration + fresh.normal(0, 0.03, number)
    return pl.DataFrame(columns)


def _layers(amount_LH: np.ndarray, fresh: np.random.Generator) -> pl.DataFrame:
    mean = amount_LH.mean(axis=1)
    values = {"layer": np.arange(len(mean))} | {
        name: 0.6 - 0.3 * mean + fresh.normal(0, 0.01, len(mean)) for name in layer_columns()
    }
    return pl.DataFrame(values)


def _facts(unit: Unit, shape: Shape) -> dict[str, Any]:
    checkpoint = unit.checkpoint
    return {
        "key": unit.key, "tokens_seen": checkpoint.tokens_seen, "repo": checkpoint.location,
        "revision": checkpoint.revision, "commit": checkpoint.commit,
        "params_total": shape.non_embedding + 2 * 512 * shape.d_model,
        "params_non_embedding": shape.non_embedding, "n_layers": shape.layers, "n_heads": shape.heads,
        "d_model": shape.d_model, "d_head": shape.d_model // shape.heads,
        "rotary_dims": shape.d_model // shape.heads // 4, "position_encoding": "rotary", "causal": True,
        "dtype": unit.dtype, "device": "cpu", "n_sequences": unit.probe.number, "n_tokens": unit.probe.n,
        "token_digest": "f" * 64, "tracker_version": "0.1.0", "seconds": 1.5, "peak_bytes": 400_000_000,
        "undefined_rows": shape.layers * shape.heads * unit.probe.number,
    }  # fmt: skip


def _summary(heads: dict[str, np.ndarray], layers: pl.DataFrame, sequences: pl.DataFrame) -> dict[str, Any]:
    finest = dict(heads) | {name: layers[name].to_numpy() for name in layer_columns()}
    finest |= {name: sequences[name].to_numpy() for name in ("loss", "in_context_score")}
    row: dict[str, Any] = {}
    for name, values in finest.items():
        if np.isfinite(values).any():
            q25, q75 = np.nanquantile(values, [0.25, 0.75])
            row |= {name: float(np.nanmean(values)), f"{name}_std": float(np.nanstd(values, ddof=1)),
                    f"{name}_q25": float(q25), f"{name}_q75": float(q75)}  # fmt: skip
    return row


def synthetic_analysis(shapes: Sequence[Shape] = SMALL, steps: Sequence[int] = SMALL_STEPS, *,
                       suite: str = "nano", seeds: int = 1) -> dict[str, Any]:  # fmt: skip
    """What analysis.json says of this store, from the planted truth."""
    phases = [
        _phases(suite, shape.model, seed, steps, size / max(1, len(shapes) - 1))
        for size, shape in enumerate(shapes) for seed in range(seeds)
    ]  # fmt: skip
    names = ("spectral_entropy", "frequency_selectivity")
    thresholds = [_threshold(suite, name, shapes, steps) for name in names]
    summary = [entry["sentence"] for entry in (*phases, *thresholds)]
    why = [change for entry in phases for change in _why(entry)]
    transitions = [to_dict(_transitions(entry)) for entry in phases]
    return {"probe": PROBE.label, "conventions": Conventions().label, "phases": phases, "lead_lag": why,
            "transitions": transitions, "thresholds": thresholds, "summary": summary}  # fmt: skip


def _transitions(entry: dict[str, Any]) -> RunTransitions:
    """A rise between the two changes of a run and the way back after it."""
    steps = entry["steps"]
    first, second = (steps.index(point["step_high"]) for point in entry["change_points"])

    def passing(at: int) -> Passing:
        return Passing(steps[at - 1], steps[at], (steps[at - 1], steps[at]), 0.97)

    def moved(start: float, finish: float, dates: Sequence[int]) -> Move:
        onset, half, end = map(passing, dates)
        way = "up" if finish > start else "down"
        return Move(way, start, finish, (finish - start,) * 2, onset, half, end, 3.0, (2.0, 4.0), "gradual")

    out, back = (first, (first + second) // 2, second - 1), (second, second, len(steps) - 1)
    turns = (Turn(entry["phases"][1]["peak_step"], (steps[second - 2], steps[second]), 1, 0.4, (0.3, 0.5)),)
    curves = {
        name: CurveTransitions((moved(low, high, out), moved(high, turned, back)), turns, 0.0006, 0.1)
        for name, (low, high, turned) in {
            "spectral_entropy": (2.2, 3.6, 3.0), "frequency_selectivity": (0.7, 0.1, 0.3),
        }.items()
    }  # fmt: skip
    structure = CurveTransitions((moved(0, 4, out), moved(4, 2.4, back)), turns, 0.0006, 0.1)
    return RunTransitions(entry["suite"], entry["model"], entry["seed"], tuple(steps), curves, structure)


def _why(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """Loss moves one checkpoint before each change, in-context score stands still, sinks come after."""
    found = []
    for point in entry["change_points"]:
        at = entry["steps"].index(point["step_high"])
        early, late = entry["steps"][at - 2 : at], entry["steps"][at : at + 2]
        covariates = {
            "loss": {"verdict": "before", "lag": -1, "interval": [-2, -1], "bracket": early},
            "in_context_score": {"verdict": "still", "lag": None, "interval": None, "bracket": None},
            "sink_share": {"verdict": "after", "lag": 1, "interval": None, "bracket": late},
        }
        heads = [{"layer": 1, "head": 2, "share": 0.25}, {"layer": 0, "head": 1, "share": 0.125}]
        found.append({"suite": entry["suite"], "model": entry["model"], "seed": entry["seed"],
                      "step_low": point["step_low"], "step_high": point["step_high"],
                      "covariates": covariates, "landmarks": [],
                      "carriers": {"frequency_selectivity": {"heads": heads, "half_by": 3, "of": 8,
                                                             "layers": []}}})  # fmt: skip
    return found


def _phases(suite: str, model: str, seed: int, steps: Sequence[int], size: float) -> dict[str, Any]:
    log = np.log2(np.array(steps) + 1.0)
    cuts = [int(np.searchsorted(log, PEAK - size - 2.0)), int(np.searchsorted(log, PEAK - size + 2.0))]
    peak = steps[int(np.argmin(np.abs(log - (PEAK - size))))]
    bounds = [0, *cuts, len(steps)]
    labels = ["initial", "exploratory", "specialisation"]
    evidence = {
        name: {"first": 0.7, "last": 0.2, "extremum": 0.1, "extremum_step": peak}
        for name in ("spectral_entropy", "frequency_selectivity")
    }
    found = [
        {"label": label, "first_step": steps[low], "last_step": steps[high - 1],
         "peak_step": peak if label == "exploratory" else None, "evidence": evidence}
        for label, low, high in zip(labels, bounds, bounds[1:], strict=False)
    ]  # fmt: skip
    points = [{"step_low": steps[cut - 1], "step_high": steps[cut], "confidence": 0.97} for cut in cuts]
    sentence = (
        f"{model}: exploratory phase from step ({points[0]['step_low']}, {points[0]['step_high']}], "
        f"selectivity lowest at step {peak}; specialisation from ({points[1]['step_low']}, "
        f"{points[1]['step_high']}], sure to 97 % over sequences."
    )
    return {"suite": suite, "model": model, "seed": seed, "steps": list(steps),
            "metrics": ["spectral_entropy"], "criterion": "planted", "change_points": points,
            "phases": found, "left_out": [], "p_value": 0.0006, "sentence": sentence}  # fmt: skip


def _threshold(suite: str, metric: str, shapes: Sequence[Shape], steps: Sequence[int]) -> dict[str, Any]:
    sizes = [shape.non_embedding for shape in shapes]
    claimed = metric == "spectral_entropy" and len(shapes) >= 5
    if claimed:
        sentence = f"Spectral entropy steps up between {shapes[3].model} and {shapes[4].model} (p = 0.01)."
    else:
        sentence = (
            f"{metric}: no threshold is claimed over {len(shapes)} sizes: a trend explains them as well."
        )
    return {"suite": suite, "metric": metric, "axis": "params_non_embedding", "step": steps[-1],
            "models": [shape.model for shape in shapes], "scale": sizes, "values": [1.0] * len(sizes),
            "low": sizes[3] if claimed else None, "high": sizes[4] if claimed else None,
            "effect": 0.4 if claimed else None, "p_value": 0.01 if claimed else None, "left_out": [],
            "sentence": sentence}  # fmt: skip
