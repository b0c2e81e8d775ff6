"""The two columns that phases are named after, and what they do in a phase."""

from collections.abc import Sequence

import numpy as np

from tracker.analysis.schema import Extent

ENTROPY, SELECTIVITY = "spectral_entropy", "frequency_selectivity"


def label_columns(names: Sequence[str]) -> tuple[str, str] | None:
    """Return the entropy and selectivity columns that phases are named after, of one signal; rows first."""
    for prefix in ("", "averaged_"):
        if prefix + ENTROPY in names and prefix + SELECTIVITY in names:
            return prefix + ENTROPY, prefix + SELECTIVITY
    return None


def evidence_of(
    columns: tuple[str, str], entropy: np.ndarray, selectivity: np.ndarray, steps: np.ndarray, span: slice
) -> dict[str, Extent]:
    """Return both columns at a phase's first and last checkpoint, and their extremum within it.

    Args:
        columns: names of the two.
        entropy: (T,).
        selectivity: (T,).
        steps: (T,).
        span: the checkpoints of the phase.
    """
    evidence = {}
    for name, values, best in ((columns[0], entropy, np.nanargmax), (columns[1], selectivity, np.nanargmin)):
        part = values[span]
        if np.isfinite(part).any():
            at = int(best(part))
            evidence[name] = Extent(
                float(part[0]), float(part[-1]), float(part[at]), int(steps[span][at])
            )  # fmt: skip
    return evidence
