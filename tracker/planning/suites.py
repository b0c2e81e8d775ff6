"""Suites of repositories on the hub: which repository each model is, and what their names say."""

from collections.abc import Sequence

from tracker import checkpoints as sources
from tracker.config import HubSuite
from tracker.errors import RequestError, unknown_value

AVAILABLE = "choose from suite.repos, or name one as suite.repo=owner/name"


def on_hub(suite: HubSuite, cache: str | None) -> sources.Found:
    """Find the checkpoints of a suite on the hub; of several repositories, one that cannot be read is told.

    Args:
        suite: with ``repo``, or ``repos`` of which ``models`` chooses.
        cache: ``cache.folder``.

    Raises:
        RequestError: nothing can be read, or an unknown model, seed or stage.
        CheckpointError: the hub does not answer.
    """
    naming = sources.Naming(
        suite.pattern, suite.tokens_per_step, tuple(suite.stages) if suite.stages else None
    )
    repos = _repositories(suite)
    checkpoints, notes, refused = [], [], []
    for model, repo in repos.items():
        try:
            found = _read(suite, sources.Labels(suite.name, model), repo, naming, cache)
        except RequestError as error:
            refused.append(error)
            continue
        checkpoints += found.checkpoints
        notes += found.notes
    if refused and not checkpoints:
        raise refused[0]
    seeds = wanted_values("seeds", suite.seeds, {each.seed for each in checkpoints})
    if suite.repo:
        models = wanted_values("models", suite.models, {each.model for each in checkpoints})
        checkpoints = [each for each in checkpoints if each.model in models]
    return sources.Found([each for each in checkpoints if each.seed in seeds], (*map(str, refused), *notes))


def wanted_values(name: str, wanted: Sequence[object] | None, present: set[object]) -> set[object]:
    """Return the values that a field of the suite chooses; null chooses all.

    Raises:
        RequestError: one that is not there.
    """
    for value in wanted or ():
        if value not in present:
            raise unknown_value(f"suite.{name}", value, sorted(map(str, present)))
    return present if wanted is None else set(wanted)


def _repositories(suite: HubSuite) -> dict[str | None, str]:
    """Model -> repository; None stands for the repository's own name."""
    if suite.repo:
        return {suite.model: suite.repo}
    if not suite.repos:
        raise RequestError(f"suite={suite.name}: names no repository; {AVAILABLE}")
    for model in suite.models or ():
        if model not in suite.repos:
            raise unknown_value("suite.models", model, suite.repos)
    return {model: suite.repos[model] for model in suite.models or suite.repos}


def _read(
    suite: HubSuite, labels: sources.Labels, repo: str, naming: sources.Naming, cache: str | None
) -> sources.Found:
    several = sources.expanded(repo)
    if len(several) > 1:
        return sources.read_repositories(sources.first_of(repo, labels), several, naming)
    return sources.find_on_hub(repo, labels, naming, branch=suite.branch, cache_dir=cache)
