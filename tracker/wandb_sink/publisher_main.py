"""Entry of the publisher's process: options on standard input, sentences on standard output.

It follows the store until it reads another line or the end of its input, which also comes when the process
that started it dies.
"""

import contextlib
import json
import logging
import os
import signal
import threading
from pathlib import Path

from tracker.errors import TrackerError
from tracker.wandb_sink.options import SinkOptions
from tracker.wandb_sink.promises import promised_of
from tracker.wandb_sink.publisher import publish


def main() -> None:
    """Runs one publisher; ends the process at once where W&B hangs."""
    answer = _private_output()
    stop = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    with open(0, "rb", buffering=0, closefd=False) as unbuffered:  # the next line is for _await_end
        request = json.loads(unbuffered.readline())
    threading.Thread(target=_await_end, args=(stop,), daemon=True).start()
    try:
        published = publish(
            Path(request["folder"]),
            SinkOptions(**request["options"]),
            follow=stop,
            promised=[promised_of(each) for each in request["promised"]],
        )
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
    """Standard output for the answer alone: W&B's service inherits the other one and outlives a kill."""
    answer = os.dup(1)
    os.set_inheritable(answer, False)
    os.dup2(2, 1)
    return answer


def _await_end(stop: threading.Event) -> None:
    # The raw descriptor: a thread that waits in sys.stdin holds its lock and would break the shutdown.
    os.read(0, 1)
    stop.set()


if __name__ == "__main__":
    main()
