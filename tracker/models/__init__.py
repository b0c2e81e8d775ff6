"""Models: checkpoints loaded for measuring, and their attention layer by layer."""

from tracker.models.architecture import ModelFacts, model_facts
from tracker.models.attention_interface import IMPLEMENTATION, LayerAttention, WholeAttention, refuse_faults
from tracker.models.attention_stream import AttentionStream
from tracker.models.loading import DTYPES, load_model
from tracker.models.loss import logits_way, loss_positions, sequence_losses

__all__ = [
    "DTYPES",
    "IMPLEMENTATION",
    "AttentionStream",
    "LayerAttention",
    "ModelFacts",
    "WholeAttention",
    "load_model",
    "logits_way",
    "loss_positions",
    "model_facts",
    "refuse_faults",
    "sequence_losses",
]
