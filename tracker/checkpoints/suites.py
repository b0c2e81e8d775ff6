"""The published suites whose schedules are known: Pythia, deduplicated or of version 0, and PolyPythias."""

import string
from collections.abc import Iterable
from dataclasses import dataclass

from tracker import facts
from tracker.checkpoints import hub
from tracker.checkpoints.names import Labels
from tracker.errors import RequestError, unknown_value
from tracker.records import Checkpoint

PYTHIA_STEPS: tuple[int, ...] = (0, *(2**power for power in range(10)), *range(1000, 144_000, 1000))
"""The 154 steps that every Pythia model has a branch for (arXiv 2304.01373)."""

PYTHIA_V0_STEPS: tuple[int, ...] = tuple(range(1000, 144_000, 1000))
"""The 143 steps of the first version's branches (its model cards)."""

PYTHIA_TOKENS_PER_STEP = 2_097_152
"""1,024 sequences of 2,048 tokens. Of version 0 some sizes took twice as many in a step; their branches are
named as if they had not (its model cards), so this holds for the names."""

_SEED_SUFFIX = "-seed{seed}"


@dataclass(frozen=True)
class Published:
    """One suite on the hub. Model names are sizes, ``70m``."""

    name: str
    repo_format: str
    """Repository of a model, with the fields ``{size}`` and, where seeds differ by repository, ``{seed}``.
    Seed 0 is the repository without ``-seed{seed}``."""
    sizes: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: tuple[int, ...] = PYTHIA_STEPS


_SIZES: tuple[str, ...] = tuple(facts.table("pythia_suite")["size"].to_list())
_V0_SIZES = _SIZES[_SIZES.index("70m") :]

SUITES: dict[str, Published] = {
    suite.name: suite
    for suite in (
        Published("pythia", "EleutherAI/pythia-{size}", _SIZES, (0,)),
        Published("pythia-deduped", "EleutherAI/pythia-{size}-deduped", _SIZES, (0,)),
        Published("pythia-v0", "EleutherAI/pythia-{size}-v0", _V0_SIZES, (0,), PYTHIA_V0_STEPS),
        Published(
            "pythia-deduped-v0", "EleutherAI/pythia-{size}-deduped-v0", _V0_SIZES, (0,), PYTHIA_V0_STEPS
        ),
        Published(
            "polypythias",
            "EleutherAI/pythia-{size}-seed{seed}",
            _SIZES[: _SIZES.index("410m") + 1],
            tuple(range(10)),
        ),
    )
}


def published(
    suite: str,
    models: Iterable[str],
    *,
    seeds: Iterable[int] | None = None,
    steps: Iterable[int] | None = None,
    repo_format: str | None = None,
) -> list[Checkpoint]:
    """List the checkpoints of a published suite from its schedule alone, without a request.

    Args:
        suite: a key of ``SUITES``.
        models: sizes, ``["70m", "410m"]``.
        seeds: default: all that the suite has.
        steps: default: the suite's whole schedule.
        repo_format: for a mirror or a fork; default: the suite's own.

    Returns:
        In the order given: model, seed; then by step.

    Raises:
        RequestError: unknown suite, size or seed, or a wrong ``repo_format``; names what is allowed.
    """
    if suite not in SUITES:
        raise unknown_value("suite", suite, SUITES)
    known = SUITES[suite]
    form = known.repo_format if repo_format is None else repo_format
    _check_format(form)
    models, steps = tuple(models), known.steps if steps is None else tuple(steps)
    seeds = known.seeds if seeds is None else tuple(seeds)
    for field, given, allowed in (("models", models, known.sizes), ("seeds", seeds, known.seeds)):
        for value in given:
            if value not in allowed:
                raise unknown_value(f"suite.{field}", value, allowed)
    return [
        checkpoint
        for size in models
        for seed in seeds
        for checkpoint in hub.declared(
            _repo(form, size, seed),
            Labels(suite, size, seed),
            steps,
            tokens_per_step=PYTHIA_TOKENS_PER_STEP,
        )
    ]


def _repo(form: str, size: str, seed: int) -> str:
    return (form.replace(_SEED_SUFFIX, "") if seed == 0 else form).format(size=size, seed=seed)


def _check_format(form: str) -> None:
    try:
        fields = {field for _, field, _, _ in string.Formatter().parse(form) if field is not None}
    except ValueError as error:
        raise RequestError(f"suite.repo_format={form}: not a format of names: {error}") from error
    if "size" not in fields or not fields <= {"size", "seed"}:
        raise RequestError(
            f"suite.repo_format={form}: needs the field {{size}}, may have {{seed}}, and no other"
        )
