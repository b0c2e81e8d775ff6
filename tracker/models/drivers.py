"""What may drive a change of the attention: gradients of heads, curvature of the loss, heads that compose.

Legend: P all parameters in one vector; H heads; V dimensions of a head; D width of the stream.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import GPTNeoXForCausalLM, PreTrainedModel

from tracker.errors import CheckpointError


@dataclass(frozen=True)
class HeadWeights:
    """One layer's attention, split by heads; queries, keys, values (H, V, D); output (H, D, V)."""

    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor


def batch_loss(model: PreTrainedModel, ids_BQ: Tensor) -> Tensor:
    """Mean next-token loss, nats per token, with its graph."""
    logits = model(input_ids=ids_BQ, use_cache=False).logits[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1), ids_BQ[:, 1:].flatten())


def head_weights(
    model: PreTrainedModel, gradients: Sequence[Tensor | None] | None = None
) -> list[HeadWeights]:
    """Each layer's attention weights, or their gradients, split by heads.

    Args:
        model: of GPT-NeoX's body.
        gradients: in the order of ``model.parameters()``; None: the weights themselves.

    Raises:
        CheckpointError: another body, whose weights are laid out otherwise.
    """
    if not isinstance(model, GPTNeoXForCausalLM):
        raise CheckpointError(
            f"{type(model).__name__}: drivers are worked out for GPT-NeoX's body alone; leave the model out"
        )
    of: Any = dict(zip(model.parameters(), gradients, strict=True)) if gradients is not None else None
    heads = model.config.num_attention_heads
    layers = []
    body: Any = model.gpt_neox
    for layer in body.layers:
        inward, outward = layer.attention.query_key_value.weight, layer.attention.dense.weight
        if of is not None:
            inward, outward = of[inward], of[outward]
        query, key, value = inward.detach().unflatten(0, (heads, 3, -1)).unbind(1)
        layers.append(
            HeadWeights(query, key, value, outward.detach().unflatten(1, (heads, -1)).transpose(0, 1))
        )
    return layers


def gradient_norms(model: PreTrainedModel, ids_BQ: Tensor) -> Tensor:
    """Norm of the loss's gradient in each head's own weights, shape (layers, H)."""
    gradients = torch.autograd.grad(batch_loss(model, ids_BQ), list(model.parameters()), allow_unused=True)
    norms = []
    for each in head_weights(model, gradients):
        parts = (each.query, each.key, each.value, each.output)
        norms.append(torch.stack([part.flatten(1).square().sum(1) for part in parts]).sum(0).sqrt())
    return torch.stack(norms)


def composition(model: PreTrainedModel) -> dict[str, Tensor]:
    """How far each head writes what a later one reads, beyond what matrices without relation give.

    ``norm(R W) / (norm(R) norm(W))`` with W what the earlier head writes (its output times its value), and R
    what the later one reads through its queries (Q), keys (K) or values (V). Frobenius norms; matrices of
    independent entries give 1 / sqrt(D), which is taken off. Layer norms between the two are left out, and so
    is what positions do to queries and keys.

    Returns:
        Q, K, V -> (layers, H, layers, H), earlier head first; NaN where the first is not earlier.

    Source: Elhage et al., "A Mathematical Framework for Transformer Circuits" (2021), composition.
    """
    layers = head_weights(model)
    count, heads = len(layers), len(layers[0].query)
    width = layers[0].query.shape[-1]
    found = {name: torch.full((count, heads, count, heads), float("nan")) for name in "QKV"}
    for first, writer in enumerate(layers):
        written_HDD = writer.output @ writer.value
        for second in range(first + 1, count):
            reader = layers[second]
            read_HDD = reader.query.transpose(1, 2) @ reader.key
            through = {
                "Q": read_HDD.transpose(1, 2),
                "K": read_HDD,
                "V": reader.output @ reader.value,
            }
            for name, each_HDD in through.items():
                product = torch.einsum("rij,wjk->wrik", each_HDD, written_HDD).flatten(2).norm(dim=2)
                sizes = written_HDD.flatten(1).norm(dim=1)[:, None] * each_HDD.flatten(1).norm(dim=1)
                found[name][first, :, second] = product / sizes - width**-0.5
    return found


class Curvature:
    """The Hessian of the loss on a fixed batch, by products with vectors; attention is run eager."""

    def __init__(self, model: PreTrainedModel, ids_BQ: Tensor) -> None:
        """Works the gradient out once, with its graph."""
        self._weights = list(model.parameters())
        model.set_attn_implementation("eager")  # fused attention has no second derivative
        gradients = torch.autograd.grad(batch_loss(model, ids_BQ), self._weights, create_graph=True)
        self._gradient_P = torch.cat([each.flatten() for each in gradients])

    def times(self, vector_P: Tensor) -> Tensor:
        """Hessian times vector, shape (P,). Source: Pearlmutter (1994)."""
        products = torch.autograd.grad(self._gradient_P, self._weights, vector_P, retain_graph=True)
        return torch.cat([each.flatten() for each in products])

    def along(self, direction_P: Tensor) -> float:
        """Second derivative of the loss per unit of length along a direction."""
        unit = direction_P / direction_P.norm()
        return float(unit @ self.times(unit))

    def sharpness(self, steps: int = 8, seed: int = 0) -> float:
        """Largest eigenvalue, from below, by so many steps of Lanczos with full orthogonalisation."""
        drawn = torch.randn(len(self._gradient_P), generator=torch.Generator().manual_seed(seed))
        basis, diagonal, beside = [drawn / drawn.norm()], [], []
        for _ in range(steps):
            new = self.times(basis[-1])
            diagonal.append(float(new @ basis[-1]))
            for each in (*basis, *basis):
                new = new - (new @ each) * each
            beside.append(float(new.norm()))
            if beside[-1] < 1e-8:
                break
            basis.append(new / new.norm())
        off = torch.tensor(beside[: len(diagonal) - 1])
        tridiagonal = torch.diag(torch.tensor(diagonal)) + torch.diag(off, 1) + torch.diag(off, -1)
        return float(torch.linalg.eigvalsh(tridiagonal)[-1])
