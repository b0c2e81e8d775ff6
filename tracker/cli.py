"""The command line: ``tracker COMMAND [field=value ...]``, composed by Hydra."""

import contextlib
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tracker.commands import COMMANDS
from tracker.measurement.process import share_buffers_of_products

if TYPE_CHECKING:
    from rich.console import Console

    from tracker.config import Config

DONE, WRONG_REQUEST, INTERRUPTED = 0, 2, 130
EXIT_CODES = {
    DONE: "done",
    1: "some checkpoints are not measured, each named with its reason; of `audit`: a fault was found; "
    "of `validate`: a check failed; of `stream`: not everything was delivered",
    WRONG_REQUEST: "the request was wrong: one line says which field and what is allowed, and nothing was "
    "written; also a store that fills up on the way, where what was measured stays",
    INTERRUPTED: "interrupted; progress saved; run the same command to resume",
}
"""Every exit code of the command line and what it means; documentation follows from it."""
RENAMED = {
    "engine.least": "engine.min_workers",
    "engine.stint": "engine.batch",
    "probe.number": "probe.sequences",
    "suite.dense": "suite.dense_steps",
}
"""Fields under the names that they had in earlier versions, which scripts may still use."""


def usage() -> str:
    """Return the text of ``tracker --help``."""
    listed = "\n".join(f"  tracker {each.name:<11} {each.help}" for each in COMMANDS.values())
    return f"""Track attention-head spectra across training checkpoints.

{listed}

Arguments are Hydra overrides: tracker sweep suite=pythia steps=paper suite.models=[70m,410m] store=DIR
`tracker sweep --help` lists every group and field, `--cfg job` shows the composed request.
"""


def main() -> None:
    """Entry point of the console script."""
    share_buffers_of_products()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code.

    Returns:
        0 done, 1 some units failed, 2 the request was wrong, 130 interrupted.
    """
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(usage())
        return DONE
    command, *overrides = arguments
    if command in ("-V", "--version", "version"):
        from tracker.records import tracker_version

        sys.stdout.write(f"tracker {tracker_version()}\n")
        return DONE
    if command == "drivers" or (command == "roles" and any(each.startswith("prune=") for each in overrides)):
        script = "drivers.py" if command == "drivers" else "prune_heads.py"
        return _refuse(f"this is a script now: python sweeps/studies/{script}, with the same overrides")
    if command not in COMMANDS:
        return _refuse(f"unknown command '{command}'; choose from {', '.join(COMMANDS)}")
    try:
        return _compose_and_run(command, with_current_names(overrides))
    except KeyboardInterrupt:
        return _interrupted()


def run_script(command: Callable[["Config", "Console"], int], arguments: Sequence[str]) -> int:
    """Run a script's own command on the request that overrides compose, and return its exit code.

    Args:
        command: takes the checked configuration and a console, and returns an exit code.
        arguments: Hydra overrides.

    Returns:
        As ``run``.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from tracker import config
    from tracker.console.output import make_console
    from tracker.errors import TrackerError

    if {"-h", "--help"} & set(arguments):
        sys.stdout.write((sys.modules["__main__"].__doc__ or usage()).strip() + "\n")
        return DONE
    overrides = with_current_names(arguments)
    try:
        with initialize_config_dir(str(config.folder()), version_base="1.3"):
            composed = compose("config", overrides=overrides)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        return _refuse(_one_line(error, overrides))
    try:
        return command(config.read(composed), make_console())
    except TrackerError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        return _interrupted()


def with_current_names(overrides: Sequence[str]) -> list[str]:
    """Return overrides with fields under their current names; each old name costs a line on stderr."""
    current = []
    for override in overrides:
        match = re.fullmatch(r"([+~]*)([\w.]+)((?:=.*)?)", override, flags=re.DOTALL)
        if match and match[2] in RENAMED:
            name = RENAMED[match[2]]
            sys.stderr.write(f"tracker: {match[2]} is now called {name}; the old name will be removed\n")
            override = f"{match[1]}{name}{match[3]}"
        current.append(override)
    return current


def _compose_and_run(command: str, overrides: list[str]) -> int:
    """Let Hydra compose the request, once or for every job of a multirun; the worst job's code counts."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf import DictConfig
    from omegaconf.errors import OmegaConfBaseException

    from tracker import config
    from tracker.errors import TrackerError

    codes: list[int] = []
    sweeps: set[Path] = set()

    def job(composed: DictConfig) -> None:
        sweeps.add(Path(str(composed.store)) / ".multirun")
        codes.append(_run_command(command, composed))

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # exceptions come here as they are, to be one line
    sys.argv = [f"tracker {command}", *overrides]
    try:
        hydra.main(version_base="1.3", config_path=str(config.folder()), config_name="config")(job)()
    except (HydraException, OmegaConfBaseException) as error:
        return _refuse(_one_line(error, overrides))
    except TrackerError as error:
        return _refuse(str(error))
    except ValueError as error:  # Hydra's way to refuse `probe=null`
        if sweeps:
            raise
        return _refuse(_one_line(error, overrides))
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
    from tracker.errors import TrackerError

    # polars' own handler lets waits go on behind it: Ctrl-C would be heard only when the next unit ends.
    signal.siginterrupt(signal.SIGINT, True)
    try:
        with _ended_like_ctrl_c():
            return COMMANDS[command].load()(config.read(composed), make_console())  # type: ignore[arg-type]
    except TrackerError as error:
        return _refuse(str(error))


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


def _one_line(error: Exception, overrides: list[str]) -> str:
    """Return the first lines of one of Hydra's messages as one, with the fields to choose from."""
    parts = [part.strip() for part in str(error).splitlines() if part.strip()]
    if "Config search path:" in parts:
        parts = parts[: parts.index("Config search path:")]
    if match := re.fullmatch(r"Could not override '(.+)'\.", parts[0]):
        return _unknown_field(match[1], overrides)
    return " ".join(part for part in parts if not part.startswith(("full_key:", "object_type=", "See https")))


def _unknown_field(name: str, overrides: list[str]) -> str:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from tracker import config

    groups = [each.name for each in config.folder().iterdir() if each.is_dir()]
    choices = [override for override in overrides if override.split("=")[0] in groups]
    with initialize_config_dir(str(config.folder()), version_base="1.3"):
        composed = compose("config", overrides=choices)
    parent = name.rpartition(".")[0]
    node = OmegaConf.select(composed, parent) if parent else composed
    return str(config.unknown_field(name, map(str, node) if OmegaConf.is_dict(node) else ()))


def _refuse(message: str) -> int:
    from tracker.errors import printable

    sys.stderr.write(f"tracker: {printable(message)}\n")
    return WRONG_REQUEST


def _interrupted() -> int:
    sys.stderr.write("tracker: interrupted; progress saved; run the same command to resume\n")
    return INTERRUPTED
