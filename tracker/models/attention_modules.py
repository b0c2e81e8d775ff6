"""A model's body: its self-attention layers in the order in which they run, and a run through them."""

import re
import weakref
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

CROSS_ATTENTION = re.compile(r"EncDec|cross_?att|encoder_attn", re.IGNORECASE)
"""Names of modules through which a decoder reads its encoder."""

_numbers: weakref.WeakKeyDictionary[nn.Module, weakref.WeakKeyDictionary[nn.Module, int]] = (
    weakref.WeakKeyDictionary()
)


def self_attention_modules(model: nn.Module) -> list[nn.Module]:
    """Return the modules that compute self-attention, by layer: an encoder's first, then a decoder's.

    They are found by their class's name, since nothing else is common to all families. Where one holds
    another, the innermost is meant.
    """
    named = {name: module for name, module in model.named_modules() if "Attention" in type(module).__name__}
    outer = {name[:end] for name in named for end in range(len(name)) if name[end] == "."}
    return [
        module
        for name, module in named.items()
        if name not in outer and not CROSS_ATTENTION.search(f"{name}.{type(module).__name__}")
    ]


def layer_number(module: nn.Module, model: PreTrainedModel) -> int | None:
    """Return which layer an attention module is, from 0; None for one that is not measured (cross attention).

    ``module.layer_idx`` does not do: T5's encoder and decoder both count from 0, and so does its cross
    attention.
    """
    numbers = _numbers.get(model)
    if numbers is None:
        numbers = weakref.WeakKeyDictionary(
            {each: number for number, each in enumerate(self_attention_modules(model))}
        )
        _numbers[model] = numbers
    return numbers.get(module)


def base_call(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Run a model without its vocabulary head.

    An encoder-decoder gets the same ids on both sides: they are to be compared, not to be translated.

    Args:
        model: a loaded transformers model.
        ids: token ids, int64, shape (B, n).

    Returns:
        the last hidden state, shape (B, n, d_model); an encoder-decoder's is its decoder's.
    """
    config: Any = model.config
    if config.is_encoder_decoder:
        encoder, decoder = model.get_encoder(), model.get_decoder()
        encoded = encoder(input_ids=ids).last_hidden_state
        decoded = decoder(input_ids=ids, encoder_hidden_states=encoded, use_cache=False)
        return decoded.last_hidden_state
    return model.base_model(input_ids=ids, use_cache=False).last_hidden_state
