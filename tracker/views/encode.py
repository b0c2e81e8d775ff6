"""Numbers made small enough to travel inside a page: four digits, eight bits, JSON without NaN."""

import base64
import json
import math
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

MISSING = 255
"""Code of a value that does not exist; 0 ... 254 span the stated scale."""
LEVELS = 254


def rounded(value: float | None, digits: int = 4) -> float | None:
    """Round ``value`` to ``digits`` significant digits; None where it is None, NaN or infinite."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")


def rounded_list(values: Iterable[float | None], digits: int = 4) -> list[float | None]:
    """Apply ``rounded`` to each value."""
    return [rounded(value, digits) for value in values]


def quantise(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Turn values into 8-bit codes on a linear scale.

    Args:
        values: any shape; NaN becomes ``MISSING``.
        low: the value of code 0; smaller ones are drawn as ``low``.
        high: the value of code 254; larger ones are drawn as ``high``.

    Returns:
        uint8 array of the same shape; inside the scale it is off by at most (high - low) / 508.
    """
    span = high - low or 1.0
    share = (np.clip(values, low, high) - low) / span
    codes = np.where(np.isnan(share), float(MISSING), np.rint(share * LEVELS))
    return codes.astype(np.uint8)


def pack(codes: np.ndarray) -> str:
    """Pack a (T, ...) uint8 array as base64 of zlib of its differences along T.

    Training changes little between neighbouring checkpoints, so the differences compress.
    """
    flat = codes.reshape(len(codes), -1).astype(np.uint8)
    steps = np.diff(flat, axis=0, prepend=np.zeros((1, flat.shape[1]), np.uint8))
    return base64.b64encode(zlib.compress(steps.tobytes(), 6)).decode()


def json_for_html(value: Any) -> str:
    """Return JSON that may stand inside a ``<script>`` element whatever strings it holds.

    Raises:
        ValueError: the value holds NaN or infinity, which JSON does not know.
    """
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text
