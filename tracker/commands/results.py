"""Stored results as commands use them: which are chosen, which checkpoints are left out, where reports go."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tracker.atomic import save_json
from tracker.checkpoints.audit.file import suspects as suspects_of
from tracker.config import Config, Probe
from tracker.errors import RequestError, StoreError
from tracker.planning.resolve import DEFAULT_SEQUENCES, NANO_SEQUENCES, requested_probe
from tracker.records import Conventions
from tracker.store import Ledger, Results, require_store, select_results

if TYPE_CHECKING:
    import polars as pl

    from tracker.analysis.assumptions import Limits
    from tracker.analysis.trajectories import Suspects


def chosen_results(config: Config) -> Results:
    """Open the stored results that ``view.*`` chooses, else those that were measured as the request says.

    Raises:
        RequestError: no store there, nothing of that choice in it, or several probes or conventions of which
            the request names none.
    """
    view = config.view
    ledger = Ledger(require_store(config.store)).refreshed()
    records = [record for _, record in ledger.places if view.suite in (None, record.suite)]
    probe, conventions = view.probe, view.conventions
    if probe is None:
        probe = _asked("probe", {each.probe for each in records}, _probes(config), config.probe != Probe())
    if conventions is None:
        mine, usual = config.conventions.label, Conventions().label
        conventions = _asked("conventions", {each.conventions for each in records}, [mine], mine != usual)
    return select_results(config.store, probe=probe, conventions=conventions, suite=view.suite, ledger=ledger)


def _probes(config: Config) -> list[str]:
    """The request's probe, of as many sequences as its suite has and as other suites have."""
    return [requested_probe(config, number).label for number in (None, NANO_SEQUENCES, DEFAULT_SEQUENCES)]


def _asked(field: str, present: set[str], asked: Sequence[str], named: bool) -> str | None:
    """What of a column the request asks for; None where it says nothing of it and the store has none such.

    Raises:
        RequestError: the request names one that the store does not hold.
    """
    found = next((each for each in asked if each in present), None)
    if found is None and named and present:
        raise RequestError(
            f"{field}={asked[0]}: not in this store; measure it with `tracker sweep`, or choose from "
            f"{', '.join(sorted(present))} with view.{field}=..."
        )
    return found


def without_suspects(results: Results, config: Config) -> "tuple[pl.DataFrame, Suspects]":
    """Return the checkpoint table without suspect checkpoints, and those with the reason.

    With ``view.suspects=true`` none is left out.
    """
    import polars as pl

    checkpoints = results.checkpoints()
    if config.view.suspects:
        return checkpoints, {}
    suspects = suspects_of(results.folder).among(checkpoints.iter_rows(named=True))
    names = ["suite", "model", "seed", "step"]
    out = pl.DataFrame(list(suspects), schema=checkpoints.select(names).schema, orient="row")
    return checkpoints.join(out, on=names, how="anti"), suspects


def assumption_limits(config: Config) -> "Limits":
    """Return the limits at which ``validate.*`` raises an alert."""
    from tracker.analysis.assumptions import Limits

    given = vars(config.validate)
    return Limits(**{name: value for name, value in given.items() if name not in ("runs", "seed")})


def write_report(path: Path, content: object) -> None:
    """Write a report into the store as JSON.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        save_json(path, content)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error}; free it, or change store=") from error
