"""Resolve a request: what exists at its source, what the store has recorded, and the plan made of both."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from pywt import Wavelet, dwt_max_level  # pyright: ignore[reportAttributeAccessIssue]

from tracker import checkpoints as sources
from tracker.checkpoints.files import VOCABULARY
from tracker.config import Config, HubSuite, NanoSuite, PublishedSuite
from tracker.errors import CheckpointError, unknown_value
from tracker.measurement.probe import probe_spec
from tracker.nano import NanoRecipe, suite_checkpoints
from tracker.planning.plan import MeasurementSpec, Plan, make_plan
from tracker.planning.schedule import late_starts, refined, select
from tracker.planning.suites import on_hub, wanted_values
from tracker.records import Checkpoint, Conventions, ProbeSource, ProbeSpec, Recorded, RecordId
from tracker.store import Ledger, Results, Store, select_results

NANO_SEQUENCES, DEFAULT_SEQUENCES = 16, 500


@dataclass(frozen=True)
class ResolvedSweep:
    """A resolved request: the plan, and what is needed to carry it out."""

    plan: Plan
    probe: ProbeSpec
    source: ProbeSource
    conventions: Conventions
    ledger: Ledger
    """The store's records when the request was resolved: read once, used by every later step."""
    notes: tuple[str, ...] = ()
    """What a person should know of how the checkpoints were found and chosen."""


def checkpoint_cache(config: Config) -> sources.CheckpointCache:
    """Return the cache of a request, with its bound."""
    bound = None if config.cache.max_gb is None else int(config.cache.max_gb * 1e9)
    folder = sources.cache_folder(config.cache.folder)
    return sources.CheckpointCache(folder, bound, head=config.probe.loss)


def nano_recipe(suite: NanoSuite) -> NanoRecipe:
    """Return the training recipe of the embedded suite.

    Raises:
        RequestError: a field out of range.
    """
    known = {each.name for each in fields(NanoRecipe)}
    return NanoRecipe(**{name: value for name, value in vars(suite).items() if name in known})


def suite_name(config: Config) -> str:
    """Return the suite's name in the store; another recipe of the embedded suite is another suite."""
    suite = config.suite
    if not isinstance(suite, NanoSuite):
        return suite.name
    default, recipe = NanoRecipe(), nano_recipe(suite)
    if recipe == default:
        return suite.name
    longer = replace(default, train_steps=recipe.train_steps)
    return f"{suite.name}-{recipe.train_steps if recipe == longer else recipe.digest}"


def available(config: Config) -> list[Checkpoint]:
    """List every checkpoint of the request's suite, before steps are chosen. Downloads nothing.

    Raises:
        RequestError: an unknown model, repository or folder, or nothing there.
    """
    return found(config).checkpoints


def found(config: Config) -> sources.Found:
    """List every checkpoint as ``available`` does, with what a person should know of how they were found.

    Raises:
        RequestError: as ``available``.
    """
    suite = config.suite
    if isinstance(suite, NanoSuite):
        trained = suite_checkpoints(nano_recipe(suite), config.store / "nano", suite.models, suite.seeds)
        return sources.Found([replace(each, suite=suite_name(config)) for each in trained], ())
    if isinstance(suite, PublishedSuite):
        known = sources.published(suite.name, suite.models, seeds=suite.seeds, repo_format=suite.repo_format)
        return sources.Found(known, ())
    if isinstance(suite, HubSuite):
        return on_hub(suite, config.cache.folder)
    held = sources.discover_folder(
        suite.path,
        sources.Labels(suite.name, suite.model, suite.seed),
        step=suite.step,
        pattern=suite.pattern,
    )
    models = wanted_values("models", suite.models, {checkpoint.model for checkpoint in held})
    seeds = wanted_values("seeds", suite.seeds, {checkpoint.seed for checkpoint in held})
    notes = tuple(sources.passed_over(held, suite.path))
    return sources.Found([each for each in held if each.model in models and each.seed in seeds], notes)


def _without_tokenizer(chosen: Sequence[Checkpoint], source: ProbeSource) -> list[str]:
    """Say where text is to be measured and no folder has a tokenizer, before each of them fails by itself."""
    folders = [Path(each.location) / each.revision for each in chosen if each.kind == "folder"]
    if not folders or len(folders) < len(chosen) or source.ids or source.tokenizer:
        return []
    if any((folder / name).is_file() for folder in folders for name in VOCABULARY):
        return []
    return ["none of these folders has a tokenizer: give probe.tokenizer=FOLDER or probe.ids=FILE"]


def resolve(config: Config, *, ask: bool = False) -> ResolvedSweep:
    """Resolve a request. Touches nothing: no folder is made, nothing fetched or trained.

    Args:
        config: the request.
        ask: whether to ask the hub which branches of suites with a known schedule exist.

    Raises:
        RequestError: the request is wrong; names the field, the value and what is allowed.
    """
    probe, source = requested_probe(config), _probe_source(config)
    _refuse_lengths(config)
    spec = MeasurementSpec(probe, config.conventions, config.dtype, config.options)
    every = found(config)
    ledger = Store(config.store).recorded()
    if config.steps.name == "refine" and config.steps.list is None:
        chosen = refined(config, every.checkpoints, suite_name(config), spec, ledger)
    else:
        chosen = select(every.checkpoints, config.steps)
    chosen = mark_missing(chosen) if ask else chosen
    plan = make_plan(
        chosen,
        spec,
        ledger,
        remeasure=config.remeasure,
        shard=config.shard,
        commits=_commits(chosen, spec, ledger) if config.remeasure == "moved" else {},
    )
    notes = (*every.notes, *late_starts(chosen, config.steps), *_without_tokenizer(chosen, source))
    return ResolvedSweep(plan, probe, source, config.conventions, ledger, notes)


def requested_probe(config: Config, sequences: int | None = None) -> ProbeSpec:
    """Identify the probe of a request.

    Args:
        config: the request.
        sequences: how many where the request does not say; None: what its suite has by default.

    Raises:
        RequestError: a file that is not there, more than one source, or numbers out of range.
    """
    asked = config.probe
    default = NANO_SEQUENCES if isinstance(config.suite, NanoSuite) else DEFAULT_SEQUENCES
    usual = default if sequences is None else sequences
    spec = probe_spec(
        _probe_source(config),
        name=asked.name,
        n=asked.n,
        number=usual if asked.sequences is None else asked.sequences,
        seed=asked.seed,
        bos=asked.bos,
        target_error=asked.target_error,
    )
    return replace(spec, loss=asked.loss)


def _probe_source(config: Config) -> ProbeSource:
    return ProbeSource(**{each.name: getattr(config.probe, each.name) for each in fields(ProbeSource)})


def mark_missing(chosen: list[Checkpoint]) -> list[Checkpoint]:
    """Mark the checkpoints that the hub has no branch for; all stay as they are where it does not answer."""
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


def sweep_results(config: Config, sweep: ResolvedSweep) -> Results:
    """Open what the store holds of a request's suite, probe and conventions; only new records are read."""
    return select_results(
        config.store,
        probe=sweep.probe.label,
        conventions=sweep.conventions.label,
        suite=suite_name(config),
        ledger=sweep.ledger,
    )


def _refuse_lengths(config: Config) -> None:
    """Refuse what the number of tokens rules out before anything is trained or fetched."""
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
    chosen: list[Checkpoint], spec: MeasurementSpec, ledger: Mapping[RecordId, Recorded]
) -> dict[RecordId, str]:
    """Ask what each recorded checkpoint's source holds now; one that cannot be asked counts as not moved."""
    now: dict[RecordId, str] = {}
    for checkpoint in chosen:
        unit = spec.unit(checkpoint)
        if unit.id in ledger:
            try:
                commit = current_commit(checkpoint)
            except CheckpointError:
                continue
            if commit is not None:
                now[unit.id] = commit
    return now


def current_commit(checkpoint: Checkpoint) -> str | None:
    """Return the commit, or the files' fingerprint, that a checkpoint's source holds now; fetch nothing."""
    if checkpoint.kind == "hub":
        return checkpoint.commit or sources.inspect(checkpoint).commit
    return sources.fetch(checkpoint).commit
