"""How the dataclasses of a report become JSON and are read back, also from an earlier version's file."""

import math
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache, partial
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
    given = {}
    for name, key, read, need in _fields(kind):
        if (value := content.get(key)) is not None:
            try:
                given[name] = read(value)
                continue
            except _Incomplete:
                pass  # as if it were absent
        if need is _Need.VALUE:
            raise _Incomplete
        if need is _Need.NONE:
            given[name] = None
    return kind(**given)


class _Need(Enum):
    """What a field that is absent becomes."""

    DEFAULT, NONE, VALUE = range(3)


@cache
def _fields(kind: Any) -> list[tuple[str, str | None, Callable[[Any], Any], _Need]]:
    hints, found = typing.get_type_hints(kind), []
    for each in fields(kind):
        hint, need = hints[each.name], _Need.DEFAULT
        if each.default is MISSING and each.default_factory is MISSING:
            need = _Need.NONE if type(None) in typing.get_args(hint) else _Need.VALUE
        found.append((each.name, each.metadata.get("key", each.name), _reader(hint), need))
    return found


@cache
def _reader(hint: Any) -> Callable[[Any], Any]:
    """Return what turns a value of JSON into a type, or raises ``_Incomplete``: made once for each type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return partial(_one_of, [_reader(each) for each in arguments if each is not type(None)])
    if is_dataclass(hint):
        return partial(from_dict, hint)
    if origin is tuple:
        return partial(_tuple, _reader(arguments[0]), None if Ellipsis in arguments else len(arguments))
    if origin is typing.Literal:
        return partial(_literal, arguments)
    if origin is not None and len(arguments) == 2:
        return partial(_mapping, _reader(arguments[1]))
    return partial(_leaf, LEAVES[hint], hint is bool) if hint in LEAVES else lambda value: value


def _one_of(readers: list[Callable[[Any], Any]], value: Any) -> Any:
    if value is None:
        return None
    for read in readers:
        try:
            return read(value)
        except _Incomplete:
            continue
    raise _Incomplete


def _tuple(read: Callable[[Any], Any], length: int | None, value: Any) -> tuple[Any, ...]:
    found = tuple(_complete(read, value if isinstance(value, list | tuple) else ()))
    if length not in (None, len(found)):
        raise _Incomplete
    return found


def _mapping(read: Callable[[Any], Any], value: Any) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise _Incomplete
    return {key: found for key, each in value.items() for found in _complete(read, (each,))}


def _literal(known: tuple[Any, ...], value: Any) -> Any:
    if value not in known:
        raise _Incomplete
    return value


def _leaf(kinds: Any, is_truth: bool, value: Any) -> Any:
    if not isinstance(value, kinds) or isinstance(value, bool) != is_truth:
        raise _Incomplete
    return value


def _complete(read: Callable[[Any], Any], values: Iterable[Any]) -> Iterator[Any]:
    """Yield every value that can be built as its type; incomplete entries are dropped."""
    for value in values:
        try:
            yield read(value)
        except _Incomplete:
            continue
