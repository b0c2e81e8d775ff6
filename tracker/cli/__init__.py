"""The command line: ``tracker COMMAND [field=value ...]``, composed by Hydra."""

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tracker.cli.overrides import RENAMED, readable_overrides, with_current_names
from tracker.commands import COMMANDS
from tracker.errors import Finished, TrackerError, closest, printable
from tracker.measurement.process import share_buffers_of_products

if TYPE_CHECKING:
    from rich.console import Console

    from tracker.config import Config

__all__ = ["EXIT_CODES", "RENAMED", "main", "run", "run_script", "usage", "with_current_names"]

DONE, WRONG_REQUEST, INTERRUPTED, BROKEN_PIPE = 0, 2, 130, 141
EXIT_CODES = {
    DONE: "done",
    1: "some checkpoints are not measured, each named with its reason; of `audit`: a fault was found; "
    "of `validate`: a check failed; of `stream`: not everything was delivered",
    WRONG_REQUEST: "the request was wrong: one line says which field and what is allowed, and nothing was "
    "written; also a store that fills up on the way, where what was measured stays",
    INTERRUPTED: "interrupted; progress saved; run the same command to resume",
    BROKEN_PIPE: "whoever read the output stopped reading it, as `head` does; progress saved",
}
"""Every exit code of the command line and what it means; documentation follows from it."""
HELP = ("-h", "--help", "help")
SCRIPTS = {"drivers": "drivers.py", "prune": "prune_heads.py"}
"""What used to be a command, or an argument of ``roles``, and is a script now."""


def usage() -> str:
    """Return the text of ``tracker --help``."""
    listed = "\n".join(f"  tracker {each.name:<11} {each.help}" for each in COMMANDS.values())
    return f"""Track attention-head spectra across training checkpoints.

{listed}

Arguments are Hydra overrides: tracker sweep suite=pythia steps=paper suite.models=[70m,410m] store=DIR
`tracker sweep --help` lists every group and field, `--cfg job` shows the composed request.
Tab completion: eval "$(tracker -sc install=bash)"; also install=zsh, install=fish.
"""


def main() -> None:
    """Entry point of the console script."""
    share_buffers_of_products()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code.

    Returns:
        0 done, 1 some units failed, 2 the request was wrong, 130 interrupted, 141 nobody reads the output.
    """
    if not arguments or arguments[0] in HELP:
        about = [each for each in arguments[1:2] if each in COMMANDS]
        if about:
            return run([*about, "--help", *arguments[2:]])
        sys.stdout.write(usage())
        return DONE
    command, *overrides = arguments
    overrides = ["--help"] if overrides == ["help"] else overrides
    if command in ("-V", "--version", "version") or "--version" in overrides:
        from tracker.records import tracker_version

        sys.stdout.write(f"tracker {tracker_version()}\n")
        return DONE
    if command in ("-sc", "--shell-completion") or {"-sc", "--shell-completion"} & set(overrides):
        from tracker.cli.completion import complete

        return complete(arguments)
    script = SCRIPTS.get("prune" if any(each.startswith("prune=") for each in overrides) else command)
    if script and command in ("drivers", "roles"):
        return _refuse(f"this is a script now: python sweeps/studies/{script}, with the same overrides")
    if command not in COMMANDS:
        return _refuse(_unknown_command(command))
    if {"-h", "--help"} & set(overrides):
        from tracker.cli.help import command_help

        sys.stdout.write(command_help(COMMANDS[command], overrides))
        return DONE
    return _guarded(lambda: _compose_and_run(command, overrides))


def run_script(command: Callable[["Config", "Console"], int], arguments: Sequence[str]) -> int:
    """Run a script's own command on the request that overrides compose, and return its exit code.

    Args:
        command: takes the checked configuration and a console, and returns an exit code.
        arguments: Hydra overrides.

    Returns:
        As ``run``.
    """
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write((sys.modules["__main__"].__doc__ or usage()).strip() + "\n")
        return DONE
    return _guarded(lambda: _run_script(command, arguments))


def _run_script(command: Callable[["Config", "Console"], int], arguments: Sequence[str]) -> int:
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from tracker import config
    from tracker.cli.refusals import one_line
    from tracker.console.output import make_console

    overrides = readable_overrides(arguments)
    try:
        with initialize_config_dir(str(config.folder()), version_base="1.3"):
            composed = compose("config", overrides=overrides)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        return _refuse(one_line(error, overrides))
    return command(config.read(composed), make_console())


def _guarded(job: Callable[[], int]) -> int:
    """Run a job and return its exit code, or that of how it ended otherwise."""
    try:
        code = job()
        sys.stdout.flush()
        return code
    except Finished as finished:
        sys.stdout.write(f"{printable(str(finished))}\n")
        return DONE
    except TrackerError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        return _refuse("interrupted; progress saved; run the same command to resume", INTERRUPTED)
    except BrokenPipeError:
        # What is still buffered must not fail again when the interpreter ends.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def _unknown_command(command: str) -> str:
    if command.partition(" ")[0] in COMMANDS:
        return f"'{command}' is one argument; write it without the quotes around all of it"
    if "=" in command:
        return f"{command} stands where a command belongs: tracker sweep {command}"
    return f"unknown command '{command}'; choose from {', '.join(COMMANDS)}{closest(command, COMMANDS)}"


def _compose_and_run(command: str, arguments: Sequence[str]) -> int:
    """Let Hydra compose the request, once or for every job of a multirun; the worst job's code counts."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf import DictConfig
    from omegaconf.errors import OmegaConfBaseException

    from tracker import config
    from tracker.cli.refusals import one_line

    codes: list[int] = []
    sweeps: set[Path] = set()

    def job(composed: DictConfig) -> None:
        sweeps.add(Path(str(composed.store)) / ".multirun")
        if not {INTERRUPTED, BROKEN_PIPE} & set(codes):  # what ends one job ends those behind it
            codes.append(_guarded(lambda: _run_command(command, composed)))

    overrides = readable_overrides(arguments)
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # exceptions come here as they are, to be one line
    sys.argv = [f"tracker {command}", *overrides]
    try:
        hydra.main(version_base="1.3", config_path=str(config.folder()), config_name="config")(job)()
    except (HydraException, OmegaConfBaseException) as error:
        return _refuse(one_line(error, overrides))
    except ValueError as error:  # Hydra's way to refuse `probe=null`
        if sweeps:
            raise
        return _refuse(one_line(error, overrides))
    except SystemExit as stop:  # Hydra's argument parser has said what was wrong
        return stop.code if isinstance(stop.code, int) else WRONG_REQUEST
    finally:
        if set(codes) == {WRONG_REQUEST}:
            _remove_traces(sweeps)
    return max(codes, default=DONE)


def _remove_traces(sweeps: set[Path]) -> None:
    """Remove what Hydra writes of a multirun before its jobs: a refused request leaves nothing behind."""
    for folder in sweeps:
        with contextlib.suppress(OSError):
            (folder / "multirun.yaml").unlink()
        for place in (folder, folder.parent):
            with contextlib.suppress(OSError):
                place.rmdir()


def _run_command(command: str, composed: object) -> int:
    from tracker import config
    from tracker.console.output import make_console

    # Hydra's disabled logging lets errors alone pass, and a damaged file that counts as absent is a warning.
    logging.getLogger("tracker").setLevel(logging.WARNING)
    logging.lastResort = _Warnings(logging.WARNING)
    # polars' own handler lets waits go on behind it: Ctrl-C would be heard only when the next unit ends.
    signal.siginterrupt(signal.SIGINT, True)
    with _ended_like_ctrl_c():
        return COMMANDS[command].load()(config.read(composed), make_console())  # type: ignore[arg-type]


class _Warnings(logging.Handler):
    """Writes what is logged to the standard error, where a command has set up no other way."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"{printable(record.getMessage())}\n")


@contextlib.contextmanager
def _ended_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM, as Slurm sends it, and SIGHUP, of a closed terminal, end a command as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {}
    for each in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(each) == signal.SIG_DFL:  # nohup has it ignored, and so it stays
            with contextlib.suppress(ValueError):  # not the main thread
                before[each] = signal.signal(each, interrupt)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _refuse(message: str, code: int = WRONG_REQUEST) -> int:
    sys.stderr.write(f"tracker: {printable(message)}\n")
    return code
