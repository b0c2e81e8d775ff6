"""The publisher as a process of its own, so that no trouble with W&B can stop, slow or lose a sweep.

It gets its options on standard input and answers with sentences on standard output. The key, where there is
one, is in the environment; neither is on the command line. It follows the store until it reads another line
or the end of its input, which also comes when the process that started it dies.
"""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tracker.errors import TrackerError
from tracker.wandb_sink.options import SinkOptions
from tracker.wandb_sink.publisher import publish

MARGIN_SECONDS = 30.0
"""Beyond ``finish_timeout``: for starting up, an answer that does not come, writing and closing."""

LEFT_SECONDS = 1.5
"""How long an interrupted sweep waits for a publisher that may be quick to end."""


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
        """Have the publisher send the rest and end; returns in bounded time and never raises for W&B.

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
            return [str(sentence) for sentence in json.loads(output)]
        except ValueError:
            log = self.folder / "wandb" / "publisher.log"
            return [self._rest(f"ended with code {process.returncode} (see {log})")]

    @contextlib.contextmanager
    def left_alone_on_error(self) -> Iterator[None]:
        """Leave the publisher to itself where a block is broken off: it sends the rest, and nobody waits."""
        try:
            yield
        except BaseException:
            process, self.process = self.process, None
            if process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired, OSError):
                    process.communicate(b"stop\n", timeout=LEFT_SECONDS)
            raise

    def _rest(self, trouble: str) -> str:
        return (
            f"The W&B publisher {trouble}; the measurements are stored, "
            f"`tracker stream store={self.folder}` sends the rest."
        )


def start_publisher(folder: Path, options: SinkOptions) -> PublisherHandle:
    """Start a publisher that follows ``folder``.

    Args:
        folder: the store's folder.
        options: where to, and how much.

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
    request = json.dumps({"folder": str(folder), "options": asdict(options)})
    # Where it has died already, finish() reports with which code.
    with contextlib.suppress(OSError):
        process.stdin.write(request.encode() + b"\n")
        process.stdin.flush()
    return PublisherHandle(folder, options, process)


def _launch(folder: Path) -> "subprocess.Popen[bytes]":
    (folder / "wandb").mkdir(parents=True, exist_ok=True)
    package = Path(__file__).parents[2]
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")]))
    with open(folder / "wandb" / "publisher.log", "wb") as log:
        return subprocess.Popen(
            # -P: a folder named wandb in the current one must not be imported instead.
            [sys.executable, "-P", "-c", f"from {__name__} import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            # Out of reach of the terminal's Ctrl-C: it must live to send what the sweep stored last.
            start_new_session=True,
        )


def main() -> None:
    """Run one publisher; ends the process at once where W&B hangs."""
    answer = _private_output()
    stop = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    with open(0, "rb", buffering=0, closefd=False) as unbuffered:  # the next line is for _await_end
        request = json.loads(unbuffered.readline())
    threading.Thread(target=_await_end, args=(stop,), daemon=True).start()
    try:
        published = publish(Path(request["folder"]), SinkOptions(**request["options"]), follow=stop)
        sentences, trouble = published.sentences, published.failure is not None
    except TrackerError as error:
        sentences, trouble = [f"W&B: {error}"], True
    # Whoever started it may be gone; the rows were sent all the same.
    with contextlib.suppress(BrokenPipeError):
        os.write(answer, json.dumps(sentences).encode())
    if trouble:
        # A normal exit would make wandb wait for a dead server once more; all is on disk by now.
        os._exit(0)


def _private_output() -> int:
    """Keep standard output for the answer alone: W&B's service inherits the other and outlives a kill."""
    answer = os.dup(1)
    os.set_inheritable(answer, False)
    os.dup2(2, 1)
    return answer


def _await_end(stop: threading.Event) -> None:
    # The raw descriptor: a thread that waits in sys.stdin holds its lock and would break the shutdown.
    os.read(0, 1)
    stop.set()
