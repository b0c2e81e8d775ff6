"""A user's model without what is wrapped around it."""

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from tracker.errors import RequestError


def unwrap(model: Any) -> PreTrainedModel:
    """The transformers model itself, out of what wraps it for several devices or compiles it.

    Raises:
        RequestError: there is none in it.
    """
    inner: Any = model
    while not isinstance(inner, PreTrainedModel):
        held = [getattr(inner, name, None) for name in ("_orig_mod", "module")]
        inner = next((each for each in held if isinstance(each, nn.Module)), None)
        if inner is None:
            raise RequestError(
                f"model: {type(model).__name__} is no transformers model; give one that is loaded, as "
                "AutoModelForCausalLM.from_pretrained gives it"
            )
    return inner
