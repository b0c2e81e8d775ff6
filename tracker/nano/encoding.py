"""How a model of the suite encodes positions: the part of its name behind the size."""

import re
from dataclasses import dataclass

from tracker.errors import unknown_value

ROTARY = "rotary"
ONE_BODY = (ROTARY, "learned", "alibi", "relative", "none")
"""Encodings that share GPT-NeoX's body: only they differ in the encoding alone."""
OWN_BODY = {"gpt2": "learned", "bloom": "alibi"}
"""Families with an encoding and a body of their own, for a second comparison."""
ALLOWED = (
    *ONE_BODY,
    *OWN_BODY,
    "rotary<percent>",
    "rotary<percent>base<base>, for example rotary100base500",
)
_ROTARY = re.compile(r"rotary(?P<percent>\d{1,3})?(base(?P<base>[1-9]\d*))?")


@dataclass(frozen=True)
class Encoding:
    """A position encoding, as its name says."""

    kind: str
    """One of ``ONE_BODY``, or a key of ``OWN_BODY``."""
    rotary_pct: float | None = None
    """Share of a head's dimensions that rotate; None: the recipe's."""
    base: float = 10000.0
    """Of rotary: the longest wavelength, over two pi."""

    @property
    def own_body(self) -> bool:
        """Whether the body is not GPT-NeoX's."""
        return self.kind in OWN_BODY


def encoding_of(name: str) -> Encoding:
    """Return the encoding of a name such as ``alibi`` or ``rotary100``.

    Raises:
        RequestError: an unknown encoding.
    """
    if name in ONE_BODY or name in OWN_BODY:
        return Encoding(name)
    match = _ROTARY.fullmatch(name)
    if not match or int(match["percent"] or 0) > 100:
        raise unknown_value("encodings", name, ALLOWED)
    percent, base = match["percent"], match["base"]
    return Encoding(ROTARY, None if percent is None else int(percent) / 100, float(base or 10000))
