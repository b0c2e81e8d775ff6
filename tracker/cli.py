"""The command line: ``tracker VERB [field=value ...]``, composed by Hydra. Exit codes as in the README."""

import contextlib
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tracker.measurement.process import share_buffers_of_products

DONE, WRONG_REQUEST, INTERRUPTED = 0, 2, 130

USAGE = """tracker watches transformers grow up: the frequency structure of attention over checkpoints.

  tracker sweep       measures every checkpoint that is not measured yet, streams, analyses, draws;
                      alone it trains and measures the embedded suite
  tracker plan        says what a sweep would do, and does nothing
  tracker audit       are the checkpoints what their names say? by the hub's file hashes, nothing downloaded
  tracker analyse     phases per model, thresholds over models
  tracker compare     models side by side, against the paper's tables, or two stores (compare.other=DIR)
  tracker roles       what each head does and since when; prune=true tries which heads can go
  tracker drivers     gradients, curvature and composition of heads beside their spectral change
  tracker validate    are the metrics right? ground truth, and where stored results break the paper's claims
  tracker dashboard   one self-contained HTML file; figures=DIR writes figures too; serve=true follows a sweep
  tracker stream      sends the store to W&B, from where W&B stopped; workspace=true makes its workspace
  tracker nano        trains the embedded suite

Arguments are Hydra overrides: tracker sweep suite=pythia steps=paper suite.models=[70m,410m] store=DIR
`tracker sweep --help` shows every group and field, `--cfg job` the composed request.
"""


def main() -> None:
    """Entry point of the console script."""
    share_buffers_of_products()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Carries out a command line and returns its exit code: 0 done, 1 some units failed, 2 the request
    was wrong, 130 interrupted."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(USAGE)
        return DONE
    verb, *overrides = arguments
    if verb in ("-V", "--version", "version"):
        from tracker.records import tracker_version

        sys.stdout.write(f"tracker {tracker_version()}\n")
        return DONE
    names = (
        "sweep",
        "plan",
        "audit",
        "analyse",
        "compare",
        "roles",
        "drivers",
        "validate",
        "dashboard",
        "stream",
        "nano",
    )
    if verb not in names:
        return _refuse(f"{verb}: no such verb; there are {', '.join(names)}")
    try:
        return _compose_and_run(verb, overrides)
    except KeyboardInterrupt:
        return _interrupted()


def _compose_and_run(verb: str, overrides: list[str]) -> int:
    """Lets Hydra compose the request, once or for every job of a multirun; the worst job's code counts."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf import DictConfig
    from omegaconf.errors import OmegaConfBaseException

    from tracker import config
    from tracker.errors import TrackerError

    codes: list[int] = []
    started: list[str] = []
    sweeps: set[Path] = set()

    def job(composed: DictConfig) -> None:
        started.append(verb)
        sweeps.add(Path(str(composed.store)) / ".multirun")
        codes.append(_run_verb(verb, composed))

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # exceptions come here as they are, to be one line
    sys.argv = [f"tracker {verb}", *overrides]
    try:
        hydra.main(version_base="1.3", config_path=str(config.folder()), config_name="config")(job)()
    except (HydraException, OmegaConfBaseException) as error:
        return _refuse(_one_line(error, overrides))
    except TrackerError as error:
        return _refuse(str(error))
    except ValueError as error:  # Hydra's way to refuse `probe=null`
        if started:
            raise
        return _refuse(_one_line(error, overrides))
    except SystemExit as stop:  # Hydra's argument parser has said what was wrong
        return stop.code if isinstance(stop.code, int) else WRONG_REQUEST
    finally:
        if set(codes) == {WRONG_REQUEST}:
            _remove_traces(sweeps)
    return max(codes, default=DONE)


def _remove_traces(sweeps: set[Path]) -> None:
    """A refused request leaves nothing behind: not even what Hydra notes of a multirun before its jobs."""
    for folder in sweeps:
        with contextlib.suppress(OSError):
            (folder / "multirun.yaml").unlink()
        for place in (folder, folder.parent):
            with contextlib.suppress(OSError):
                place.rmdir()


def _run_verb(verb: str, composed: object) -> int:
    from tracker import config
    from tracker.commands.verbs import VERBS
    from tracker.console.terminal import make_console
    from tracker.errors import TrackerError

    # polars' own handler has waits go on behind it: Ctrl-C would be heard only when the next unit ends.
    signal.siginterrupt(signal.SIGINT, True)
    try:
        return VERBS[verb](config.read(composed), make_console())  # type: ignore[arg-type]
    except TrackerError as error:
        return _refuse(str(error))


def _one_line(error: Exception, overrides: list[str]) -> str:
    """Hydra's messages run over several lines; here the first ones, with the fields that there are."""
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

    parent = name.rpartition(".")[0]
    groups = [each.name for each in config.folder().iterdir() if each.is_dir()]
    choices = [override for override in overrides if override.split("=")[0] in groups]
    with initialize_config_dir(str(config.folder()), version_base="1.3"):
        composed = compose("config", overrides=choices)
    node = OmegaConf.select(composed, parent) if parent else composed
    known = sorted(map(str, node)) if OmegaConf.is_dict(node) else []
    return f"{name}: no such field; there are {', '.join(known) or 'none'}"


def _refuse(message: str) -> int:
    sys.stderr.write(f"tracker: {message}\n")
    return WRONG_REQUEST


def _interrupted() -> int:
    sys.stderr.write(
        "tracker: interrupted; what is measured is stored, the same command goes on from there\n"
    )
    return INTERRUPTED
