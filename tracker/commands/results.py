"""Stored results as commands use them: which are chosen, which checkpoints are left out, where reports go."""

from pathlib import Path
from typing import TYPE_CHECKING

from tracker.atomic import save_json
from tracker.checkpoints.audit.file import suspects as suspects_of
from tracker.config import Config
from tracker.errors import StoreError
from tracker.store import Results, select_results

if TYPE_CHECKING:
    import polars as pl

    from tracker.analysis.assumptions import Limits
    from tracker.analysis.trajectories import Suspects


def chosen_results(config: Config) -> Results:
    """Open the stored results that ``view.*`` chooses."""
    view = config.view
    return select_results(config.store, probe=view.probe, conventions=view.conventions, suite=view.suite)


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
