"""How the dataclasses of a report become JSON and are read back, also from an earlier version's file."""

import math
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any

import numpy as np


def stored_as(key: str | None) -> dict[str, str | None]:
    """Return the metadata of a field that stands under another name in JSON; None: it is not stored."""
    return {"key": key}


def to_dict(value: Any) -> Any:
    """Convert a report to JSON's types: dataclasses to dicts, arrays and tuples to lists, NaN to None."""
    if value is None or type(value) in (str, int, bool):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else None
    if is_dataclass(value) and not isinstance(value, type):
        return {
            key: to_dict(getattr(value, each.name))
            for each in fields(value)
            if (key := each.metadata.get("key", each.name)) is not None
        }
    if isinstance(value, Mapping):
        return {str(key): to_dict(each) for key, each in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [to_dict(each) for each in value]
    if isinstance(value, np.generic):
        return to_dict(value.item())
    return value


LEAVES: dict[Any, Any] = {int: (int, float), float: (int, float), str: str, bool: bool}
"""JSON's types by that of the field."""


class _Incomplete(Exception):
    """A stored entry lacks a field that has no default."""


def from_dict(kind: Any, content: Any) -> Any:
    """Build the dataclass ``kind`` from parsed JSON, as ``AnalysisReport.from_dict`` describes."""
    if not isinstance(content, Mapping):
        raise _Incomplete
    hints, given = _hints(kind), {}
    for each in fields(kind):
        key = each.metadata.get("key", each.name)
        if content.get(key) is not None:
            try:
                given[each.name] = _typed(hints[each.name], content[key])
                continue
            except _Incomplete:
                pass  # as if it were absent
        if each.default is MISSING and each.default_factory is MISSING:
            if type(None) not in typing.get_args(hints[each.name]):
                raise _Incomplete
            given[each.name] = None
    return kind(**given)


_hints = cache(typing.get_type_hints)


def _typed(hint: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        known = [each for each in arguments if each is not type(None)]
        found = None if value is None else next(_complete((each, value) for each in known), _Incomplete)
        if found is _Incomplete:
            raise _Incomplete
        return found
    if is_dataclass(hint):
        return from_dict(hint, value)
    if origin is tuple:
        found = tuple(
            _complete((arguments[0], each) for each in (value if isinstance(value, list | tuple) else ()))
        )
        if Ellipsis not in arguments and len(found) != len(arguments):
            raise _Incomplete
        return found
    if isinstance(value, Mapping) and len(arguments) == 2:
        kept = {key: list(_complete([(arguments[1], each)])) for key, each in value.items()}
        return {key: each[0] for key, each in kept.items() if each}
    if origin is typing.Literal:
        if value not in arguments:
            raise _Incomplete
        return value
    if hint in LEAVES and (not isinstance(value, LEAVES[hint]) or isinstance(value, bool) != (hint is bool)):
        raise _Incomplete
    if len(arguments) == 2 and origin is not None:
        raise _Incomplete
    return value


def _complete(pairs: Iterable[tuple[Any, Any]]) -> Iterator[Any]:
    """Yield every value that can be built as its type; incomplete entries are dropped."""
    for hint, value in pairs:
        try:
            yield _typed(hint, value)
        except _Incomplete:
            continue
