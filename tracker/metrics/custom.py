"""``tracker.metric``: a function on attention rows becomes a metric like every other.

Legend: (...) any signals, K keys.
"""

import inspect
import re
from collections.abc import Callable
from functools import partial
from types import CodeType
from typing import Any

import torch
from torch import Tensor

from tracker.errors import RequestError
from tracker.metrics.extension import OwnMetric, register
from tracker.metrics.registry import INFINITY, Metric
from tracker.metrics.trial import try_metric
from tracker.records import digest

Function = Callable[[Tensor], Tensor]
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def metric(
    function: Function | None = None,
    *,
    name: str | None = None,
    title: str | None = None,
    unit: str = "",
    low: float = -INFINITY,
    high: float = INFINITY,
    source: str = "own",
    meaning: str | None = None,
    averaged: bool = True,
) -> Any:
    """Registers a metric: a decorator for a function of attention rows.

    The function gets signals over key positions, shape (..., K), float32 or float64: rows of attention
    probabilities, zero beyond the query, each summing to 1. It gives one value each, shape (...), of the
    same dtype; NaN where the metric does not exist, which leaves that row out of every mean.

    From then on whatever is measured in this process has it: a column in the tables of heads, sequences and
    checkpoints, its spread (``_std``; ``_q25`` and ``_q75`` per checkpoint), a key in W&B, and an entry in
    the dashboard; the same of the signal averaged over queries (``averaged_``). Its source is part of the
    conventions, so results with, without, and with another version of it are never mixed. On registration
    it is tried on signals whose truth is known (``tracker.try_metric``); one that fails there is refused. One
    that fails later costs its own column alone: the checkpoint's ``reason`` tells why.

    Args:
        function: the function, where the decorator is used without arguments.
        name: of the column; None: the function's own.
        title: for people; None: the name in words.
        unit, low, high: of its values.
        source: where it is from, a paper's equation.
        meaning: one line; None: the first line of the function's docstring.
        averaged: whether it is also taken of the averaged signal.

    Returns:
        The function as it was.

    Raises:
        RequestError: the name is taken or no name, or the function fails a trial; names which.

    Example:
        >>> import tracker
        >>> from tracker.metrics.extension import forget
        >>> @tracker.metric(unit="share", low=0, high=1)
        ... def largest_share(rows):
        ...     '''Attention on the key that gets the most.'''
        ...     return rows.amax(-1)
        >>> forget("largest_share")
    """

    def decorated(function: Function) -> Function:
        register(_own(function, name, title, unit, low, high, source, meaning, averaged))
        return function

    return decorated if function is None else decorated(function)


def _own(
    function: Function,
    name: str | None,
    title: str | None,
    unit: str,
    low: float,
    high: float,
    source: str,
    meaning: str | None,
    averaged: bool,
) -> OwnMetric:
    given = name or getattr(function, "__name__", "")
    words = given.replace("_", " ")
    about = meaning or (inspect.getdoc(function) or words).splitlines()[0]
    if not low < high:
        raise RequestError(f"metric {given}: low={low} is not below high={high}")
    described = Metric(
        given, title or words[:1].upper() + words[1:], unit, low, high, source, about, averaged=averaged
    )
    try_metric(function, name=given, low=low, high=high)
    told = [source_of(function), unit, low, high, averaged]
    return OwnMetric(described, function, f"{given}-{digest(told, 8)}")


def source_of(function: Any) -> str:
    """What tells two versions of a function apart, the same in every process: its source (else its compiled
    code), and the values that it has bound: defaults, a closure's, ``functools.partial``'s, an object's.

    Functions and modules that it calls are not looked into.
    """
    if isinstance(function, partial):
        return repr(
            [source_of(function.func), _told(function.args), _told(sorted(function.keywords.items()))]
        )
    if inspect.ismethod(function):
        return repr([source_of(function.__func__), _told(vars(function.__self__))])
    if not hasattr(function, "__code__"):
        kind = type(function)
        own = getattr(kind.__call__, "__code__", None) and source_of(kind.__call__)
        return repr([f"{kind.__module__}.{kind.__qualname__}", own, _told(getattr(function, "__dict__", {}))])
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):
        text = _compiled(function.__code__)
    closure = inspect.getclosurevars(function).nonlocals if function.__closure__ else {}
    bound = [each for each in (function.__defaults__, function.__kwdefaults__, closure) if each]
    return repr([text, _told(bound)]) if bound else text


def _compiled(code: CodeType) -> str:
    constants = [_compiled(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts]
    return repr((code.co_code, constants, code.co_names))


def _told(value: Any) -> str:
    """A bound value in words; of one that shows nothing but where it lies in memory, its kind."""
    return ADDRESS.sub("", repr(value))


def own_values(signal: Tensor, n: int, own: list[OwnMetric], troubles: dict[str, str]) -> dict[str, Tensor]:
    """The registered metrics of each signal; NaN where undefined, or where the function fails.

    Args:
        signal: shape (..., given): the first samples of signals of n, the others being zero.
        n: keys.
        own: the metrics.
        troubles: by metric, in words, what went wrong; filled, and a metric in it is not tried again.
    """
    values = {}
    for each in own:
        name = each.metric.name
        values[name] = torch.full_like(signal[..., 0], torch.nan)
        if name in troubles:
            continue
        # A copy of its own: what a function does to its argument must not reach anybody else's.
        rows = signal.new_zeros(*signal.shape[:-1], n)
        rows[..., : signal.shape[-1]] = signal
        try:
            found = each.function(rows)
            if not isinstance(found, Tensor) or found.shape != signal.shape[:-1]:
                shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
                raise ValueError(f"it gives {shape} for rows of shape {tuple(rows.shape)}")
            values[name] = found.to(signal.dtype)
        except Exception as error:
            troubles[name] = f"metric {name} failed, its columns are empty: {type(error).__name__}: {error}"
    return values
