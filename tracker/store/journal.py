"""What live training reports beside its records: ``DIR/live/<suite>.<model>.seed-<seed>.json``.

Alerts, measurements that were left out and why, and what measuring has cost.
"""

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypedDict

from tracker.atomic import save_json
from tracker.side_files import read_typed, set_damaged_aside
from tracker.store.schema import safe_name


@dataclass
class Journal:
    """Of one training run, from its first day: a resumed run goes on in it."""

    suite: str
    model: str
    seed: int
    probe: str
    conventions: str
    alerts: list[dict[str, Any]] = field(default_factory=list)
    """Each with condition, steps, sentence and level."""
    skipped: list[dict[str, Any]] = field(default_factory=list)
    """Each with step and reason."""
    account: dict[str, Any] = field(default_factory=dict)
    """Seconds of measuring and of training, of the last start."""

    def path(self, folder: Path) -> Path:
        """Its file in a store's folder."""
        return folder / "live" / f"{safe_name(self.suite)}.{safe_name(self.model)}.seed-{self.seed}.json"

    def resumed(self, folder: Path, before: int) -> "Journal":
        """Return it with what an earlier start of the same run reported up to step ``before``."""
        set_damaged_aside(self.path(folder), JournalContent)
        earlier = _read(self.path(folder))
        if earlier is None or (earlier.probe, earlier.conventions) != (self.probe, self.conventions):
            return self
        self.alerts = [alert for alert in earlier.alerts if max(alert["steps"], default=0) <= before]
        self.skipped = [each for each in earlier.skipped if each["step"] <= before]
        return self

    def save(self, folder: Path) -> None:
        """Writes it.

        Raises:
            OSError: the folder cannot be written.
        """
        path = self.path(folder)
        path.parent.mkdir(exist_ok=True)  # never the store: it may have been moved away
        save_json(path, asdict(self))


class StoredAlert(TypedDict):
    """One alert, in the file."""

    condition: str
    steps: list[int]
    level: str
    sentence: str


class StoredSkip(TypedDict):
    """One step that was left out, in the file."""

    step: int
    reason: str


class JournalContent(TypedDict):
    """The whole file."""

    suite: str
    model: str
    seed: int
    probe: str
    conventions: str
    alerts: list[StoredAlert]
    skipped: list[StoredSkip]
    account: dict[str, Any]


def _read(path: Path) -> Journal | None:
    found = read_typed(path, JournalContent, None)
    return found and Journal(**{each.name: found[each.name] for each in fields(Journal)})


def live_alerts(
    folder: Path, probe: str | None = None, conventions: str | None = None
) -> list[dict[str, Any]]:
    """The alerts of every live run of a store, as they stand under ``alerts`` in ``analysis.json``.

    Args:
        folder: the store's.
        probe, conventions: only of runs measured so; None: of all.
    """
    journals = [journal for path in sorted(folder.glob("live/*.json")) if (journal := _read(path))]
    return [
        {"suite": each.suite, "model": each.model, "seed": each.seed, **alert}
        for each in journals
        if probe in (None, each.probe) and conventions in (None, each.conventions)
        for alert in each.alerts
    ]
