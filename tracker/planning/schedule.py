"""Choose which checkpoints of a suite are measured: named schedules, lists, or those that narrow changes."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace

from tracker.checkpoints.audit import file as audit_file
from tracker.config import Config, Steps
from tracker.errors import Finished, RequestError, known_steps, unknown_value
from tracker.planning.plan import MeasurementSpec
from tracker.records import Checkpoint
from tracker.store import Ledger, Results, select_results

PAPER_STEPS = (0, 128, 512, 1000, 5000, 10000, 143000)
"""Steps of the paper's table 5."""
LATE = 1000
"""Step after which a first checkpoint is late: induction heads form around it in Pythia."""


def wanted_steps(choice: Steps, steps: Sequence[int]) -> tuple[int, ...]:
    """Return the steps that a choice selects.

    Args:
        choice: the ``steps`` group.
        steps: those that the model's suite has, or declares.

    Returns:
        increasing; for ``paper`` and ``list`` also steps that the suite does not have.

    Raises:
        RequestError: a choice without its fields, or negative steps.
    """
    if choice.list is not None:
        if not choice.list or any(step < 0 for step in choice.list):
            raise unknown_value(
                "steps.list", choice.list, "one or more steps from 0, as in steps.list=[0,128]"
            )
        return tuple(sorted(set(choice.list)))
    if choice.name == "list":
        raise RequestError("steps=list needs steps.list=[...], the steps to measure")
    if choice.name == "paper":
        return PAPER_STEPS
    if choice.name == "log":
        return _log_steps(steps)
    if choice.name == "window":
        if choice.low is None or choice.high is None or choice.low > choice.high:
            raise RequestError(
                f"steps=window needs steps.low <= steps.high; given {choice.low} and {choice.high}"
            )
        return tuple(step for step in sorted(steps) if choice.low <= step <= choice.high)
    return tuple(sorted(steps))


def _log_steps(steps: Sequence[int]) -> tuple[int, ...]:
    """Return 0, 1, 2, 4 ... 512, 1000, 2000, 4000 ... and the last; in place of one that does not exist, the
    first between it and the next."""
    last = max(steps, default=0)
    grid = [0, *(2**power for power in range(10))]
    grid += [1000 * 2**power for power in range(max(last, 1000).bit_length())]
    first = {bisect_right(grid, step): step for step in sorted(steps, reverse=True)}
    return tuple(sorted({*first.values(), *([last] if steps else [])}))


def late_starts(chosen: Iterable[Checkpoint], choice: Steps) -> list[str]:
    """Return a sentence for each model whose first checkpoint ``steps=log`` finds late.

    Args:
        chosen: the checkpoints selected.
        choice: the ``steps`` group.
    """
    if choice.name != "log" or choice.list is not None:
        return []
    sentences = []
    for (model, _), steps in by_run(chosen).items():
        first = steps[min(steps)]
        if first.step > LATE:
            tokens = f" ({first.tokens_seen / 1e9:g}B tokens)" if first.tokens_seen else ""
            sentences.append(
                f"{model}: its first checkpoint is step {first.step}{tokens}; steps=log has nothing before "
                "it, so changes of early training cannot be seen"
            )
    return list(dict.fromkeys(sentences))


def select(checkpoints: Iterable[Checkpoint], choice: Steps) -> list[Checkpoint]:
    """Select the wanted checkpoints, model by model; wanted ones that do not exist are marked so.

    Raises:
        RequestError: nothing is left; names the steps that exist.
    """
    chosen: list[Checkpoint] = []
    families = by_run(checkpoints)
    for family in families.values():
        some = next(iter(family.values()))
        for step in wanted_steps(choice, sorted(family)):
            chosen.append(family.get(step) or _absent(some, step))
    if not chosen or all(checkpoint.exists is False for checkpoint in chosen):
        present = sorted({step for family in families.values() for step in family})
        asked = f"steps={choice.name}" if choice.list is None else f"steps.list={_given(choice.list)}"
        wanted = () if choice.list is None else choice.list
        raise RequestError(f"{asked} selects no existing checkpoint; {known_steps(wanted, present)}")
    return chosen


def _given(steps: Sequence[int]) -> str:
    return f"[{','.join(map(str, steps))}]"


def by_run(checkpoints: Iterable[Checkpoint]) -> dict[tuple[str, int], dict[int, Checkpoint]]:
    """Group checkpoints by (model, seed), and each group by step."""
    runs: dict[tuple[str, int], dict[int, Checkpoint]] = {}
    for checkpoint in checkpoints:
        runs.setdefault((checkpoint.model, checkpoint.seed), {})[checkpoint.step] = checkpoint
    return runs


def _absent(sibling: Checkpoint, step: int) -> Checkpoint:
    """Return a step that the source does not have, under a revision that equals no other's, so that its key
    is unique."""
    return replace(
        sibling, step=step, revision=f"absent step {step}", tokens_seen=None, commit=None, exists=False
    )


def refined(
    config: Config,
    found: Sequence[Checkpoint],
    suite: str,
    spec: MeasurementSpec,
    ledger: Ledger,
) -> list[Checkpoint]:
    """Select the checkpoints that would narrow the detected changes most (``steps=refine``).

    Args:
        config: the request, with ``steps.budget``.
        found: every checkpoint that the suite has.
        suite: the suite's name in the store.
        spec: how the stored results were measured.
        ledger: the store's records.

    Raises:
        RequestError: nothing is measured yet, or no change is detected.
        Finished: none can be narrowed.
    """
    # What only this choice needs is slow to import.
    from tracker.analysis.phase_report import find_run
    from tracker.analysis.refine import propose
    from tracker.analysis.trajectories import trajectories

    if config.steps.budget < 1:
        raise unknown_value("steps.budget", config.steps.budget, "whole numbers from 1")
    results = _measured(config, suite, spec, ledger)
    checkpoints = results.checkpoints()
    audited = audit_file.suspects(results.folder)
    suspects = {} if config.view.suspects else audited.among(checkpoints.iter_rows(named=True))
    runs = by_run(found)
    known = [
        find_run(run)
        for run in trajectories(checkpoints, results.sequences(), suspects)
        if (run.model, run.seed) in runs
    ]
    intervals = [each.open_dates() for each in known]
    if not any(intervals):
        raise RequestError(
            "steps=refine: no change is detected in the stored results, so there is nothing to narrow; "
            "measure more checkpoints with steps=log or steps=all"
        )
    names = [(each.run.model, each.run.seed) for each in known]
    measured = [[int(step) for step in each.run.steps] for each in known]
    proposals = propose(intervals, measured, [sorted(runs[name]) for name in names], config.steps.budget)
    if not proposals:
        raise Finished(
            "steps=refine: every detected change already lies between neighbouring checkpoints that exist; "
            "nothing to measure"
        )
    return sorted(
        (runs[names[each.run]][each.step] for each in proposals),
        key=lambda checkpoint: (names.index((checkpoint.model, checkpoint.seed)), checkpoint.step),
    )


def _measured(config: Config, suite: str, spec: MeasurementSpec, ledger: Ledger) -> Results:
    probe, conventions = spec.probe.label, spec.conventions.label
    try:
        return select_results(config.store, probe=probe, conventions=conventions, suite=suite, ledger=ledger)
    except RequestError as error:
        raise RequestError(
            f"steps=refine needs stored results of suite {suite} with this probe and these conventions, and "
            f"store={config.store} has none; run `tracker sweep` with steps=log first ({error})"
        ) from error
