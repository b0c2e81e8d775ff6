"""Assign checkpoints to shards: by their own names alone, evenly within each model.

A job array has no scheduler that could balance it, and each of its jobs makes the plan anew, perhaps of a
larger suite. So a checkpoint's shard must not depend on what else is planned; and as checkpoints of one model
cost the same (parameters times tokens of the probe), shards cost the same where each has as many checkpoints
of every model as the others.

Both hold for the golden-ratio sequence: of the points ``frac(k / golden ratio + start)``, any run of
consecutive k lies more evenly than drawn points do (three-distance theorem), wherever it begins and however
many points follow. k is the checkpoint's place on a ladder on which the usual schedules (powers of two, then
multiples of a round number) stand on consecutive rungs; start is drawn for each model and seed, so that
remainders of different models fall on different shards.
"""

import math

from tracker.records import Checkpoint, digest

GOLDEN = (math.sqrt(5) - 1) / 2
SPACINGS = (1000, 500, 250, 100, 50, 25, 10, 5, 1)
"""Usual distances between checkpoints."""
POWERS = 10
"""Powers of two below the least usual distance of the coarsest schedule: 1, 2, 4 ... 512."""


def shard_of(checkpoint: Checkpoint, count: int) -> int:
    """Return the shard of a checkpoint, 1 to ``count``.

    Args:
        checkpoint: its suite, model, seed and step count, nothing else.
        count: how many shards there are.
    """
    name = [checkpoint.suite, checkpoint.model, checkpoint.seed]
    start = int(digest(name), 16) / 16**12
    return 1 + int(count * ((rung(checkpoint.step) * GOLDEN + start) % 1))


def rung(step: int) -> int:
    """Return the rung of a step: 0, 1, 2, 4 ... 512, 1000, 2000, 3000 ... stand on rungs 0, 1, 2, 3 ..."""
    if step & (step - 1) == 0:
        return step.bit_length()
    return POWERS + next(step // spacing for spacing in SPACINGS if step % spacing == 0)
