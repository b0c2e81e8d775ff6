"""A model's body: its self-attention layers in the order in which they run, and a run through them."""

import re
import weakref
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from tracker.errors import CheckpointError

CROSS_ATTENTION = re.compile(r"EncDec|cross_?att|encoder_attn", re.IGNORECASE)
"""Names of modules through which a decoder reads its encoder."""

NO_SOFTMAX = re.compile(r"Lightning|DeltaAttention|(?<!Kimi)LinearAttention|LinearSelfAttention")
"""Classes named attention that have no probabilities: linear attention, in hybrid models."""

_numbers: weakref.WeakKeyDictionary[nn.Module, weakref.WeakKeyDictionary[nn.Module, int]] = (
    weakref.WeakKeyDictionary()
)


def text_config(config: Any) -> Any:
    """Return a model's configuration, or that of its language model where it reads images or sound too."""
    return config if getattr(config, "num_attention_heads", None) else config.get_text_config()


def text_body(model: nn.Module) -> Any:
    """Return what reads token ids: the model, or its language model where it reads images or sound too."""
    config: Any = getattr(model, "config", None)
    if config is None or text_config(config) is config:
        return model
    return model.get_decoder()  # type: ignore[operator]


def attention_modules_by_name(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules that compute self-attention, by layer: an encoder's first, then a decoder's.

    They are found by their class's name, since nothing else is common to all families. Where one holds
    another, the innermost is meant.
    """
    named = {
        name: module
        for name, module in text_body(model).named_modules()
        if "Attention" in type(module).__name__ and not NO_SOFTMAX.search(type(module).__name__)
    }
    outer = {name[:end] for name in named for end in range(len(name)) if name[end] == "."}
    return {
        name: module
        for name, module in named.items()
        if name not in outer and not CROSS_ATTENTION.search(f"{name}.{type(module).__name__}")
    }


def self_attention_modules(model: nn.Module) -> list[nn.Module]:
    """Return what ``attention_modules_by_name`` finds, in the order in which it runs."""
    return list(attention_modules_by_name(model).values())


def self_attention_names(model: nn.Module) -> list[str]:
    """Return the whole names of what ``self_attention_modules`` finds."""
    names = {module: name for name, module in model.named_modules()}
    return [names[module] for module in self_attention_modules(model)]


def block_of(attention: str) -> str:
    """Return the name of the transformer block that an attention module lies in: up to its first number.

    Example:
        >>> block_of("model.layers.3.self_attn")
        'model.layers.3'
    """
    parts = attention.split(".")
    end = next((at for at, part in enumerate(parts) if part.isdigit()), len(parts) - 1)
    return ".".join(parts[: end + 1])


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


def base_call(model: PreTrainedModel, ids: Tensor, **options: Any) -> Tensor:
    """Run a model without its vocabulary head.

    An encoder-decoder gets the same ids on both sides: they are to be compared, not to be translated.

    Args:
        model: a loaded transformers model.
        ids: token ids, int64, shape (B, n).
        options: what the body's forward is given as well.

    Returns:
        the last hidden state, shape (B, n, d_model); an encoder-decoder's is its decoder's.

    Raises:
        CheckpointError: the body gives none.
    """
    config: Any = model.config
    if config.is_encoder_decoder:
        encoder, decoder = model.get_encoder(), model.get_decoder()
        encoded = encoder(input_ids=ids).last_hidden_state
        decoded = decoder(input_ids=ids, encoder_hidden_states=encoded, use_cache=False)
        return decoded.last_hidden_state
    found = body(model)(input_ids=ids, use_cache=False, **options)
    hidden = getattr(found, "last_hidden_state", None)
    if not isinstance(hidden, Tensor):
        raise CheckpointError(f"{type(model).__name__} has no body apart from its head; it is not supported")
    return hidden


def body(model: PreTrainedModel) -> Any:
    """Return the model without its vocabulary head."""
    text = text_body(model)
    base = text.base_model
    # Llama 4's text model names a base of another class, and so is its own.
    return getattr(text, "model", base) if base is text else base
