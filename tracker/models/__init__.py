"""Models: checkpoints loaded for measuring, and their attention layer by layer."""

from tracker.models.capture import IMPLEMENTATION, AttentionStream, check_attention
from tracker.models.loading import DTYPES, ModelFacts, load_model, model_facts

__all__ = [
    "DTYPES",
    "IMPLEMENTATION",
    "AttentionStream",
    "ModelFacts",
    "check_attention",
    "load_model",
    "model_facts",
]
