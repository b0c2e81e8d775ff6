"""Asks checkpoints and store what exists and what is done, and hands both to the plan."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

from pywt import Wavelet, dwt_max_level  # pyright: ignore[reportAttributeAccessIssue]

from tracker import checkpoints as sources
from tracker.config import Config, FolderSuite, HubSuite, NanoSuite, PublishedSuite
from tracker.errors import CheckpointError, unknown_value
from tracker.measurement.probe import probe_spec
from tracker.nano import NanoRecipe, suite_checkpoints
from tracker.planning.plan import Plan, make_plan, select
from tracker.planning.refine import refined
from tracker.records import Checkpoint, Conventions, ProbeSource, ProbeSpec, Recorded, RecordId, Unit
from tracker.store import Store

NANO_SEQUENCES, USUAL_SEQUENCES = 16, 500


@dataclass(frozen=True)
class ResolvedSweep:
    """A request worked out: the plan, and what is needed to carry it out."""

    plan: Plan
    probe: ProbeSpec
    source: ProbeSource
    conventions: Conventions


def nano_recipe(suite: NanoSuite) -> NanoRecipe:
    """How the embedded suite of this request is trained.

    Raises:
        RequestError: a field out of range.
    """
    known = {each.name for each in fields(NanoRecipe)}
    return NanoRecipe(**{name: value for name, value in vars(suite).items() if name in known})


def suite_name(config: Config) -> str:
    """The suite's name in the store; another recipe of the embedded suite is another suite."""
    suite = config.suite
    if not isinstance(suite, NanoSuite):
        return suite.name
    usual, recipe = NanoRecipe(), nano_recipe(suite)
    if recipe == usual:
        return suite.name
    longer = replace(usual, train_steps=recipe.train_steps)
    return f"{suite.name}-{recipe.train_steps if recipe == longer else recipe.digest}"


def available(config: Config) -> list[Checkpoint]:
    """Every checkpoint of the request's suite, before steps are chosen. Downloads nothing.

    Raises:
        RequestError: an unknown model, repository or folder, or nothing there.
    """
    suite = config.suite
    if isinstance(suite, NanoSuite):
        found = suite_checkpoints(nano_recipe(suite), config.store / "nano", suite.models, suite.seeds)
        return [replace(checkpoint, suite=suite_name(config)) for checkpoint in found]
    if isinstance(suite, PublishedSuite):
        return sources.published(suite.name, suite.models, seeds=suite.seeds, repo_format=suite.repo_format)
    if isinstance(suite, HubSuite):
        found = sources.discover_hub(
            suite.repo,
            sources.Labels(suite.name, suite.model),
            pattern=suite.pattern,
            branch=suite.branch,
            cache_dir=config.cache.folder,
        )
    else:
        found = _in_folder(suite)
    kept = _only(found, "models", suite.models, [checkpoint.model for checkpoint in found])
    return _only(kept, "seeds", suite.seeds, [checkpoint.seed for checkpoint in found])


def _in_folder(suite: FolderSuite) -> list[Checkpoint]:
    return sources.discover_folder(
        suite.path,
        sources.Labels(suite.name, suite.model, suite.seed),
        step=suite.step,
        pattern=suite.pattern,
    )


def _only(
    found: list[Checkpoint], field: str, wanted: Sequence[object] | None, there: Iterable[object]
) -> list[Checkpoint]:
    if wanted is None:
        return found
    known = set(there)
    for value in wanted:
        if value not in known:
            raise unknown_value(f"suite.{field}", value, sorted(map(str, known)))
    return [checkpoint for checkpoint in found if getattr(checkpoint, field[:-1]) in wanted]


def resolve(config: Config, *, ask: bool = False) -> ResolvedSweep:
    """Works a request out. Touches nothing: no folder is made, nothing fetched or trained.

    Args:
        config: the request.
        ask: whether to ask the hub which branches of suites with a known schedule are there.

    Raises:
        RequestError: the request is wrong; names the field, the value and what is allowed.
    """
    source = ProbeSource(**{each.name: getattr(config.probe, each.name) for each in fields(ProbeSource)})
    usual = NANO_SEQUENCES if isinstance(config.suite, NanoSuite) else USUAL_SEQUENCES
    probe = probe_spec(
        source,
        name=config.probe.name,
        n=config.probe.n,
        number=usual if config.probe.number is None else config.probe.number,
        seed=config.probe.seed,
        bos=config.probe.bos,
        target_error=config.probe.target_error,
    )
    _refuse_lengths(config)
    found = available(config)
    if config.steps.name == "refine" and config.steps.list is None:
        chosen = refined(config, found, suite_name(config), probe, config.conventions)
    else:
        chosen = select(found, config.steps)
    chosen = told_missing(chosen) if ask else chosen
    recorded = Store(config.store).recorded()
    commits = _commits(chosen, probe, config, recorded) if config.remeasure == "moved" else {}
    plan = make_plan(
        chosen,
        probe,
        config.conventions,
        config.dtype,
        recorded,
        remeasure=config.remeasure,
        shard=config.shard,
        commits=commits,
    )
    return ResolvedSweep(plan, probe, source, config.conventions)


def told_missing(chosen: list[Checkpoint]) -> list[Checkpoint]:
    """The checkpoints, those marked that the hub has no branch for; as they are where it does not answer."""
    heads: dict[str, dict[str, str]] = {}
    for repo in sorted({each.location for each in chosen if each.kind == "hub" and each.exists is None}):
        try:
            heads[repo] = sources.branches(repo)
        except sources.Unreachable:
            break  # one hub serves all
        except CheckpointError:
            heads[repo] = {}
    return [
        replace(each, exists=False)
        if each.location in heads and each.exists is None and each.revision not in heads[each.location]
        else each
        for each in chosen
    ]


def _refuse_lengths(config: Config) -> None:
    """What the number of tokens rules out is said before anything is trained or fetched."""
    n, conventions, suite = config.probe.n, config.conventions, config.suite
    if isinstance(suite, NanoSuite) and n > suite.tokens:
        raise unknown_value("probe.n", n, f"at most the {suite.tokens} positions of the suite (suite.tokens)")
    if conventions.n_fft is not None and conventions.n_fft < n:
        raise unknown_value("spectrum.n_fft", conventions.n_fft, f"at least probe.n={n}")
    if conventions.align == "dilate":
        shortest = min(conventions.alphas)
        taps = Wavelet(conventions.wavelet).dec_len
        if dwt_max_level(math.floor(shortest * n), taps) <= round(math.log2(1 / shortest)):
            raise unknown_value("spectrum.align", "dilate", f"longer sequences than probe.n={n}")


def _commits(
    chosen: list[Checkpoint], probe: ProbeSpec, config: Config, recorded: dict[RecordId, Recorded]
) -> dict[RecordId, str]:
    """What each recorded checkpoint's source holds now; one that cannot be asked counts as not moved."""
    now: dict[RecordId, str] = {}
    for checkpoint in chosen:
        unit = Unit(checkpoint, probe, config.conventions, config.dtype)
        if unit.id in recorded:
            try:
                commit = current_commit(checkpoint)
            except CheckpointError:
                continue
            if commit is not None:
                now[unit.id] = commit
    return now


def current_commit(checkpoint: Checkpoint) -> str | None:
    """The commit, or the files' fingerprint, that a checkpoint's source holds now; nothing is fetched."""
    if checkpoint.kind == "hub":
        return checkpoint.commit or sources.inspect(checkpoint).commit
    return sources.fetch(checkpoint).commit
