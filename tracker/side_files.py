"""The typed reader of JSON files beside the records: what does not fit is named, set aside, made again."""

import logging
import os
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar

from tracker.atomic import read_json

logger = logging.getLogger(__name__)
T = TypeVar("T")
ASIDE = ".damaged"


def read_typed(path: Path, shape: Any, absent: T) -> Any | T:
    """Read a JSON file that may be damaged; a warning names one that does not fit.

    Args:
        path: the file.
        shape: what its content must be: a ``TypedDict``, or ``dict``, ``list`` and unions of JSON's types.
            Keys that a ``TypedDict`` does not name are allowed.
        absent: is returned where there is no such file, or it does not fit.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder) / "rates.json"
        ...     _ = path.write_text('{"here": 3}')
        ...     read_typed(path, dict[str, int], {}), read_typed(path, dict[str, list[int]], {})
        ({'here': 3}, {})
    """
    try:
        content = read_json(path)
        check(content, shape, path.name)
    except FileNotFoundError:
        return absent
    except (OSError, ValueError) as error:
        logger.warning("%s cannot be used and counts as absent: %s", path, error)
        return absent
    return content


def set_damaged_aside(path: Path, shape: Any) -> None:
    """Move a file that does not fit ``shape`` to ``NAME.damaged`` before another is made in its place.

    Raises:
        OSError: it cannot be moved.
    """
    try:
        check(read_json(path), shape, path.name)
    except FileNotFoundError:
        return
    except ValueError:
        os.replace(path, aside := path.with_name(path.name + ASIDE))
        logger.warning("%s is made again; what it held is in %s", path, aside.name)


def check(value: Any, shape: Any, where: str) -> None:
    """Check parsed JSON against a type.

    Raises:
        ValueError: it does not fit; names the place, as in ``audit.json.repos[0].checked``.
    """
    origin, arguments = typing.get_origin(shape), typing.get_args(shape)
    if shape is Any:
        return
    if origin in (types.UnionType, typing.Union):
        if not any(fits(value, each, where) for each in arguments):
            raise ValueError(f"{where} is {_named(value)}")
    elif origin is Literal:
        if value not in arguments:
            raise ValueError(f"{where} is {_named(value)}")
    elif typing.is_typeddict(shape):
        _check_plain(value, dict, where)
        for name, kind in typing.get_type_hints(shape).items():
            if name in value:
                check(value[name], kind, f"{where}.{name}")
            elif name in shape.__required_keys__:
                raise ValueError(f"{where} has no {name}")
    elif origin is not None:
        _check_plain(value, dict if len(arguments) == 2 else list, where)
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            check(each, arguments[-1], f"{where}[{key}]")
    else:
        _check_plain(value, shape, where)


def _check_plain(value: Any, kind: Any, where: str) -> None:
    wanted = (int, float) if kind is float else type(None) if kind is None else kind
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{where} is {_named(value)}")


def fits(value: Any, shape: Any, where: str = "") -> bool:
    """Return whether parsed JSON fits a type; see ``check``."""
    try:
        check(value, shape, where)
    except ValueError:
        return False
    return True


def _named(value: Any) -> str:
    return f"of type {type(value).__name__}, which does not belong there"
