"""Heads that look at the same things: candidates for pruning, and what the loss says when they are gone."""

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from torch import Tensor
from transformers import PreTrainedModel

from tracker.models.ablation import losses, without_heads
from tracker.models.attention_interface import IMPLEMENTATION, AttentionStream
from tracker.models.preserve_state import preserve_state

ALIKE = 0.9
"""Least cosine of the attention maps of any two heads of a group, averaged over sequences."""
MOST_CONTROLS = 12


@dataclass(frozen=True)
class Pruned:
    """One group of heads that look alike, all but one of them switched off."""

    layer: int
    group: tuple[int, ...]
    kept: int
    """The head that is most like the others."""
    similarity: float
    """Least cosine within the group."""
    loss: float
    """Nats per token with every head."""
    rise: float
    """By which the loss rises without the others of the group."""
    half: float | None
    """Half width of its 95 % interval over sequences; None where there is one sequence."""
    control: float | None
    """Mean rise without as many other heads of the layer; None where there is no other choice."""
    redundant: bool | None
    """Whether they surely cost less than other heads of the layer do, sequence by sequence (95 % interval of
    the difference); None without a control, or of one sequence."""


def map_similarity(model: PreTrainedModel, ids_BQ: Tensor) -> list[np.ndarray]:
    """Cosine of the flattened attention maps of each pair of heads, per layer (H, H), mean over sequences."""
    found = []
    for _, (attention,) in AttentionStream(model, [ids_BQ]):
        flat_BHN = attention.whole().flatten(2).double()
        unit_BHN = flat_BHN / flat_BHN.norm(dim=-1, keepdim=True)
        found.append((unit_BHN @ unit_BHN.transpose(1, 2)).mean(0).cpu().numpy())
    return found


def groups_of(similarity_HH: np.ndarray, alike: float = ALIKE) -> list[tuple[int, ...]]:
    """Groups of two heads or more in which every pair is alike (complete linkage)."""
    if len(similarity_HH) < 2:
        return []
    apart = np.clip(1 - (similarity_HH + similarity_HH.T) / 2, 0, None)
    np.fill_diagonal(apart, 0)
    numbers = fcluster(linkage(squareform(apart, checks=False), "complete"), 1 - alike, "distance")
    members = [tuple(int(h) for h in np.flatnonzero(numbers == each)) for each in np.unique(numbers)]
    return [group for group in members if len(group) > 1]


def prune(model: PreTrainedModel, ids_BQ: Tensor, alike: float = ALIKE) -> list[Pruned]:
    """Every group of heads that look alike, and what switching off all but one does to the loss.

    The control switches off as many heads of the same layer, in every other choice of them, or in twelve
    drawn ones. Maps that are alike need not carry the same values: hence the trial.

    Args:
        model: a loaded causal language model.
        ids_BQ: token ids, int64.
        alike: least cosine within a group.

    Raises:
        CheckpointError: attention cannot be read, or heads cannot be switched off.
    """
    with preserve_state(model):
        similarity = map_similarity(model.eval(), ids_BQ)
        if model.config._attn_implementation == IMPLEMENTATION:
            model.set_attn_implementation("eager")
        whole = losses(model, ids_BQ)
        return [
            _tried(model, ids_BQ, layer, group, each, whole)
            for layer, each in enumerate(similarity)
            for group in groups_of(each, alike)
        ]


def _tried(
    model: PreTrainedModel,
    ids: Tensor,
    layer: int,
    group: tuple[int, ...],
    alike_HH: np.ndarray,
    whole: Tensor,
) -> Pruned:
    among = alike_HH[np.ix_(group, group)]
    kept = group[int(among.sum(1).argmax())]
    gone = tuple(head for head in group if head != kept)

    def rise(heads: tuple[int, ...]) -> np.ndarray:
        with without_heads(model, {layer: heads}):
            return (losses(model, ids) - whole).cpu().numpy()

    rises = rise(gone)
    others = other_choices(len(alike_HH), group, layer)
    controls = np.mean([rise(each) for each in others], axis=0) if others else None
    spread = None if controls is None else _half(controls - rises)
    return Pruned(
        layer, group, kept, float(among.min()), float(whole.mean()), float(rises.mean()), _half(rises),
        control=None if controls is None else float(controls.mean()),
        redundant=None if spread is None else bool((controls - rises).mean() > spread),
    )  # fmt: skip


def other_choices(heads: int, group: tuple[int, ...], seed: int = 0) -> list[tuple[int, ...]]:
    """Other choices of as many heads as pruning a group takes: all, or twelve drawn ones.

    Args:
        heads: of the layer.
        group: a choice within it is none.
        seed: of the draw.
    """
    gone = len(group) - 1
    if math.comb(heads, gone) - len(group) <= MOST_CONTROLS:
        return [each for each in combinations(range(heads), gone) if not set(each) <= set(group)]
    generator, drawn = np.random.default_rng(seed), set()
    while len(drawn) < MOST_CONTROLS:  # of 16 heads taken from 32 there are 600 million: never listed
        each = tuple(sorted(generator.choice(heads, gone, replace=False).tolist()))
        if not set(each) <= set(group):
            drawn.add(each)
    return sorted(drawn)


def _half(values: np.ndarray) -> float | None:
    """Half width of the 95 % interval of a mean, by Student's t; None of one value."""
    count = len(values)
    if count < 2:
        return None
    return float(stats.t.ppf(0.975, count - 1) * values.std(ddof=1) / np.sqrt(count))


def pruned_entry(found: list[Pruned]) -> list[dict[str, Any]]:
    """In plain types, for roles.json."""
    return [vars(each) | {"group": list(each.group)} for each in found]


def pruning_sentences(label: str, found: list[Pruned]) -> list[str]:
    """What was tried, group by group."""
    if not found:
        return [f"{label}: no two heads of a layer have maps that are alike (cosine {ALIKE} or more)."]
    told = []
    for each in found:
        share = 100 * each.rise / each.loss
        verdict = {True: "redundant", False: "not redundant, though alike", None: "nothing to judge it by"}[
            each.redundant
        ]
        spread = "" if each.half is None else f" ± {each.half:.1g}"
        control = "" if each.control is None else f"; other heads of the layer {each.control:+.3g}"
        told.append(
            f"layer {each.layer} heads {', '.join(map(str, each.group))} (cosine {each.similarity:.2f} or "
            f"more), head {each.kept} kept: loss {each.rise:+.3g}{spread} ({share:+.1f}%)"
            f"{control}: {verdict}"
        )
    return [f"{label}: {each}." for each in told]
