"""The hidden states of a probe, summed batch by batch: what each layer yields at the end.

Legend: S sequences, L layers, B sequences of one batch, n tokens, D width of the model.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tracker.metrics.states import first_norm, largest_over_median
from tracker.metrics.weights import effective_rank


@dataclass
class States:
    """Running results; ``gram`` takes 8 L D^2 bytes, a sixth of the blocks' weights in float32."""

    gram: list[Tensor] = field(default_factory=list)
    """Per layer ``sum z z^T`` over all tokens, float64, shape (D, D)."""
    largest: list[Tensor] = field(default_factory=list)
    """Of each batch, shape (L, B)."""
    first: list[Tensor] = field(default_factory=list)

    def add(self, states: list[Tensor]) -> None:
        """Take in the states of a batch, (B, n, D) per layer; batches come in a fixed order."""
        if not self.gram:
            self.gram = [each.new_zeros((each.shape[-1],) * 2, dtype=torch.float64) for each in states]
        for gram, each in zip(self.gram, states, strict=True):
            tokens = each.flatten(0, 1).double()
            gram.addmm_(tokens.T, tokens)
        self.largest.append(torch.stack([largest_over_median(each) for each in states]).cpu())
        self.first.append(torch.stack([first_norm(each) for each in states]).cpu())

    def columns(self) -> dict[str, np.ndarray]:
        """Return the columns of the layers table, each (L,)."""
        values = [torch.linalg.eigvalsh(gram).clamp(min=0).sqrt() for gram in self.gram]
        return {
            "state_effective_rank": np.array([float(effective_rank(each)) for each in values]),
            "state_outlier_ratio": torch.cat(self.largest, 1).mean(1).numpy(),
            "state_first_norm": torch.cat(self.first, 1).mean(1).numpy(),
        }
