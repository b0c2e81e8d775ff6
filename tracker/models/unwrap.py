"""A user's model without what is wrapped around it."""

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from tracker.errors import RequestError


def unwrap(model: Any) -> PreTrainedModel:
    """Return the transformers model itself, out of what wraps it for several devices or compiles it.

    Raises:
        RequestError: it holds none.
    """
    inner: Any = model
    while not isinstance(inner, PreTrainedModel):
        held = [getattr(inner, name, None) for name in ("_orig_mod", "module")]
        if callable(base := getattr(inner, "get_base_model", None)):
            held.append(base())  # an adapter of PEFT's: its layers lie inside the model it returns
        inner = next((each for each in held if isinstance(each, nn.Module)), None)
        if inner is None:
            raise RequestError(
                f"model: {type(model).__name__} is not a transformers model; give one as "
                "AutoModelForCausalLM.from_pretrained returns it"
            )
    return inner
