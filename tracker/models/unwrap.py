"""A user's model without what is wrapped around it."""

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from tracker.errors import CheckpointError, RequestError

HOLDERS = ("_orig_mod", "module", "model", "base_model", "pretrained_model")
"""Where torch.compile, data parallelism, PEFT, TRL and loops of one's own keep the model."""


def unwrap(model: Any) -> PreTrainedModel:
    """Return the transformers model itself, out of what wraps it for several devices, compiles or adapts it.

    An adapter's layers lie inside the model that is returned, so they are measured with it.

    Raises:
        RequestError: it holds none, or several beside each other.
        CheckpointError: a prompt that was learned runs before the tokens, outside the model itself.
    """
    inner: Any = model
    while not isinstance(inner, PreTrainedModel):
        _refuse_learned_prompt(inner)
        held = [getattr(inner, name, None) for name in HOLDERS]
        if callable(base := getattr(inner, "get_base_model", None)):
            held.insert(0, base())
        found = next((each for each in held if isinstance(each, nn.Module)), None) or _only_one(inner)
        if found is None or found is inner:
            raise RequestError(
                f"model: {type(model).__name__} is not a transformers model; give one as "
                "AutoModelForCausalLM.from_pretrained returns it"
            )
        inner = found
    return inner


def _only_one(wrapper: Any) -> PreTrainedModel | None:
    """The transformers model of a module that holds no other."""
    if not isinstance(wrapper, nn.Module):
        return None
    named = {name: each for name, each in wrapper.named_modules() if isinstance(each, PreTrainedModel)}
    outer = [name for name in named if not any(name.startswith(f"{other}.") for other in named)]
    return named[outer[0]] if len(outer) == 1 else None


def _refuse_learned_prompt(wrapper: Any) -> None:
    """Prompt and prefix tuning leave the model itself as it was: its numbers would stand still."""
    kinds = [getattr(each, "is_prompt_learning", False) for each in _adapters(wrapper)]
    if any(kinds):
        raise CheckpointError(
            "model: its adapter learns a prompt (virtual tokens outside the model), which is not measured; "
            "give get_base_model() to measure the model without it"
        )


def _adapters(wrapper: Any) -> list[Any]:
    found = getattr(wrapper, "peft_config", None)
    return list(found.values()) if isinstance(found, dict) else []
