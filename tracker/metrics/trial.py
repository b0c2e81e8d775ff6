"""Tries a metric of a user's own on synthetic rows: the tests that every metric gets for free."""

from collections.abc import Callable

import torch
from torch import Tensor

from tracker.errors import RequestError

KEYS = (8, 64, 96)
TOLERANCE = 1e-3
"""How far float32 may lie from float64, relative to the larger value or to 1."""


def trial_rows(keys: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Attention rows of every kind that occurs, shape (2, 3, 8, keys): causal, some uniform, some sharp.

    Each sums to 1 and is zero beyond its query; the first sees one key alone.
    """
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 8, keys, generator=generator, dtype=torch.float64)
    logits *= torch.tensor([0.0, 1.0, 8.0], dtype=torch.float64).view(1, 3, 1, 1)
    last = torch.linspace(0, keys - 1, 8).long()
    hidden = torch.arange(keys) > last.unsqueeze(-1)
    return logits.masked_fill(hidden, -torch.inf).softmax(-1).to(dtype)


def try_metric(
    function: Callable[[Tensor], Tensor],
    *,
    name: str | None = None,
    low: float = -torch.inf,
    high: float = torch.inf,
) -> dict[str, str]:
    """Tries a metric on synthetic attention rows.

    Args:
        function: rows (..., K) to values (...).
        name: for messages; None: the function's own.
        low, high: the range that its values keep.

    Returns:
        By trial, in words, what held: shape, dtype, finite, range, batch, precision, argument, again.

    Raises:
        RequestError: names the metric, the trial and what came out.
    """
    called = name or getattr(function, "__name__", "metric")
    held: dict[str, str] = {}
    for keys in KEYS:
        rows = trial_rows(keys)
        held |= _one_length(function, called, rows, low, high)
    return held


def _one_length(
    function: Callable[[Tensor], Tensor], name: str, rows: Tensor, low: float, high: float
) -> dict[str, str]:
    def refuse(trial: str, what: str) -> RequestError:
        return RequestError(f"metric {name} fails the trial of {trial} at {rows.shape[-1]} keys: {what}")

    def call(given: Tensor) -> Tensor:
        try:
            with torch.inference_mode():
                return function(given)
        except Exception as error:
            raise refuse("running", f"{type(error).__name__}: {error}") from error

    kept = rows.clone()
    values = call(rows)
    if not isinstance(values, Tensor) or values.shape != rows.shape[:-1]:
        shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise refuse("shape", f"it gives {shape} for rows of shape {tuple(rows.shape)}")
    if not torch.equal(rows, kept):
        raise refuse("argument", "it changes the rows that it is given; work on a copy")
    single = call(rows.float())
    if values.dtype != rows.dtype or single.dtype != torch.float32:
        raise refuse("dtype", f"float64 gives {values.dtype}, float32 gives {single.dtype}")
    if values.isinf().any() or values.isnan().all():
        raise refuse(
            "finite", "it gives infinity, or NaN for every row; NaN is for single rows without a value"
        )
    if (values < low).any() or (values > high).any():
        raise refuse(
            "range", f"{values[(values < low) | (values > high)][0]:.6g} is not in {low:g} to {high:g}"
        )
    if not _close(call(rows), values, 1e-12):
        raise refuse("again", "the same rows give another value; nothing random, and no state")
    alone = torch.stack([call(row.unsqueeze(0))[0] for row in rows.flatten(0, -2)]).view(values.shape)
    if not _close(alone, values, 1e-9):
        raise refuse("batch", "a row alone gives another value than among others")
    if not _close(single.double(), values, TOLERANCE):
        raise refuse("precision", f"float32 and float64 differ by more than {TOLERANCE:g}")
    undefined = int(values.isnan().sum())
    return {
        "shape": "one value a row", "dtype": "as the rows",
        "finite": f"{undefined} of {values.numel()} rows undefined",
        "range": f"{low:g} to {high:g}", "batch": "a row alone as among others",
        "precision": f"float32 within {TOLERANCE:g}", "argument": "not changed", "again": "the same",
    }  # fmt: skip


def _close(found: Tensor, wanted: Tensor, tolerance: float) -> bool:
    scale = wanted.abs().clamp(min=1.0).nan_to_num(1.0)
    return bool((((found - wanted).abs() <= tolerance * scale) | (found.isnan() & wanted.isnan())).all())
