"""``tracker.metric``: a function on attention rows becomes a metric like every other.

Legend: (...) any signals, K keys.
"""

import inspect
import re
from collections.abc import Callable
from functools import partial
from types import CodeType
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor

from tracker.errors import RequestError, unknown_value
from tracker.metrics.registry import CustomMetric, in_words, register
from tracker.metrics.table import INFINITY, Metric
from tracker.records import digest

Function = Callable[[Tensor], Tensor]
KEYS = (8, 64, 96)
"""Lengths of the rows on which a metric is tried."""
TOLERANCE = 1e-3
"""How far float32 may lie from float64, relative to the larger value or to 1."""
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class Description(TypedDict, total=False):
    """What ``tracker.metric`` may be given, by keyword."""

    name: str
    """Of the column; default the function's own."""
    title: str
    """For people; default the name in words."""
    unit: str
    low: float
    high: float
    """Of its values; by default none and any."""
    source: str
    """Where it is from: a paper's equation."""
    meaning: str
    """One line; default the first line of the function's docstring."""
    averaged: bool
    """Whether it is also taken of the averaged signal; default true."""


def metric(function: Function | None = None, **description: Unpack[Description]) -> Any:
    """Register a metric: a decorator for a function of attention rows.

    The function gets signals over key positions, shape (..., K), float32 or float64: rows of attention
    probabilities, zero beyond the query, each summing to 1. It gives one value each, shape (...), of the
    same dtype; NaN where the metric does not exist, which leaves that row out of every mean.

    From then on whatever is measured in this process has it: a column in the tables of heads, sequences and
    checkpoints, its spread (``_std``; ``_q25`` and ``_q75`` per checkpoint), a key in W&B, and an entry in
    the dashboard; the same of the signal averaged over queries (``averaged_``). Its source is part of the
    conventions, so results with, without, and with another version of it are never mixed. On registration
    it is tried on signals whose truth is known (``tracker.try_metric``); one that fails there is refused. One
    that fails later costs its own column alone: the checkpoint's ``reason`` says why.

    Args:
        function: the function, where the decorator is used without arguments.
        description: ``name`` of the column, ``title``, ``unit``, ``low``, ``high``, ``source``, ``meaning``,
            and ``averaged``: fields of ``Description``, each by keyword.

    Returns:
        The function as it was.

    Raises:
        RequestError: an unknown field, a name that is taken or no name, or a failed trial; names which.

    Example:
        >>> import tracker
        >>> from tracker.metrics.registry import forget
        >>> @tracker.metric(unit="share", low=0, high=1)
        ... def largest_share(rows):
        ...     '''Attention on the key that gets the most.'''
        ...     return rows.amax(-1)
        >>> forget("largest_share")
    """
    fields = Description.__annotations__
    for field in description:
        if field not in fields:
            raise unknown_value("tracker.metric", field, f"fields of {', '.join(fields)}")

    def decorated(function: Function) -> Function:
        register(_described(function, description))
        return function

    return decorated if function is None else decorated(function)


def _described(function: Function, given: Description) -> CustomMetric:
    name = given.get("name") or getattr(function, "__name__", "")
    defaults = {"low": -INFINITY, "source": "custom", "averaged": True}
    chosen = {field: value for field, value in given.items() if value is not None}
    about = (inspect.getdoc(function) or name.replace("_", " ")).splitlines()[0]
    made = Metric(**{**defaults, "title": in_words(name), "meaning": about, **chosen, "name": name})
    if not made.low < made.high:
        raise RequestError(f"metric {name}: low={made.low} is not below high={made.high}")
    try_metric(function, name=name, low=made.low, high=made.high)
    version = [source_of(function), made.unit, made.low, made.high, made.averaged]
    return CustomMetric(made, function, f"{name}-{digest(version, 8)}")


def source_of(function: Any) -> str:
    """Return what distinguishes two versions of a function, the same in every process.

    That is its source (else its compiled code), and the values that it has bound: defaults, a closure's,
    ``functools.partial``'s, an object's. Functions and modules that it calls are not looked into.
    """
    if isinstance(function, partial):
        keywords = sorted(function.keywords.items())
        return repr([source_of(function.func), _shown(function.args), _shown(keywords)])
    if inspect.ismethod(function):
        return repr([source_of(function.__func__), _shown(vars(function.__self__))])
    if not hasattr(function, "__code__"):
        kind, held = type(function), getattr(function, "__dict__", {})
        own = getattr(kind.__call__, "__code__", None) and source_of(kind.__call__)
        return repr([f"{kind.__module__}.{kind.__qualname__}", own, _shown(held)])
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):
        text = _compiled(function.__code__)
    closure = inspect.getclosurevars(function).nonlocals if function.__closure__ else {}
    bound = [each for each in (function.__defaults__, function.__kwdefaults__, closure) if each]
    return repr([text, _shown(bound)]) if bound else text


def _compiled(code: CodeType) -> str:
    constants = [_compiled(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts]
    return repr((code.co_code, constants, code.co_names))


def _shown(value: Any) -> str:
    """A bound value in words; of one that shows nothing but where it lies in memory, its kind."""
    return _ADDRESS.sub("", repr(value))


def custom_values(
    signal: Tensor, n: int, metrics: list[CustomMetric], troubles: dict[str, str]
) -> dict[str, Tensor]:
    """Compute custom metrics of each signal; NaN where undefined, or where the function fails.

    Args:
        signal: shape (..., given): the first samples of signals of n, the others being zero.
        n: keys.
        metrics: those to compute.
        troubles: by metric, in words, what went wrong; filled, and a metric in it is not tried again.
    """
    values = {}
    for each in metrics:
        name = each.metric.name
        values[name] = torch.full_like(signal[..., 0], torch.nan)
        if name in troubles:
            continue
        # A copy of its own: what a function does to its argument must not reach anybody else's.
        rows = signal.new_zeros(*signal.shape[:-1], n)
        rows[..., : signal.shape[-1]] = signal
        try:
            found = each.function(rows)
            if wrong := _wrong_shape(found, rows):
                raise ValueError(wrong)
            values[name] = found.to(signal.dtype)
        except Exception as error:
            troubles[name] = f"metric {name} failed, its columns are empty: {type(error).__name__}: {error}"
    return values


def _wrong_shape(values: Any, rows: Tensor) -> str | None:
    """What is wrong where there is not one value a row."""
    if isinstance(values, Tensor) and values.shape == rows.shape[:-1]:
        return None
    shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__qualname__
    pair = not isinstance(values, Tensor) and isinstance(getattr(values, "values", None), Tensor)
    hint = "; take its .values" if pair else ""  # as rows.max(-1), which tells places too
    return (
        f"it gives {shape} for rows of shape {tuple(rows.shape)}, not one value a row, "
        f"{tuple(rows.shape[:-1])}{hint}"
    )


def trial_rows(keys: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Make attention rows of every kind that occurs, shape (2, 3, 8, keys): causal, some uniform, some sharp.

    Each sums to 1 and is zero beyond its query; the first sees one key alone.
    """
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 8, keys, generator=generator, dtype=torch.float64)
    logits *= torch.tensor([0.0, 1.0, 8.0], dtype=torch.float64).view(1, 3, 1, 1)
    last = torch.linspace(0, keys - 1, 8).long()
    hidden = torch.arange(keys) > last.unsqueeze(-1)
    return logits.masked_fill(hidden, -torch.inf).softmax(-1).to(dtype)


def try_metric(
    function: Function, *, name: str | None = None, low: float = -INFINITY, high: float = INFINITY
) -> dict[str, str]:
    """Try a metric on synthetic attention rows.

    Args:
        function: rows (..., K) to values (...).
        name: for messages; None: the function's own.
        low, high: the range that its values keep.

    Returns:
        By trial, in words, what held: shape, dtype, finite, range, batch, precision, argument, again.

    Raises:
        RequestError: names the metric, the trial and what came out.

    Example:
        >>> try_metric(lambda rows: rows.amax(-1), low=0, high=1)["batch"]
        'a row alone as among others'
    """
    called = name or getattr(function, "__name__", "metric")
    held: dict[str, str] = {}
    for keys in KEYS:
        held |= _tried(function, called, trial_rows(keys), low, high)
    return held


def _tried(function: Function, name: str, rows: Tensor, low: float, high: float) -> dict[str, str]:
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
    if wrong := _wrong_shape(values, rows):
        raise refuse("shape", wrong)
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
        outside = values[(values < low) | (values > high)]
        raise refuse("range", f"{outside[0]:.6g} is not in {low:g} to {high:g}")
    if not _close(call(rows), values, 1e-12):
        raise refuse("again", "the same rows give another value; nothing random, and no state")
    alone = torch.stack([call(row.unsqueeze(0))[0] for row in rows.flatten(0, -2)]).view(values.shape)
    if not _close(alone, values, 1e-9):
        raise refuse("batch", "a row alone gives another value than among others")
    if not _close(single.double(), values, TOLERANCE):
        raise refuse("precision", f"float32 and float64 differ by more than {TOLERANCE:g}")
    return {
        "shape": "one value a row", "dtype": "as the rows",
        "finite": f"{int(values.isnan().sum())} of {values.numel()} rows undefined",
        "range": f"{low:g} to {high:g}", "batch": "a row alone as among others",
        "precision": f"float32 within {TOLERANCE:g}", "argument": "not changed", "again": "the same",
    }  # fmt: skip


def _close(found: Tensor, wanted: Tensor, tolerance: float) -> bool:
    scale = wanted.abs().clamp(min=1.0).nan_to_num(1.0)
    return bool((((found - wanted).abs() <= tolerance * scale) | (found.isnan() & wanted.isnan())).all())
