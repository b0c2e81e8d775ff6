"""Files and folders that appear whole or not at all, and locks on them."""

import errno
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

AT_CURRENT_FOLDER = -100
"""Linux's AT_FDCWD: paths are relative to the current folder."""


def save_file(path: Path, write: Callable[[Path], object]) -> None:
    """Replace ``path`` by what ``write`` puts into a temporary file beside it.

    Args:
        path: the file; its old content stays until the new one is complete.
        write: gets the temporary path.
    """
    new = _beside(path)
    try:
        write(new)
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def save_json(path: Path, content: object) -> None:
    """Replace ``path`` by ``content`` as JSON.

    Raises:
        ValueError: a number in it is NaN or infinite, which JSON does not have.
    """
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    save_file(path, lambda new: new.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        OSError: it does not exist or cannot be read.
        ValueError: it is not JSON in UTF-8; names the file.
    """
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{path} is not valid JSON: nested too deep") from error


def update_json(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Replace the object in a JSON file by what ``change`` makes of it, under a lock.

    Args:
        path: the file; one that is absent or no JSON object counts as empty.
        change: gets the present content and returns the new one.

    Raises:
        OSError: the folder cannot be written.
        ValueError: the new content holds NaN or infinite numbers.
    """
    with locked(path.with_name(f".{path.name}.lock")):
        try:
            content = read_json(path)
        except (OSError, ValueError):
            content = None
        save_json(path, change(content if isinstance(content, dict) else {}))


@contextmanager
def locked(path: Path, seconds: float = -1) -> Iterator[None]:
    """Hold the lock file ``path`` for the length of a block; the system releases it when the process ends.

    Args:
        path: the lock file; its folder is made.
        seconds: how long to wait for another holder; negative: as long as it takes.

    Raises:
        filelock.Timeout: another process still holds it.
    """
    from filelock import FileLock  # 0.1 s that most commands need not wait for

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path, timeout=seconds):
        yield


def _beside(path: Path) -> Path:
    """A name that no other process or thread takes, and that ``clear_leftovers`` knows by its digits."""
    return path.with_name(f".{path.name}.{os.getpid()}{threading.get_ident()}")


def exchange(one: Path, other: Path) -> bool:
    """Let two files or folders take each other's place in one step.

    Returns:
        False where the system or the file system has no such step; nothing is changed then.

    Raises:
        OSError: one of them does not exist, or may not be moved.
    """
    import ctypes

    system = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    if hasattr(system, "renameat2"):
        failed = system.renameat2(AT_CURRENT_FOLDER, names[0], AT_CURRENT_FOLDER, names[1], 2)
    elif hasattr(system, "renamex_np"):
        failed = system.renamex_np(*names, 2)
    else:
        return False
    if not failed:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code), str(one), None, str(other))


def save_folder(path: Path, fill: Callable[[Path], object]) -> None:
    """Make folder ``path`` from what ``fill`` puts into a temporary folder beside it.

    The folder that it lies in must be there. One that is already there stays as it is: it was complete when
    it appeared.
    """
    if path.is_dir():
        return
    new = _beside(path)
    shutil.rmtree(new, ignore_errors=True)
    try:
        new.mkdir()
        fill(new)
        os.rename(new, path)
    except OSError:
        if not path.is_dir():  # otherwise another process made it meanwhile
            raise
    finally:
        shutil.rmtree(new, ignore_errors=True)


def clear_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders that a killed process left in ``folder``.

    Only the holder of the folder's lock may call it.
    """
    for left in folder.glob(".*.*"):
        if not left.name.rpartition(".")[2].isdigit():
            continue
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
