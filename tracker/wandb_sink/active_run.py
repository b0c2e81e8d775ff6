"""The W&B run that the training itself has open in this process: tracker's numbers beside its own.

wandb is used only where somebody else has imported it and opened a run.
"""

import sys
from typing import Any

from tracker.wandb_sink.findings import LONGEST_TITLE
from tracker.wandb_sink.rows import KEY, ROW, scalars_of

PREFIX = "tracker/"
STEP = f"{PREFIX}step"


def active_run() -> Any:
    """Return the run that this process has open; None where there is none."""
    return getattr(sys.modules.get("wandb"), "run", None)


def log_to_active_run(checkpoint: dict[str, Any]) -> bool:
    """Add one measured checkpoint to the open run: ``tracker/<metric>`` over ``tracker/step``.

    Never with ``step=``: the rows that the training itself logs stay as they are, in their own order.

    Args:
        checkpoint: its row of the checkpoint table.

    Returns:
        Whether there is an open run.
    """
    run = active_run()
    if run is None:
        return False
    run.define_metric(STEP)
    run.define_metric(f"{PREFIX}*", step_metric=STEP)
    scalars = {name: value for name, value in scalars_of(checkpoint).items() if name not in (KEY, ROW)}
    run.log({STEP: checkpoint["step"], **{f"{PREFIX}{name}": value for name, value in scalars.items()}})
    return True


def alert_active_run(title: str, text: str, level: str) -> None:
    """Raise an alert in the open run, where there is one; W&B forwards it as its user has chosen."""
    run = active_run()
    if run is not None:
        run.alert(title[:LONGEST_TITLE], text, level=level)
