"""Who may measure a model that is being trained, and what is wrong with one that cannot be measured."""

from typing import Any

import torch

from tracker.errors import CheckpointError


def is_main_process() -> bool:
    """Return whether this is the first process of a distributed training, which alone measures."""
    distributed = torch.distributed
    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0


def refuse_spread_weights(model: Any) -> None:
    """Refuse a model of which this process holds only a part.

    Raises:
        CheckpointError: its weights are sharded (FSDP, tensor parallel, DeepSpeed ZeRO-3).
    """
    spread = any(
        type(weights).__name__ == "DTensor" or hasattr(weights, "ds_id") for weights in model.parameters()
    )
    if spread or any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules()):
        raise CheckpointError(
            "its weights are spread over several processes; save checkpoints and measure those with "
            "`tracker sweep suite=folder`"
        )


def not_finite(model: Any) -> str | None:
    """Return the name of the first parameter that holds NaN or infinity."""
    with torch.no_grad():
        return next((name for name, w in model.named_parameters() if not bool(w.isfinite().all())), None)
