"""Which heads could be pruned: heads of a layer with alike attention maps, switched off all but one.

    python sweeps/studies/prune_heads.py store=DIR suite.models=[0.2m]

takes the overrides of the sweep that filled the store, tries the last measured checkpoint of each model and
seed on the probe, and writes ``DIR/pruning.json``. Maps that are alike need not carry the same values: hence
the trial, against switching off as many other heads of the layer.

Legend: B sequences, Q queries, H heads, V dimensions of a head's value, D width of the residual stream.
"""

import math
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from rich.console import Console
from scipy import stats
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tracker.cli import run_script
from tracker.commands.results import chosen_results, write_report
from tracker.config import Config
from tracker.engines.load import load_with_probe
from tracker.engines.placement import chosen_device
from tracker.errors import CheckpointError, RequestError
from tracker.models import IMPLEMENTATION, AttentionStream
from tracker.models.attention_modules import base_call, self_attention_modules
from tracker.models.loss import token_losses
from tracker.models.preserve_state import preserve_state
from tracker.planning.resolve import checkpoint_cache, resolve

ALIKE = 0.9
"""Least cosine of the attention maps of any two heads of a group, averaged over sequences."""
MOST_CONTROLS = 12
TOKENS_AT_ONCE = 2048
"""Tokens of a forward pass; logits are never in memory for more than a slice of the vocabulary."""
ROWS_AT_ONCE = 256
"""Rows of an attention map."""
PROJECTIONS = ("dense", "o_proj", "c_proj", "out_proj", "wo", "o", "out_lin")
"""Names that families give the projection that mixes the heads' outputs."""


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


def output_projection(attention: nn.Module, layer: int) -> nn.Module:
    """Find the projection behind the heads of one layer's attention.

    Raises:
        CheckpointError: the module has none of a known name.
    """
    for name, module in attention.named_children():
        if name in PROJECTIONS and isinstance(module, nn.Linear | Conv1D):
            return module
    raise CheckpointError(
        f"layer {layer}: {type(attention).__name__} has no output projection named "
        f"{', '.join(PROJECTIONS)}, so its heads cannot be switched off; the architecture is not supported"
    )


@contextmanager
def without_heads(model: PreTrainedModel, heads: Mapping[int, Collection[int]]) -> Iterator[None]:
    """Switch heads off for the length of a block.

    Args:
        model: a loaded model.
        heads: layer -> heads whose output is set to zero, which is what pruning them would leave.

    Raises:
        CheckpointError: the model's attention has no output projection of a known name.
    """
    config: Any = model.config
    layers, handles = self_attention_modules(model), []
    try:
        for layer, gone in heads.items():
            projection = output_projection(layers[layer], layer)
            hook = _zeroing(sorted(gone), config.num_attention_heads)
            handles.append(projection.register_forward_pre_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _zeroing(gone: list[int], heads: int) -> Any:
    def hook(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        mixed_BQHV = given[0].unflatten(-1, (heads, -1)).clone()
        mixed_BQHV[..., gone, :] = 0
        return mixed_BQHV.flatten(-2), *given[1:]

    return hook


def in_parts(ids_BQ: Tensor) -> tuple[Tensor, ...]:
    """Split sequences into parts that fit into memory."""
    return ids_BQ.split(max(1, TOKENS_AT_ONCE // ids_BQ.shape[1]))


@torch.inference_mode()
def losses(model: PreTrainedModel, ids_BQ: Tensor) -> Tensor:
    """Compute the next-token loss of each sequence, nats per token, shape (B,), float64."""
    found = []
    for part in in_parts(ids_BQ):
        hidden_BQD, wanted = base_call(model, part)[:, :-1], part[:, 1:]
        tokens = token_losses(model, hidden_BQD.flatten(0, 1), wanted.flatten())
        found.append(tokens.view_as(wanted).double().mean(1))
    return torch.cat(found)


@torch.inference_mode()
def map_similarity(model: PreTrainedModel, ids_BQ: Tensor) -> list[np.ndarray]:
    """Compute the cosine of the flattened attention maps of each pair of heads, mean over sequences.

    Returns:
        per layer, float64, shape (H, H).
    """
    sums: dict[int, np.ndarray] = {}
    for part in in_parts(ids_BQ):
        for layer, (attention,) in AttentionStream(model, [part], finished=0):
            batch, _, queries, _ = attention.shape
            products_BHH: Any = 0.0
            for first in range(0, queries, ROWS_AT_ONCE):
                rows = slice(first, min(first + ROWS_AT_ONCE, queries))
                flat_BHN = attention.tile(slice(0, batch), rows).flatten(2)
                products_BHH = products_BHH + (flat_BHN @ flat_BHN.transpose(1, 2)).double()
            norms_BH = products_BHH.diagonal(dim1=1, dim2=2).sqrt()
            cosines_BHH = products_BHH / (norms_BH[:, :, None] * norms_BH[:, None, :])
            sums[layer] = sums.get(layer, 0.0) + cosines_BHH.sum(0).cpu().numpy()
    return [sums[layer] / len(ids_BQ) for layer in sorted(sums)]


def groups_of(similarity_HH: np.ndarray, alike: float = ALIKE) -> list[tuple[int, ...]]:
    """Find the groups of two heads or more in which every pair is alike (complete linkage)."""
    if len(similarity_HH) < 2:
        return []
    apart = np.clip(1 - (similarity_HH + similarity_HH.T) / 2, 0, None)
    np.fill_diagonal(apart, 0)
    numbers = fcluster(linkage(squareform(apart, checks=False), "complete"), 1 - alike, "distance")
    members = [tuple(int(h) for h in np.flatnonzero(numbers == each)) for each in np.unique(numbers)]
    return [group for group in members if len(group) > 1]


def prune(model: PreTrainedModel, ids_BQ: Tensor, alike: float = ALIKE) -> list[Pruned]:
    """Try every group of heads that look alike: what does switching off all but one do to the loss?

    The control switches off as many heads of the same layer, in every other choice of them, or in twelve
    drawn ones.

    Args:
        model: a loaded causal language model; it is left as it was.
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
        found = []
        for layer, alike_HH in enumerate(similarity):
            for group in groups_of(alike_HH, alike):
                others = other_choices(len(alike_HH), group, layer)
                kept = group[int(alike_HH[np.ix_(group, group)].sum(1).argmax())]
                gone = tuple(head for head in group if head != kept)
                rises = []
                for heads in (gone, *others):
                    with without_heads(model, {layer: heads}):
                        rises.append((losses(model, ids_BQ) - whole).cpu().numpy())
                least = float(alike_HH[np.ix_(group, group)].min())
                found.append(judged(layer, group, kept, least, float(whole.mean()), rises))
    return found


def judged(
    layer: int, group: tuple[int, ...], kept: int, similarity: float, loss: float, rises: list[np.ndarray]
) -> Pruned:
    """Compare what switching a group off costs with what other heads of the layer cost.

    Args:
        layer, group, kept, similarity, loss: see ``Pruned``.
        rises: of each sequence's loss, shape (B,): without the group's others, then without each control.
    """
    ours, controls = rises[0], np.mean(rises[1:], axis=0) if rises[1:] else None
    spread = None if controls is None else _half(controls - ours)
    return Pruned(
        layer, group, kept, similarity, loss, float(ours.mean()), _half(ours),
        control=None if controls is None else float(controls.mean()),
        redundant=None if spread is None else bool((controls - ours).mean() > spread),
    )  # fmt: skip


def other_choices(heads: int, group: tuple[int, ...], seed: int = 0) -> list[tuple[int, ...]]:
    """List other choices of as many heads as pruning a group takes: all, or twelve drawn ones.

    Args:
        heads: of the layer.
        group: choices within it are left out.
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


def pruning_sentences(label: str, found: list[Pruned]) -> list[str]:
    """Report what was tried, group by group."""
    if not found:
        return [
            f"{label}: no two heads of a layer have attention maps that are alike (cosine {ALIKE} or more)."
        ]
    verdicts = {True: "redundant", False: "not redundant, though alike", None: "no control to compare with"}
    sentences = []
    for each in found:
        spread = "" if each.half is None else f" ± {each.half:.1g}"
        control = "" if each.control is None else f"; other heads of the layer {each.control:+.3g}"
        sentences.append(
            f"{label}: layer {each.layer} heads {', '.join(map(str, each.group))} (cosine "
            f"{each.similarity:.2f} or more), head {each.kept} kept: loss {each.rise:+.3g}{spread} "
            f"({100 * each.rise / each.loss:+.1f}%){control}: {verdicts[each.redundant]}."
        )
    return sentences


def prune_heads(config: Config, console: Console) -> int:
    """Try the last measured checkpoint of each stored run of a request; the exit code.

    Raises:
        RequestError: no checkpoint of the request is measured.
    """
    sweep, results = resolve(config), chosen_results(config)
    names = ["suite", "model", "seed", "step"]
    measured = set(results.checkpoints([*names, "status"]).filter(status="ok").select(names).iter_rows())
    last: dict[tuple[str, str, int], Any] = {}
    for planned in sweep.plan.units:
        at = planned.unit.checkpoint
        if (at.suite, at.model, at.seed, at.step) in measured:
            run = (at.suite, at.model, at.seed)
            last[run] = max(last.get(run, planned), planned, key=lambda each: each.unit.checkpoint.step)
    if not last:
        raise RequestError(f"{config.store}: no checkpoint of this request is measured; sweep first")
    found, failed = [], False
    device = chosen_device(config.device)
    for planned in last.values():
        at = planned.unit.checkpoint
        label = f"{at.model} seed {at.seed} step {at.step}"
        try:
            with load_with_probe(sweep, planned, checkpoint_cache(config), device=device) as (model, ids):
                groups = prune(model, ids)
        except CheckpointError as error:  # of this model alone: the others are tried all the same
            console.print(f"{label}: {error}", markup=False, soft_wrap=True)
            failed = True
            continue
        for sentence in pruning_sentences(label, groups):
            console.print(sentence, markup=False, soft_wrap=True)
        found.append(
            {name: getattr(at, name) for name in names} | {"groups": [asdict(each) for each in groups]}
        )
    path = config.store / "pruning.json"
    write_report(path, {"pruning": found})
    console.print(f"Details: {path}", markup=False, soft_wrap=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(run_script(prune_heads, sys.argv[1:]))
