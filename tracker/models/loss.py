"""Next-token loss from a body's last hidden state, without running the head where it is not needed.

Some families do more between the body and its logits than multiply by a matrix. Once per architecture the
logits made here are compared with the model's own; where they differ, the model's own forward is run.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from tracker.errors import CheckpointError
from tracker.models.architecture import ModelFacts
from tracker.models.attention_hooks import HALVES
from tracker.models.attention_interface import captured_attention
from tracker.models.attention_modules import base_call, layer_number, text_config

LOSS_POSITIONS, TENTH_POSITIONS = 32, 16
"""Where the vocabulary head costs more than the body: strided positions, and of each tenth."""
SLICE, SLICE_GPU = (256, 2048), (4096, 16384)
"""Tokens and words of the vocabulary whose logits are there at once."""
COMPARED = 8
"""Tokens on which logits are compared with the model's own."""
APART, APART_HALF = 1e-3, 0.05
"""Largest difference that rounding makes, in standard deviations of the logits; of half precision."""
Way = Literal["head", "forward", "none"]
"""How logits are made: by the head alone, by the model's own forward, or not at all."""
_ways: dict[tuple[type, str], Way] = {}


def loss_positions(n: int, *, all_positions: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which of the n - 1 predictions are scored: for the loss, early and late.

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
) -> tuple[np.ndarray, np.ndarray] | None:
    """Compute next-token loss and in-context score (late loss less early loss) per sequence, nats per token.

    All positions are scored where the vocabulary head costs less than the body, else 64.

    Returns:
        two float64 arrays, shape (B,); None where the model has no vocabulary head.
    """
    way = logits_way(model, ids_BQ)
    if way == "none":
        return None
    everywhere = facts.vocabulary * facts.d_model < facts.params_non_embedding
    parts = loss_positions(ids_BQ.shape[1], all_positions=everywhere)
    scored = np.unique(np.concatenate(parts))
    wanted = ids_BQ[:, scored + 1]
    if way == "forward":
        losses = torch.stack([_own_losses(model, ids, scored) for ids in ids_BQ])
    else:
        losses = token_losses(model, hidden_BQD[:, scored].flatten(0, 1), wanted.flatten())
    losses = losses.view_as(wanted).double().cpu().numpy()
    loss, early, late = (losses[:, np.searchsorted(scored, part)].mean(1) for part in parts)
    if not np.isfinite(loss).all():
        raise CheckpointError("the loss is NaN or infinite; are the weights sound?")
    return loss, late - early


def logits_way(model: PreTrainedModel, ids_BQ: Tensor) -> Way:
    """Find how the model's logits are made; compared once per architecture and configuration.

    Not while another thread runs the model: the passes that compare would be taken for its own.

    Args:
        model: a loaded model.
        ids_BQ: tokens that it can read.
    """
    known = type(model), model.config.to_json_string(use_diff=False)
    if known in _ways:
        return _ways[known]
    own = _own_logits(model, ids_BQ[:1, :COMPARED])
    if own is not None and not own.std() > 0:
        return "forward"  # a head of zeros, as before training, agrees with every way
    _ways[known] = _compared(model, ids_BQ[:1, :COMPARED], own)
    return _ways[known]


def _compared(model: PreTrainedModel, ids_1Q: Tensor, own: Tensor | None) -> Way:
    has_head = model.get_output_embeddings() is not None
    if own is None:
        return "head" if has_head else "none"
    if not has_head:
        return "forward"
    words = SLICE[1] if ids_1Q.device.type == "cpu" else SLICE_GPU[1]
    try:
        with _unwatched(model):
            hidden_1QD = base_call(model, ids_1Q)
        ours = torch.cat(list(_logits(model, hidden_1QD[0], words)), dim=-1)
    except RuntimeError:  # a head behind layers that change the width
        return "forward"
    apart = APART_HALF if model.dtype in HALVES else APART
    if ours.shape != own.shape or not bool((ours - own).abs().max() <= apart * own.std()):
        return "forward"
    return "head"


def _own_logits(model: PreTrainedModel, ids_1Q: Tensor) -> Tensor | None:
    """Logits of the model's own forward, float32, (Q, V); None where it gives none for every token."""
    try:
        with _unwatched(model):
            logits = getattr(model(input_ids=ids_1Q, use_cache=False), "logits", None)
    except (TypeError, ValueError, RuntimeError, KeyError, AttributeError):
        return None
    vocabulary = getattr(model.config.get_text_config(), "vocab_size", None)
    if not isinstance(logits, Tensor) or logits.ndim != 3 or logits.shape[:2] != ids_1Q.shape:
        return None
    return logits[0].float() if vocabulary is None or logits.shape[2] >= vocabulary else None


@contextmanager
def _unwatched(model: PreTrainedModel) -> Iterator[None]:
    """Let a model run whose attention is set to be handed out, without anybody who looks at it."""
    with captured_attention(lambda attention: attention.finish(), lambda module: layer_number(module, model)):
        yield


def _own_losses(model: PreTrainedModel, ids_Q: Tensor, scored: np.ndarray) -> Tensor:
    """Next-token losses of one sequence at the positions scored, from the model's own logits."""
    logits = _own_logits(model, ids_Q[None])
    if logits is None:
        raise CheckpointError(f"{type(model).__name__}: its own forward gives no logits for every token")
    return F.cross_entropy(logits[scored], ids_Q[scored + 1], reduction="none")


def token_losses(model: PreTrainedModel, hidden_TD: Tensor, wanted_T: Tensor) -> Tensor:
    """Compute the next-token loss of each position, nats, shape (T,), float32.

    Logits are in memory for a slice of the tokens and of the vocabulary at a time.

    Args:
        model: a loaded model.
        hidden_TD: last hidden states.
        wanted_T: the token that follows each of them.
    """
    tokens, words = SLICE if hidden_TD.device.type == "cpu" else SLICE_GPU
    pairs = zip(hidden_TD.split(tokens), wanted_T.split(tokens), strict=True)
    return torch.cat([_cross_entropy(model, hidden, wanted, words) for hidden, wanted in pairs])


def _cross_entropy(model: PreTrainedModel, hidden_TD: Tensor, wanted_T: Tensor, words: int) -> Tensor:
    """``logsumexp`` over slices of the vocabulary less the wanted logit: all are never there at once."""
    totals, found = [], torch.full_like(wanted_T, torch.nan, dtype=torch.float32)
    first = 0
    for logits_TV in _logits(model, hidden_TD, words):
        totals.append(_log_sum_exp(logits_TV))
        last = first + logits_TV.shape[-1]
        place = (wanted_T - first).clamp(0, logits_TV.shape[-1] - 1).unsqueeze(-1)
        here = (wanted_T >= first) & (wanted_T < last)
        found = torch.where(here, logits_TV.gather(-1, place).squeeze(-1), found)
        first = last
    return torch.stack(totals).logsumexp(0) - found


def _log_sum_exp(logits_TV: Tensor) -> Tensor:
    """Compute ``logsumexp`` in about half its time on a processor, where ``log_softmax`` is one operation."""
    most = logits_TV.amax(-1)
    return torch.where(most == -torch.inf, most, most - logits_TV.log_softmax(-1).amax(-1))


def _logits(model: PreTrainedModel, hidden_TD: Tensor, words: int) -> Iterator[Tensor]:
    """Logits of slices of the vocabulary, float32, shape (T, words); a head that is more than a matrix and a
    bias is run once, whole."""
    head: Any = model.get_output_embeddings()
    if type(head) is not nn.Linear or head.weight.device != hidden_TD.device or _hooked(head):
        yield _scaled(head(hidden_TD).float(), model)
        return
    for first in range(0, len(head.weight), words):
        part = slice(first, first + words)
        bias = None if head.bias is None else head.bias[part]
        yield _scaled(F.linear(hidden_TD, head.weight[part], bias).float(), model)


def _hooked(head: nn.Module) -> bool:
    return bool(head._forward_hooks or head._forward_pre_hooks) or hasattr(head, "_hf_hook")


def _scaled(logits: Tensor, model: PreTrainedModel) -> Tensor:
    """What families do between head and softmax: Gemma caps, Cohere multiplies, Granite divides."""
    config: Any = text_config(model.config)
    # MPT's configuration has a logit_scale too, which transformers' model never reads.
    scale = getattr(model, "logit_scale", None) or 1.0
    logits = logits * scale / (getattr(config, "logits_scaling", None) or 1.0)
    cap = getattr(config, "final_logit_softcapping", None)
    return cap * torch.tanh(logits / cap) if cap else logits
