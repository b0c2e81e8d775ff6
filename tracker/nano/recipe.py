"""The recipe of the embedded suite: Pythia's in small, as one frozen record with a digest."""

import math
from dataclasses import asdict, dataclass

from tracker.errors import unknown_value
from tracker.nano.encoding import ROTARY, Encoding, encoding_of
from tracker.records import digest

RECIPE_VERSION = 1
"""Part of every digest. Raise it when training code or ``SIZES`` change what comes out."""

LAST_DOUBLING = 512
"""Checkpoints double up to here, then follow evenly; as in Pythia."""


@dataclass(frozen=True)
class Size:
    """The shape of one model."""

    width: int
    layers: int
    heads: int

    @property
    def non_embedding(self) -> int:
        """Parameters without both embeddings: blocks with their biases, and the last norm."""
        block = 12 * self.width**2 + 13 * self.width
        return self.layers * block + 2 * self.width


SIZES: dict[str, Size] = {
    "0.01m": Size(width=16, layers=3, heads=1),
    "0.025m": Size(width=32, layers=2, heads=2),
    "0.05m": Size(width=48, layers=2, heads=3),
    "0.05m_6h": Size(width=48, layers=2, heads=6),
    "0.1m": Size(width=64, layers=2, heads=4),
    "0.2m": Size(width=64, layers=4, heads=4),
    "0.2m_2h": Size(width=64, layers=4, heads=2),
    "0.4m": Size(width=64, layers=8, heads=4),
    "0.8m": Size(width=128, layers=4, heads=8),
    "3m": Size(width=256, layers=4, heads=16),
}
"""Named by non-embedding parameters, smallest first, with 16 dimensions a head, of which 4 rotate. A suffix
gives other heads a layer at the same size: ``0.2m_2h`` has 2, of 32 dimensions each. Equal sizes of other
heads, and equal widths of other depths, are there to tell the axes of size apart."""

DEFAULT_MODELS = ("0.05m", "0.2m", "0.8m")


@dataclass(frozen=True)
class NanoRecipe:
    """How every model of the suite is trained.

    Taken over from Pythia's published configurations: rotary share, parallel residual, untied
    embeddings, small-init and wang-init, Adam's betas and epsilon, decoupled weight decay 0.1 (not on
    biases and norms), gradient clipping at norm 1, warm-up share, cosine to a tenth of the peak.
    Our own: everything that says how large and how long.

    Raises:
        RequestError: a field has no meaning; the message names it as the user writes it.
    """

    train_steps: int = 1000
    batch: int = 12
    """Sequences a step."""
    tokens: int = 128
    """Tokens a sequence."""
    vocab: int = 1024
    """Entries of the byte-level BPE vocabulary, the end-of-text token included."""
    peak_learning_rate: float = 8e-3
    """At width 64; another width w takes it times 64 / w: wider models bear less, as in Pythia."""
    warmup_share: float = 0.01
    floor_share: float = 0.1
    """Where the cosine ends, as a share of the peak."""
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    rotary_pct: float = 0.25
    repeat_share: float = 0.25
    """Share of sequences whose second half repeats the first, so that copying pays early."""
    text_bytes: int = 12_000_000
    """Most text that is taken from the standard library."""
    interval: int | None = None
    """Steps between checkpoints after 512; None: 100, and 250 in runs of 2000 steps or more."""
    dense_steps: tuple[int, int, int] | None = None
    """First, last and distance of further checkpoints, for a close look at a change."""

    def __post_init__(self) -> None:
        if self.dense_steps is not None:
            dense = tuple(self.dense_steps)
            object.__setattr__(self, "dense_steps", dense)
            if len(dense) != 3 or not 0 <= dense[0] < dense[1] or dense[2] < 1:
                allowed = "[first,last,distance] with 0 <= first < last and distance from 1"
                raise unknown_value("suite.dense_steps", list(dense), allowed)
        for name in ("train_steps", "batch", "interval"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise unknown_value(f"suite.{name}", value, "whole numbers from 1")
        if not self.peak_learning_rate > 0:
            raise unknown_value("suite.peak_learning_rate", self.peak_learning_rate, "numbers above 0")
        if self.tokens < 4:
            raise unknown_value("suite.tokens", self.tokens, "whole numbers from 4")
        if not 257 <= self.vocab <= 65535:
            raise unknown_value("suite.vocab", self.vocab, "257 (all bytes and end of text) to 65535")
        for name in ("repeat_share", "warmup_share", "floor_share"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise unknown_value(f"suite.{name}", value, "shares from 0 to 1")

    @property
    def digest(self) -> str:
        """Eight hex digits over every field and the recipe's version.

        ``dense_steps`` counts where it is given, and under the name that it had first: suites that were
        trained by earlier versions keep their name.
        """
        fields = asdict(self)
        dense = fields.pop("dense_steps")
        return digest([RECIPE_VERSION, fields | ({"dense": dense} if dense else {})], 8)

    @property
    def tokens_per_step(self) -> int:
        """Tokens whose successor is predicted in one step."""
        return self.batch * self.tokens


def checkpoint_steps(recipe: NanoRecipe) -> tuple[int, ...]:
    """Return the steps that are saved: 0, 1, 2, 4 ... 512, then evenly by ``recipe.interval``, and the last.

    Returns:
        increasing steps; checkpoint k holds the weights after k optimizer steps.
    """
    last = recipe.train_steps
    doubling = [2**power for power in range(LAST_DOUBLING.bit_length())]
    interval = recipe.interval or (250 if last >= 2000 else 100)
    evenly = range(0, last + 1, interval)
    low, high, distance = recipe.dense_steps or (0, 0, 1)
    closely = range(low, high + 1, distance)
    steps = {0, *doubling, *closely, *(step for step in evenly if step > LAST_DOUBLING), last}
    return tuple(sorted(step for step in steps if step <= last))


def learning_rate(recipe: NanoRecipe, size: Size, iteration: int) -> float:
    """Return the learning rate of one iteration: linear warm-up from 0, then half a cosine down to the floor.

    Iteration 0 has rate 0, as in GPT-NeoX, so checkpoints 0 and 1 hold the same weights.

    Args:
        recipe: gives peak, shares and number of steps.
        size: gives the width that scales the peak.
        iteration: which step is about to be taken, counted from 0.
    """
    peak = recipe.peak_learning_rate * 64 / size.width
    warmup = max(1, round(recipe.warmup_share * recipe.train_steps))
    if iteration < warmup:
        return peak * iteration / warmup
    progress = (iteration - warmup) / max(1, recipe.train_steps - warmup)
    low = recipe.floor_share
    return peak * (low + (1 - low) * (1 + math.cos(math.pi * progress)) / 2)


def size_of(model: str) -> Size:
    """Return the shape of a model of the suite, whatever its position encoding.

    Raises:
        RequestError: an unknown model.
    """
    size = model.partition("-")[0]
    if size not in SIZES:
        raise unknown_value("suite.models", model, SIZES)
    return SIZES[size]


def encoding_of_model(model: str) -> Encoding:
    """Return the position encoding of a model of the suite: ``0.2m`` is rotary, ``0.2m-alibi`` is not.

    Raises:
        RequestError: an unknown encoding.
    """
    return encoding_of(model.partition("-")[2] or ROTARY)
