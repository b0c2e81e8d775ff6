"""Next-token loss from a body's last hidden state, without running the head where it is not needed."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from tracker.errors import CheckpointError
from tracker.models.architecture import ModelFacts

LOSS_POSITIONS, TENTH_POSITIONS = 32, 16
"""Where the vocabulary head costs more than the body: strided positions, and of each tenth."""
LOGIT_BYTES = 32 << 20
"""Memory that the logits of some sequences together may take; those of one are taken at once."""


def loss_positions(n: int, *, all_positions: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which of the n - 1 predictions are scored: for the loss, early and late.

    Early and late are the tenths of positions centred on 0.1 n and 0.9 n. Where not all positions are
    scored, the loss takes 32 evenly strided ones and each tenth at most 16.
    """
    predictions, tenth = n - 1, max(1, round(n / 10))

    def centred(place: float) -> np.ndarray:
        start = min(max(0, round(place * n - tenth / 2)), predictions - tenth)
        return np.arange(start, start + tenth)

    every, early, late = np.arange(predictions), centred(0.1), centred(0.9)
    if all_positions:
        return every, early, late
    early, late = _thinned(early, TENTH_POSITIONS), _thinned(late, TENTH_POSITIONS)
    return _thinned(every, LOSS_POSITIONS), early, late


def _thinned(positions: np.ndarray, count: int) -> np.ndarray:
    return positions[np.arange(min(count, len(positions))) * len(positions) // min(count, len(positions))]


def sequence_losses(
    model: PreTrainedModel, hidden_BQD: Tensor, ids_BQ: Tensor, facts: ModelFacts
) -> tuple[np.ndarray, np.ndarray]:
    """Next-token loss and in-context score (late loss less early loss) per sequence, nats per token.

    All positions are scored where the vocabulary head costs less than the body, else 64.

    Returns:
        two float64 arrays, shape (B,).
    """
    head: Any = model.get_output_embeddings()
    everywhere = facts.vocabulary * facts.d_model < facts.params_non_embedding
    parts = loss_positions(ids_BQ.shape[1], all_positions=everywhere)
    scored = np.unique(np.concatenate(parts))
    losses = np.empty((ids_BQ.shape[0], len(scored)))
    together = max(1, LOGIT_BYTES // (4 * facts.vocabulary * len(scored)))
    for first in range(0, len(losses), together):
        rows = slice(first, first + together)
        logits = _scaled_logits(head(hidden_BQD[rows, scored]).float(), model)
        wanted = ids_BQ[rows, scored + 1]
        found = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none")
        losses[rows] = found.view_as(wanted).double().cpu().numpy()
    loss, early, late = (losses[:, np.searchsorted(scored, part)].mean(1) for part in parts)
    if not np.isfinite(loss).all():
        raise CheckpointError("the loss is NaN or infinite; are the weights sound?")
    return loss, late - early


def _scaled_logits(logits: Tensor, model: PreTrainedModel) -> Tensor:
    """What families do between head and softmax: Gemma caps, Cohere multiplies, Granite divides."""
    config: Any = model.config
    # MPT's configuration has a logit_scale too, which transformers' model never reads.
    scale = getattr(model, "logit_scale", None) or 1.0
    logits = logits * scale / (getattr(config, "logits_scaling", None) or 1.0)
    cap = getattr(config, "final_logit_softcapping", None)
    return cap * torch.tanh(logits / cap) if cap else logits
