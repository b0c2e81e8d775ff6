"""Attention of the families that transformers' attention interface does not reach, by forward hooks.

Bloom and MPT take another implementation's name and ignore it; GPT-Neo, GPT-J and Falcon refuse it. Their
eager attention modules return their probabilities, which a hook hands out and takes off the output.

Legend: B sequences, H heads, Q queries, K keys.
"""

import inspect
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from tracker.errors import CheckpointError
from tracker.models.architecture import model_class
from tracker.models.attention_modules import body, self_attention_modules, text_body, text_config

HOOKED = frozenset({"bloom", "mpt", "gpt_neo", "gptj", "codegen", "falcon"})
"""By model_type: families that know the interface and do not use it. Others do not know it at all."""
HALVES = (torch.float16, torch.bfloat16)

Receive = Callable[[int, Tensor], None]


class _Thread(threading.local):
    """What the current thread's forward pass hands its attention to."""

    model: PreTrainedModel | None = None
    receive: Receive | None = None
    softmax: "_WideSoftmax | None" = None


_thread = _Thread()
_lock = threading.Lock()


class _Hooks:
    """The hooks of one model, and how many contexts use them."""

    def __init__(self) -> None:
        self.users = 0
        self.handles: list[RemovableHandle] = []


_hooks: weakref.WeakKeyDictionary[nn.Module, _Hooks] = weakref.WeakKeyDictionary()


def needs_hooks(config: Any, kind: type | None = None) -> bool:
    """Return whether a model of this configuration is to be loaded with eager attention and hooked.

    Args:
        config: of the model.
        kind: the model's class; None: the one that is loaded for the configuration.
    """
    config = text_config(config)
    if config.model_type in HOOKED:
        return True
    kind = kind or model_class(config)
    own = [each for each in kind.__mro__ if each not in PreTrainedModel.__mro__] if kind is not None else []
    files = [sys.modules[each.__module__] for each in own]
    return bool(files) and not any(hasattr(file, "ALL_ATTENTION_FUNCTIONS") for file in files)


def hook_options(model: PreTrainedModel) -> dict[str, Any]:
    """Return what a hooked model's body must be given so that its layers return their probabilities."""
    known = inspect.signature(body(model).forward).parameters
    asked = model.config.model_type not in HOOKED and "output_attentions" in known
    return {"output_attentions": True} if asked else {}


@contextmanager
def hooked_attention(model: PreTrainedModel, receive: Receive) -> Iterator[None]:
    """Make every self-attention layer that the current thread runs hand out its probabilities.

    Several threads may run one model at a time, each in a context of its own. Inside, the model's
    ``output_attentions`` gives None for every layer: nothing but ``receive`` may hold on to a layer's
    attention.

    With half-precision weights the probabilities are those of a float32 softmax, before they are rounded to
    the weights' dtype, for every family (Falcon's own softmax gives half precision: it is taken a second
    time). GPT-Neo, GPT-J and CodeGen also take the scores before it in float32; those of
    Bloom, MPT and Falcon are products in the weights' dtype. With float64 weights only Falcon's
    softmax is float64; the others compute it in float32.

    Args:
        model: a model whose family ``needs_hooks``; set to eager attention if it is not.
        receive: called with the layer's number and its probabilities, float32 or float64, shape (B, H, Q, K).

    Raises:
        CheckpointError (while the model runs): a module gives no probabilities.
    """
    before = _thread.model, _thread.receive, _thread.softmax
    wide = _WideSoftmax() if model.dtype in HALVES else None
    _join(model)
    try:
        _thread.model, _thread.receive, _thread.softmax = model, receive, wide
        with wide or nullcontext():
            yield
    finally:
        _thread.model, _thread.receive, _thread.softmax = before
        _leave(model)


class _WideSoftmax(TorchFunctionMode):
    """Keeps the float32 result of the current thread's last softmax from being rounded out of sight."""

    def __init__(self) -> None:
        super().__init__()
        self.last: Tensor | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is F.softmax:
            self.last = result
            if result.dtype in HALVES:
                # torch casts the scores to the dtype asked for before it takes their softmax; so does this.
                scores, *rest = args
                self.last = func(scores.to(result.dtype), *rest, **(kwargs | {"dtype": torch.float32}))
        return result

    def take(self) -> Tensor | None:
        """Return the last softmax, which is then forgotten."""
        last, self.last = self.last, None
        return last


def _join(model: PreTrainedModel) -> None:
    """Hooks are set by the first context and shared: forward passes of other threads walk through them."""
    with _lock:
        hooks = _hooks.setdefault(model, _Hooks())
        if not hooks.users:
            config = text_body(model).config
            if config._attn_implementation != "eager":
                # set_attn_implementation declines to act on these families, whose mask and attention
                # look the name up at every call.
                config._attn_implementation = "eager"
            of = weakref.ref(model)
            modules = enumerate(self_attention_modules(model))
            hooks.handles = [each.register_forward_hook(_hook(of, layer)) for layer, each in modules]
        hooks.users += 1


def _leave(model: PreTrainedModel) -> None:
    with _lock:
        hooks = _hooks[model]
        hooks.users -= 1
        if not hooks.users:
            for handle in hooks.handles:
                handle.remove()
            del _hooks[model]


def _hook(of: "weakref.ref[PreTrainedModel]", layer: int) -> Callable[[nn.Module, Any, Any], Any]:
    def hand_out(module: nn.Module, args: Any, output: Any) -> Any:
        if _thread.receive is None or _thread.model is not of():
            return None
        _thread.receive(layer, _probabilities(module, layer, output))
        # OpenAI GPT's layers return lists, to which theirs add.
        return type(output)(None if _is_attention(each) else each for each in output)

    return hand_out


def _is_attention(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() == 4


def _probabilities(module: nn.Module, layer: int, output: Any) -> Tensor:
    given = next(filter(_is_attention, output), None) if isinstance(output, (tuple, list)) else None
    if given is None or given.shape[-1] != given.shape[-2]:
        raise CheckpointError(
            f"layer {layer}: {type(module).__name__} gives no attention probabilities "
            "of every query over every key; load the model with eager attention, if it has one"
        )
    wide = _thread.softmax.take() if _thread.softmax is not None else None
    return wide if wide is not None and wide.shape == given.shape else given
