"""``steps=refine``: from what is measured to the checkpoints that would narrow the detected changes most."""

from collections.abc import Sequence

from tracker.analysis import analyse_phases
from tracker.analysis.refine import propose
from tracker.checkpoints.audit import file as audit_file
from tracker.config import Config
from tracker.errors import RequestError, unknown_value
from tracker.records import Checkpoint, Conventions, ProbeSpec
from tracker.store import Results, open_store


def refined(
    config: Config, found: Sequence[Checkpoint], suite: str, probe: ProbeSpec, conventions: Conventions
) -> list[Checkpoint]:
    """The checkpoints among ``found`` to measure next.

    Args:
        config: the request, with ``steps.budget``.
        found: every checkpoint that its suite has.
        suite, probe, conventions: as which the store holds them.

    Raises:
        RequestError: nothing is measured yet, no change is detected, or none can be narrowed.
    """
    if config.steps.budget < 1:
        raise unknown_value("steps.budget", config.steps.budget, "whole numbers from 1")
    results = _measured(config, suite, probe, conventions)
    checkpoints = results.checkpoints()
    known = audit_file.suspects(results.folder)
    suspects = {} if config.view.suspects else known.among(checkpoints.iter_rows(named=True))
    there: dict[tuple[str, int], dict[int, Checkpoint]] = {}
    for checkpoint in found:
        there.setdefault((checkpoint.model, checkpoint.seed), {})[checkpoint.step] = checkpoint
    pairs = [
        pair
        for pair in analyse_phases(checkpoints, results.sequences(), suspects)
        if (pair[0].model, pair[0].seed) in there
    ]
    intervals = [[point.reach for point in entry.change_points] for _, entry in pairs]
    if not any(intervals):
        raise RequestError(
            "steps=refine: no change is detected in what is measured, so there is nothing to narrow; "
            "measure more checkpoints with steps=log or steps=all"
        )
    names = [(run.model, run.seed) for run, _ in pairs]
    measured = [[int(step) for step in run.steps] for run, _ in pairs]
    proposals = propose(intervals, measured, [sorted(there[name]) for name in names], config.steps.budget)
    if not proposals:
        raise RequestError(
            "steps=refine: every detected change already lies between neighbouring checkpoints that exist"
        )
    return sorted(
        (there[names[each.run]][each.step] for each in proposals),
        key=lambda checkpoint: (names.index((checkpoint.model, checkpoint.seed)), checkpoint.step),
    )


def _measured(config: Config, suite: str, probe: ProbeSpec, conventions: Conventions) -> Results:
    try:
        return open_store(config.store, probe=probe.label, conventions=conventions.label, suite=suite)
    except RequestError as error:
        raise RequestError(
            f"steps=refine narrows changes in what is measured, and nothing of suite {suite} is, in this way "
            f"and in store={config.store}: `tracker sweep` with steps=log first ({error})"
        ) from error
