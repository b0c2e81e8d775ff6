"""What may drive a change of the spectra: gradients of heads, curvature of the loss, composition of heads.

    python sweeps/studies/drivers.py store=DIR suite.models=[0.2m] suite.seeds=3

takes the overrides of the sweep that filled the store, measures its checkpoints of GPT-NeoX models on the
probe's sequences, and writes ``DIR/drivers.json``. Rank correlations with how fast spectral entropy moves
show what goes along with a change; they are no evidence of a cause.

Legend: P all parameters in one vector; H heads; V dimensions of a head; D width of the residual stream;
B sequences; Q tokens.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy import stats
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh
from torch import Tensor
from torch.nn import functional as F
from transformers import GPTNeoXForCausalLM, PreTrainedModel

from tracker.cli import run_script
from tracker.commands.results import chosen_results, write_report
from tracker.config import Config
from tracker.engines.load import load_with_probe
from tracker.engines.placement import chosen_device
from tracker.errors import CheckpointError, RequestError, counted
from tracker.planning.resolve import ResolvedSweep, checkpoint_cache, resolve
from tracker.records import PlannedUnit

DRIVERS = {
    "gradient": "gradient norm per head",
    "gradient_unevenness": "its largest over its mean",
    "sharpness": "largest eigenvalue of the loss's Hessian",
    "curvature": "curvature along the path",
    "composition": "strongest composition of two heads",
}
"""What is measured at each checkpoint."""
TOKENS_AT_ONCE = 1024
"""Tokens whose logits and graph are in memory at once, for the vocabularies of published models."""
LANCZOS_VECTORS = 12
LEAST_CHECKPOINTS = 4
"""Fewer give no rank correlation."""


@dataclass(frozen=True)
class HeadWeights:
    """One layer's attention, split by heads; queries, keys, values (H, V, D); output (H, D, V)."""

    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor


@dataclass(frozen=True)
class CheckpointDrivers:
    """One checkpoint: its stored metrics, and its drivers."""

    step: int
    spectral_entropy: float | None
    frequency_selectivity: float | None
    gradient: float
    gradient_unevenness: float | None
    gradient_by_head: list[list[float]]
    sharpness: float
    curvature: float | None
    """None at the first checkpoint, and where no weight has moved since the one before."""
    composition: float | None
    """None in a model of one layer."""


@dataclass(frozen=True)
class RunDrivers:
    """One training run, its checkpoints in order of steps."""

    suite: str
    model: str
    seed: int
    checkpoints: tuple[CheckpointDrivers, ...]


@dataclass(frozen=True)
class Correlations:
    """Spearman's rank correlation of each driver with the spectral change that follows, in one run."""

    suite: str
    model: str
    seed: int
    gradient: float | None
    gradient_unevenness: float | None
    sharpness: float | None
    curvature: float | None
    composition: float | None


def mean_loss(model: PreTrainedModel, ids_BQ: Tensor) -> Tensor:
    """Compute the mean next-token loss, nats per token, with its graph."""
    logits = model(input_ids=ids_BQ, use_cache=False).logits[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1), ids_BQ[:, 1:].flatten())


def in_parts(ids_BQ: Tensor) -> list[tuple[Tensor, float]]:
    """Split sequences into parts that fit into memory, each with its share of all sequences."""
    parts = ids_BQ.split(max(1, TOKENS_AT_ONCE // ids_BQ.shape[1]))
    return [(part, len(part) / len(ids_BQ)) for part in parts]


def head_weights(model: PreTrainedModel, gradients: Sequence[Tensor] | None = None) -> list[HeadWeights]:
    """Split each layer's attention weights, or their gradients, by heads.

    Args:
        model: with GPT-NeoX's body.
        gradients: in the order of ``model.parameters()``; None: the weights themselves.

    Raises:
        CheckpointError: another architecture, whose weights are laid out otherwise.
    """
    if not isinstance(model, GPTNeoXForCausalLM):
        raise CheckpointError(
            f"{type(model).__name__}: drivers support GPT-NeoX models only; leave the model out"
        )
    weights = list(model.parameters())
    of: Any = dict(zip(weights, weights if gradients is None else gradients, strict=True))
    heads = model.config.num_attention_heads
    body: Any = model.gpt_neox
    layers = []
    for layer in body.layers:
        inward = of[layer.attention.query_key_value.weight].detach()
        outward = of[layer.attention.dense.weight].detach()
        query, key, value = inward.unflatten(0, (heads, 3, -1)).unbind(1)
        layers.append(HeadWeights(query, key, value, outward.unflatten(1, (heads, -1)).transpose(0, 1)))
    return layers


def gradient_norms(model: PreTrainedModel, ids_BQ: Tensor) -> Tensor:
    """Compute the norm of the loss's gradient in each head's own weights, shape (layers, H)."""
    weights = list(model.parameters())
    sums = [torch.zeros_like(each) for each in weights]
    for part, share in in_parts(ids_BQ):
        found = torch.autograd.grad(mean_loss(model, part), weights, materialize_grads=True)
        for total, gradient in zip(sums, found, strict=True):
            total += share * gradient
    norms = []
    for each in head_weights(model, sums):
        parts = (each.query, each.key, each.value, each.output)
        norms.append(torch.stack([part.flatten(1).square().sum(1) for part in parts]).sum(0).sqrt())
    return torch.stack(norms)


def composition(model: PreTrainedModel) -> dict[str, Tensor]:
    """Compute how far each head writes what a later one reads, beyond what unrelated matrices give.

    ``norm(R W) / (norm(R) norm(W))`` with W what the earlier head writes (its output times its value), and R
    what the later one reads through its queries (Q), keys (K) or values (V). Frobenius norms; matrices of
    independent entries give 1 / sqrt(D), which is subtracted. Layer norms between the two are left out, and
    so is what positions do to queries and keys.

    Returns:
        Q, K, V -> (layers, H, layers, H), earlier head first; NaN where the first is not earlier.

    Source: Elhage et al., "A Mathematical Framework for Transformer Circuits" (2021), composition.
    """
    layers = head_weights(model)
    count, (heads, _, width) = len(layers), layers[0].query.shape
    found = {name: torch.full((count, heads, count, heads), float("nan")) for name in "QKV"}
    for first, writer in enumerate(layers):
        written_HDD = writer.output @ writer.value
        for second in range(first + 1, count):
            reader = layers[second]
            read_HDD = reader.query.transpose(1, 2) @ reader.key
            through = {"Q": read_HDD.transpose(1, 2), "K": read_HDD, "V": reader.output @ reader.value}
            for name, each_HDD in through.items():
                product = torch.einsum("rij,wjk->wrik", each_HDD, written_HDD).flatten(2).norm(dim=2)
                sizes = written_HDD.flatten(1).norm(dim=1)[:, None] * each_HDD.flatten(1).norm(dim=1)
                found[name][first, :, second] = product / sizes - width**-0.5
    return found


class Curvature:
    """The Hessian of the mean loss on fixed sequences, by products with vectors; attention is run eager."""

    def __init__(self, model: PreTrainedModel, ids_BQ: Tensor) -> None:
        model.set_attn_implementation("eager")  # fused attention has no second derivative
        self._model, self._ids, self._weights = model, ids_BQ, list(model.parameters())

    def times(self, vector_P: Tensor) -> Tensor:
        """Compute the Hessian times a vector, shape (P,). Source: Pearlmutter (1994)."""
        product_P = torch.zeros_like(vector_P)
        for part, share in in_parts(self._ids):
            loss = mean_loss(self._model, part)
            gradient_P = flat(torch.autograd.grad(loss, self._weights, create_graph=True))
            product_P += share * flat(torch.autograd.grad(gradient_P, self._weights, vector_P))
        return product_P

    def along(self, direction_P: Tensor) -> float:
        """Compute the second derivative of the loss per unit of length along a direction."""
        unit = direction_P / direction_P.norm()
        return float(unit @ self.times(unit))

    def sharpness(self, seed: int = 0) -> float:
        """Compute the largest eigenvalue by Lanczos iteration (ARPACK), to a relative residual of 1e-3.

        Args:
            seed: of the random start.

        Raises:
            CheckpointError: the iteration does not converge, as for a loss that is not finite.
        """
        first = self._weights[0]
        size = sum(each.numel() for each in self._weights)
        drawn = torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=first.dtype)

        def product(vector: np.ndarray) -> np.ndarray:
            return self.times(torch.from_numpy(vector).to(first.device)).cpu().numpy()

        hessian = LinearOperator((size, size), matvec=product, dtype=drawn.numpy().dtype)  # type: ignore[call-arg]
        try:
            largest: Any = eigsh(
                hessian, k=1, which="LA", v0=drawn.numpy(), ncv=min(LANCZOS_VECTORS, size), tol=1e-3,  # type: ignore[arg-type]
                maxiter=100, return_eigenvectors=False,
            )  # fmt: skip
        except ArpackError as error:
            raise CheckpointError(f"the largest eigenvalue of the Hessian was not found: {error}") from error
        return float(largest[0])


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """Join tensors into one vector, shape (P,)."""
    return torch.cat([each.flatten() for each in tensors])


def drivers(config: Config, console: Console) -> int:
    """Measure the drivers of every stored run of a request; the exit code.

    Raises:
        RequestError: no run of the request has enough measured checkpoints.
    """
    sweep, results = resolve(config), chosen_results(config)
    columns = ["suite", "model", "seed", "step", "spectral_entropy", "frequency_selectivity"]
    measured = results.checkpoints([*columns, "status"]).filter(status="ok").select(columns)
    stored = {row[:4]: row[4:] for row in measured.iter_rows()}
    runs: dict[tuple[str, str, int], list[PlannedUnit]] = {}
    for planned in sweep.plan.units:
        at = planned.unit.checkpoint
        if (at.suite, at.model, at.seed, at.step) in stored:
            runs.setdefault((at.suite, at.model, at.seed), []).append(planned)
    runs = {name: members for name, members in runs.items() if len(members) >= LEAST_CHECKPOINTS}
    if not runs:
        raise RequestError(
            f"{config.store}: no run of this request has {LEAST_CHECKPOINTS} measured checkpoints; "
            "sweep first"
        )
    found: list[RunDrivers] = []
    for name, members in runs.items():
        try:
            found.append(RunDrivers(*name, _run(config, sweep, members, stored)))
        except CheckpointError as error:  # of this run alone: the others are measured all the same
            console.print(f"{name[1]} seed {name[2]}: {error}", markup=False, soft_wrap=True)
            continue
        console.print(drivers_table(found[-1]))
    links = [correlations(run) for run in found]
    sentences = driver_sentences(links)
    path = config.store / "drivers.json"
    write_report(path, {"runs": [asdict(each) for each in found], "links": [asdict(each) for each in links],
                     "sentences": sentences})  # fmt: skip
    for sentence in (*sentences, f"Details: {path}"):
        console.print(sentence, markup=False, soft_wrap=True)
    return 1 if len(found) < len(runs) else 0


def _run(
    config: Config, sweep: ResolvedSweep, members: list[PlannedUnit], stored: dict[Any, Any]
) -> tuple[CheckpointDrivers, ...]:
    """Measure every checkpoint of one run, in order of steps."""
    found: list[CheckpointDrivers] = []
    before: Tensor | None = None
    device = chosen_device(config.device)
    for planned in sorted(members, key=lambda each: each.unit.checkpoint.step):
        at = planned.unit.checkpoint
        with load_with_probe(sweep, planned, checkpoint_cache(config), dtype="float32", device=device) as (
            model,
            ids,
        ):
            weights = flat([each.detach() for each in model.parameters()])
            path = None if before is None else weights - before
            metrics = stored[at.suite, at.model, at.seed, at.step]
            found.append(CheckpointDrivers(at.step, *metrics, **_measured(model, ids, path)))
            before = weights
    return tuple(found)


def _measured(model: PreTrainedModel, ids: Tensor, path_P: Tensor | None) -> dict[str, Any]:
    """Measure one checkpoint; ``path_P`` is its weights less those of the checkpoint before."""
    pairs = torch.stack(list(composition(model).values()))
    pairs = pairs[pairs.isfinite()]
    curvature = Curvature(model, ids)  # runs attention eager from here on, which has gradients
    norms = gradient_norms(model, ids)
    return {
        "gradient": float(norms.mean()),
        "gradient_unevenness": float(norms.max() / norms.mean()) if norms.any() else None,
        "gradient_by_head": norms.tolist(),
        "sharpness": curvature.sharpness(),
        "curvature": curvature.along(path_P) if path_P is not None and path_P.any() else None,
        "composition": float(pairs.max()) if len(pairs) else None,
    }


def correlations(run: RunDrivers) -> Correlations:
    """Correlate each driver with the change of spectral entropy, per doubling of the step, that follows."""
    rows = [row for row in run.checkpoints if row.spectral_entropy is not None]
    speed = [
        abs(after.spectral_entropy - row.spectral_entropy) / np.log2((after.step + 1) / (row.step + 1))  # type: ignore[operator]
        for row, after in pairwise(rows)
    ]
    found: dict[str, float | None] = {}
    for name in DRIVERS:
        pairs = [(getattr(row, name), pace) for row, pace in zip(rows[:-1], speed, strict=True)]
        known = np.array([pair for pair in pairs if pair[0] is not None])
        constant = len(known) < LEAST_CHECKPOINTS or bool(np.ptp(known, axis=0).min() == 0)
        ranked: Any = None if constant else stats.spearmanr(known[:, 0], known[:, 1])
        found[name] = None if ranked is None else float(ranked.statistic)
    return Correlations(run.suite, run.model, run.seed, **found)


def driver_sentences(links: Sequence[Correlations]) -> list[str]:
    """Report, per model, which drivers go along with the spectral change in all of its seeds."""
    sentences = []
    for model in dict.fromkeys((each.suite, each.model) for each in links):
        own = [each for each in links if (each.suite, each.model) == model]
        parts = [
            _range(title, known)
            for name, title in DRIVERS.items()
            if (known := [value for each in own if (value := getattr(each, name)) is not None])
        ]
        chance = (
            "One seed shows no common sign"
            if len(own) == 1
            else f"Chance alone gives {len(own)} seeds one sign in {0.5 ** (len(own) - 1):.0%} of cases"
        )
        sentences.append(
            f"{model[1]}, {counted(len(own), 'seed')}: rank correlation with how fast spectral entropy moves "
            f"up to the next checkpoint, per doubling of the step: {'; '.join(parts)}. "
            f"{chance}, and correlation with a change does not imply that it drives it."
        )
    return sentences


def _range(title: str, known: list[float]) -> str:
    low, high = min(known), max(known)
    if len(known) == 1:
        return f"{title} {low:.2f}"
    return f"{title} {low:.2f} to {high:.2f} ({'same sign' if low > 0 or high < 0 else 'mixed signs'})"


def drivers_table(run: RunDrivers) -> Table:
    """Make a table with one row per checkpoint."""
    title = f"{run.model} seed {run.seed}"
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    columns = ("spectral_entropy", "frequency_selectivity", *DRIVERS)
    for name in ("step", *columns):
        table.add_column(name, justify="right")
    for row in run.checkpoints:
        values = (getattr(row, name) for name in columns)
        table.add_row(str(row.step), *("" if value is None else f"{value:.3g}" for value in values))
    return table


if __name__ == "__main__":
    sys.exit(run_script(drivers, sys.argv[1:]))
