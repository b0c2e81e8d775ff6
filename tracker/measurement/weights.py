"""The weights of one checkpoint, measured: no forward pass, no probe, and only its matrices are read.

Legend: L layers, H heads, F rotary frequencies.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from tracker.measurement.tables import summary_of
from tracker.measurement.threads import batch_threads, map_in_threads
from tracker.measurement.weight_tables import NOTE, WeightTables
from tracker.metrics.registry import option_columns
from tracker.metrics.weights import (
    effective_rank,
    mean_frequency_index,
    outlier_ratio,
    product_singular_values,
    rotary_bands,
    rotary_shares,
    singular_values,
    spectral_norm,
    stable_rank,
)
from tracker.models import ModelFacts, model_facts
from tracker.models.layer_weights import Heads, LayerReader, LayerWeights, Rotation

Columns = dict[str, Tensor]
PROFILES = {"q": "rotary_profile_q", "k": "rotary_profile_k"}


class WeightMeter:
    """Measures the weights of checkpoints; what it knows of an architecture serves the next one too.

    Args:
        device: where the arithmetic is done, in float64.
    """

    def __init__(self, device: str = "cpu") -> None:
        self._device, self._reader = torch.device(device), LayerReader()

    def measure(self, folder: Path) -> WeightTables:
        """Measure every layer of a checkpoint, on a processor several at a time.

        Args:
            folder: in Hugging Face layout; tensors are read as they are stored, whatever dtype a forward
                pass would use.

        Raises:
            CheckpointError: the files cannot be read, or a matrix holds NaN; names the tensor.
        """
        rotation = self._reader.rotation(folder)
        layers = list(self._reader.layers(folder))

        @torch.inference_mode()
        def work(number: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
            rotates = rotation if rotation is not None and rotation.layers[number] else None
            found = self._heads(layers[number], rotates), dict(self._matrices(layers[number]))
            heads, matrices = (
                {name: value.double().cpu().numpy() for name, value in each.items()} for each in found
            )
            return heads, matrices

        found = map_in_threads(work, range(len(layers)), batch_threads(self._device))
        per_head, per_layer = map(list, zip(*found, strict=True))
        lacking = {"attention" for layer in layers if not layer.heads}
        lacking |= {"MLP" for layer in layers if not layer.mlp}
        kind = type(self._reader.model(folder)).__name__
        note = f"{NOTE} the layout of {kind}'s {' and '.join(sorted(lacking))} is not known"
        return _tables(per_head, per_layer, note if lacking else None)

    def facts(self, folder: Path) -> ModelFacts:
        """Return the architecture of a checkpoint's model."""
        return model_facts(self._reader.model(folder))

    def _matrices(self, layer: LayerWeights) -> Iterator[tuple[str, Tensor]]:
        found: Columns = {f"mlp_{part}": matrix for part, matrix in layer.mlp.items()}
        if layer.heads is not None:
            found |= _flat(layer.heads)
        for part, matrix in found.items():
            placed = matrix.to(self._device)
            singular = singular_values(placed)
            yield f"stable_rank_{part}", stable_rank(singular)
            yield f"effective_rank_{part}", effective_rank(singular)
            yield f"spectral_norm_{part}", spectral_norm(singular)
            yield f"outlier_ratio_{part}", outlier_ratio(placed)

    def _heads(self, layer: LayerWeights, rotation: Rotation | None) -> Columns:
        if layer.heads is None:
            return {}
        placed = Heads(**{name: value.to(self._device) for name, value in vars(layer.heads).items()})
        keys, values = (placed.of_queries(each) for each in (placed.key, placed.value))
        found = {}
        for part, (left, right) in {
            "qk": (placed.query, keys),
            "ov": (placed.output, values),
        }.items():
            singular = product_singular_values(left, right)
            found[f"stable_rank_{part}"] = stable_rank(singular)
            found[f"effective_rank_{part}"] = effective_rank(singular)
            found[f"spectral_norm_{part}"] = spectral_norm(singular)
        if rotation is not None:
            for part, weights in (("q", placed.query), ("k", keys)):
                shares = rotary_shares(weights, rotation.dims, interleaved=rotation.interleaved)
                found[f"rotary_place_{part}"] = mean_frequency_index(shares)
                found[f"rotary_high_{part}"], found[f"rotary_low_{part}"] = rotary_bands(shares)
                found[PROFILES[part]] = shares
        return found


def _flat(heads: Heads) -> Columns:
    """The four matrices as they stand in the model."""
    named = {"q": heads.query, "k": heads.key, "v": heads.value, "o": heads.output}
    return {part: matrix.flatten(0, 1) for part, matrix in named.items()}


def _tables(
    heads: list[dict[str, np.ndarray]], layers: list[dict[str, np.ndarray]], note: str | None
) -> WeightTables:
    """Every column of weights, NaN where a layer has no value."""
    per_layer = {name: _stacked(layers, name, ()) for name in option_columns("weights", level="layer")}
    number = max((len(value) for each in heads for value in each.values()), default=0)
    per_head = {name: _stacked(heads, name, (number,)) for name in option_columns("weights", level="head")}
    frame = pl.DataFrame(
        {
            "layer": np.repeat(np.arange(len(heads)), number),
            "head": np.tile(np.arange(number), len(heads)),
            **{name: values.ravel() for name, values in per_head.items()},
        }
    ).with_columns(*(_profiles(heads, name, number) for name in PROFILES.values()))
    layer_frame = pl.DataFrame({"layer": np.arange(len(layers)), **per_layer})
    row = pl.DataFrame([summary_of(per_head | per_layer)])
    known = pl.selectors.float().fill_nan(None)
    return WeightTables(
        frame.with_columns(known), layer_frame.with_columns(known), row.with_columns(known), note
    )


def _stacked(found: list[dict[str, np.ndarray]], name: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.array([each.get(name, np.full(shape, np.nan)) for each in found]).reshape(len(found), *shape)


def _profiles(heads: list[dict[str, np.ndarray]], name: str, number: int) -> pl.Series:
    rows = [row for each in heads for row in (each[name].tolist() if name in each else [None] * number)]
    return pl.Series(name, rows, dtype=pl.List(pl.Float64))
