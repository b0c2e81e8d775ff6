"""The publisher as a process of its own, so that no trouble with W&B can stop, slow or lose a sweep."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import tracker
from tracker.wandb_sink.options import SinkOptions
from tracker.wandb_sink.promises import Promised

MARGIN_SECONDS = 30.0
"""Beyond ``finish_timeout``: for starting up, an answer that does not come, writing and closing."""


@dataclass
class PublisherHandle:
    """A publisher that follows a store until ``finish`` is called or this process ends."""

    folder: Path
    options: SinkOptions
    process: "subprocess.Popen[bytes] | None"
    """None where nothing is to be sent, or it could not be started."""
    trouble: str | None = None
    """Why it could not be started."""

    def finish(self, timeout: float | None = None) -> list[str]:
        """Tells the publisher to send the rest and end; returns in bounded time and never raises for W&B.

        Args:
            timeout: seconds until it is given up; default ``finish_timeout`` and a margin.

        Returns:
            Sentences for the user: where the runs are, how to deliver them, or what went wrong.
        """
        process, self.process = self.process, None
        if process is None:
            return [self._rest(self.trouble)] if self.trouble else []
        seconds = self.options.finish_timeout + MARGIN_SECONDS if timeout is None else timeout
        try:
            output, _ = process.communicate(b"stop\n", timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return [self._rest(f"did not finish in {seconds:g} s")]
        try:
            sentences = json.loads(output)
        except ValueError:
            log = self.folder / "wandb" / "publisher.log"
            return [self._rest(f"ended with code {process.returncode} (see {log})")]
        return [str(sentence) for sentence in sentences]

    def _rest(self, trouble: str) -> str:
        return (
            f"The W&B publisher {trouble}; the measurements are stored, "
            f"`tracker stream store={self.folder}` sends the rest."
        )


def start_publisher(folder: Path, options: SinkOptions,
                    promised: Iterable[Promised] = ()) -> PublisherHandle:  # fmt: skip
    """Starts a publisher that follows ``folder``.

    Args:
        folder: the store's folder.
        options: where to, and how much.
        promised: what the sweep is going to store; rows then go out in step order.

    Its options go through standard input, and the key, where there is one, through the environment; neither
    is on the command line. It ends when told to, and also when this process ends in any way.

    Raises:
        RequestError: an option is not allowed.
    """
    options.validate()
    folder = Path(folder).absolute()
    if not options.enabled:
        return PublisherHandle(folder, options, None)
    try:
        process = _launch(folder)
    except OSError as error:
        return PublisherHandle(folder, options, None, f"could not be started: {error}")
    assert process.stdin is not None
    told = [asdict(each) for each in promised]
    request = json.dumps({"folder": str(folder), "options": asdict(options), "promised": told})
    # Where it has died already, finish() tells with which code.
    with contextlib.suppress(OSError):
        process.stdin.write(request.encode() + b"\n")
        process.stdin.flush()
    return PublisherHandle(folder, options, process)


def _launch(folder: Path) -> "subprocess.Popen[bytes]":
    (folder / "wandb").mkdir(parents=True, exist_ok=True)
    package = Path(tracker.__file__).parent.parent
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")]))
    with open(folder / "wandb" / "publisher.log", "wb") as log:
        return subprocess.Popen(
            # -P: a folder named wandb in the current one must not be imported instead.
            [sys.executable, "-P", "-m", "tracker.wandb_sink.publisher_main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            # Out of reach of the terminal's Ctrl-C: it must live to send what the sweep stored last.
            start_new_session=True,
        )
