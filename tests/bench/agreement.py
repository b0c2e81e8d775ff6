"""How far the columns of two contenders lie apart."""

import numpy as np

from .contenders import Columns

RELATIVE, ABSOLUTE = 1e-4, 1e-6


def disagreements(ours: Columns, theirs: Columns) -> dict[str, float]:
    """Per column that both have: the largest difference in units of what is allowed.

    Allowed is 1e-4 relative or 1e-6 absolute, whichever is looser; infinite where only one is undefined.
    """
    found = {}
    for name in sorted(ours.keys() & theirs.keys()):
        a, b = ours[name], theirs[name]
        both = np.isfinite(a) & np.isfinite(b)
        if (np.isfinite(a) != np.isfinite(b)).any():
            found[name] = np.inf
        elif both.any():
            found[name] = float((abs(a - b) / np.maximum(RELATIVE * abs(b), ABSOLUTE))[both].max())
    return found


def in_standard_errors(ours: Columns, theirs: Columns, errors: Columns) -> dict[str, float]:
    """Per column with a standard error: the largest difference over heads in units of it.

    The reconstruction error is left out: it is rounding noise, of which neither is right.
    """
    found = {}
    for name, error in errors.items():
        defined = np.isfinite(error) & (error > 0)
        if name.endswith("reconstruction_error") or name not in ours or not defined.any():
            continue
        found[name] = float(np.nanmax(abs(ours[name] - theirs[name])[defined] / error[defined]))
    return found
