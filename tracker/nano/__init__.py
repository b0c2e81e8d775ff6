"""The embedded suite: small GPT-NeoX models trained here, on text that every Python carries."""

from tracker.nano.recipe import DEFAULT_MODELS, SIZES, NanoRecipe, Size, checkpoint_steps
from tracker.nano.suite import check_request, suite_checkpoints, train_suite

__all__ = [
    "DEFAULT_MODELS",
    "SIZES",
    "NanoRecipe",
    "Size",
    "check_request",
    "checkpoint_steps",
    "suite_checkpoints",
    "train_suite",
]
