"""Leave a model and its process as they were: a training that is measured goes on as if it were not."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

IMPLEMENTATION = "_attn_implementation_internal"
"""Where transformers keeps a configuration's attention implementation; setting it reaches no other one."""


@contextmanager
def preserve_state(model: nn.Module) -> Iterator[None]:
    """Put back, bit for bit and whatever happens inside the block:

    the random states of Python, numpy and torch (every GPU in use), the training mode of every module, the
    attention implementation of every configuration, every buffer, the gradients, and torch's threads.

    Weights are not kept: nothing in the block may change them. Gradients are put back as objects, so what
    adds to them in place inside the block is not undone.
    """
    random_states, threads = _random_states(), torch.get_num_threads()
    modes = [(module, module.training) for module in model.modules()]
    implementations = [(config, getattr(config, IMPLEMENTATION)) for config in _configurations(model)]
    buffers = [
        (module, name, buffer, None if buffer is None else buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
    ]
    gradients = [(weights, weights.grad) for weights in model.parameters()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for config, implementation in implementations:
            setattr(config, IMPLEMENTATION, implementation)
        for module, name, buffer, content in buffers:
            _put_back(module, name, buffer, content)
        for weights, gradient in gradients:
            if weights.grad is not gradient:
                weights.grad = gradient
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        _restore(random_states)


def _configurations(model: nn.Module) -> list[Any]:
    """Every configuration that a module below ``model`` looks its attention up in, each once."""
    found: dict[int, Any] = {}
    waiting = [
        config for module in model.modules() if (config := getattr(module, "config", None)) is not None
    ]
    while waiting:
        config = waiting.pop()
        if id(config) in found or not hasattr(config, IMPLEMENTATION):
            continue
        found[id(config)] = config
        waiting += [
            part for name in getattr(config, "sub_configs", ()) if (part := getattr(config, name, None))
        ]
    return list(found.values())


def _put_back(module: nn.Module, name: str, buffer: Tensor | None, content: Tensor | None) -> None:
    module._buffers[name] = buffer
    if buffer is not None and content is not None and not torch.equal(buffer, content):
        with torch.no_grad():
            buffer.copy_(content)


def _random_states() -> tuple[Any, ...]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda


def _restore(states: tuple[Any, ...]) -> None:
    python, numpy, cpu, cuda = states
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(cpu)
    if cuda is not None:
        torch.cuda.set_rng_state_all(cuda)
