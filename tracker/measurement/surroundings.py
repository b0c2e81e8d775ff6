"""What a user's process has set for its own arithmetic, kept out of measuring."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def plain_arithmetic(device: torch.device) -> Iterator[None]:
    """Measures alike inside a training loop's ``torch.autocast``, and whatever its default device.

    Half-precision products would be told as attention, and differ from what a sweep measures.

    Args:
        device: of the model that is measured.
    """
    with ExitStack() as stack:
        if torch.is_autocast_enabled(device.type):
            stack.enter_context(torch.autocast(device.type, enabled=False))
        if torch.get_default_device().type != "cpu":  # entered, it would cost every operation some time
            stack.enter_context(torch.device("cpu"))
        yield
