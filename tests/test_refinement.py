"""``steps=refine``: which checkpoints it asks for, and that suspect ones lead it nowhere."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.synthetic_store import PROBE, SMALL, SMALL_STEPS, unit_of, write_store
from tracker.checkpoints.audit import file as audit_file
from tracker.checkpoints.audit.findings import Finding
from tracker.errors import RequestError
from tracker.planning.plan import MeasurementSpec
from tracker.planning.schedule import refined
from tracker.records import Conventions
from tracker.store import Store

MEASURED = [0, 1, 4, 16, 32, 64, 256, 1000, 4000, 8000, 16000]


def asked(store: Path, budget: int = 6, suspects: bool = False) -> list[tuple[str, int]]:
    """Model and step of what is to be measured next."""
    config = SimpleNamespace(
        store=store, steps=SimpleNamespace(budget=budget), view=SimpleNamespace(suspects=suspects)
    )
    there = [unit_of("nano", shape, 0, step).checkpoint for shape in SMALL for step in SMALL_STEPS]
    spec, ledger = MeasurementSpec(PROBE, Conventions()), Store(store).recorded()
    found = refined(config, there, "nano", spec, ledger)  # pyright: ignore[reportArgumentType]
    return [(each.model, each.step) for each in found]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("refine"), SMALL, MEASURED, holes=False)


def test_steps_between_measured_ones_are_asked_for_where_changes_lie(store: Path):
    found = asked(store)
    assert 0 < len(found) <= 6
    assert {step for _, step in found} <= set(SMALL_STEPS) - set(MEASURED)
    assert len(asked(store, budget=1)) == 1


def test_suspect_checkpoints_do_not_decide_what_is_measured_next(store: Path):
    name, *others = sorted({model for model, _ in asked(store, budget=99)})
    assert others
    shape = next(each for each in SMALL if each.model == name)
    doubted = [unit_of("nano", shape, 0, step).checkpoint for step in MEASURED[1:]]
    findings = [
        Finding(each.step, "same-weights", "doubted", "main", revision=each.revision, commit=each.commit)
        for each in doubted
    ]
    audit = audit_file.RepoAudit(doubted[0].location, tuple(MEASURED), tuple(findings))
    audit_file.record(store, lambda before: [audit])
    assert name in {model for model, _ in asked(store, budget=99, suspects=True)}
    assert name not in {model for model, _ in asked(store, budget=99)}


def test_an_empty_store_says_what_to_do_first(tmp_path: Path):
    with pytest.raises(RequestError, match="`tracker sweep` with steps=log first"):
        asked(tmp_path)
