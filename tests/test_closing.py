"""What a sweep ends with: at most 25 lines, whatever was found, at every width of a terminal."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import here  # noqa: F401  # a fixture
from rich.console import Console
from synthetic_store import PYTHIA, PYTHIA_STEPS, SMALL, SMALL_STEPS, Shape, write_store

from tracker.analysis import analyse
from tracker.analysis.context import HEAD_COLUMNS
from tracker.analysis.schema import AnalysisReport, Condition
from tracker.analysis.text.closing import findings, model_rows
from tracker.cli import run
from tracker.console.closing import MOST_LINES, print_closing
from tracker.store import open_store

MANY = tuple(replace(SMALL[0], model=f"{size}-is-a-model-with-a-long-name", non_embedding=size) for size in
             range(30_000, 930_000, 60_000))  # fmt: skip
STORES = {
    "one": (SMALL[:1], SMALL_STEPS, 1),
    "three": (SMALL, SMALL_STEPS, 1),
    "seeds": (SMALL, SMALL_STEPS, 3),
    "whole": (PYTHIA[:1], PYTHIA_STEPS[::3], 1),
    "ten": (PYTHIA, (0, 8, 64, 256, 512, 1000, 8000, 143000), 1),
    "many": (MANY, (0, 128, 1000), 1),
}
LACKING = [("Unmeasured", f"70m seed 0 step {step}: out of memory; reduce engine.workers") for step in (1, 2)]
PLACES = [("Look", "store/dashboard.html"), ("Numbers", "store/analysis.json"), ("W&B", "nothing"),
          ("Next", "the same command again")]  # fmt: skip


@pytest.fixture(scope="module", params=STORES)
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AnalysisReport:
    shapes, steps, seeds = STORES[request.param]
    folder = write_store(tmp_path_factory.mktemp("closing"), shapes, steps, seeds=seeds, holes=False)
    results = open_store(folder)
    return analyse(results.checkpoints(), results.sequences(), results.heads(HEAD_COLUMNS))


def closing(report: AnalysisReport, width: int | None, alerts: int = 0) -> list[str]:
    file = io.StringIO()
    terminal = {} if width is None else {"force_terminal": True, "color_system": None, "width": width}
    alert = Condition("s", "m", 0, "spread", (1,), 0.1, 0.2, passed=False, sentence="too small")
    print_closing(Console(file=file, **terminal), "heading", replace(report, alerts=(alert,) * alerts),
                  LACKING, PLACES)  # fmt: skip
    return file.getvalue().splitlines()


@pytest.mark.parametrize("width", [100, 80, None])
def test_it_takes_25_lines_of_the_terminals_width_and_names_every_model_or_how_many_more(
    report: AnalysisReport, width: int | None
):
    lines = closing(report, width, alerts=3)
    assert len(lines) <= (MOST_LINES if width != 80 else MOST_LINES + 4)
    assert max(map(len, lines)) <= (width or 100)
    rows = model_rows(report)
    shown = sum(any(line.startswith(row.model[:20]) for line in lines) for row in rows)
    left = next((int(line.split()[2]) for line in lines if line.startswith("... and ")), 0)
    assert left == 0 if len(rows) < 10 else "tracker analyse lists them" in "".join(lines)
    assert shown + left == len(rows)
    assert shown >= min(len(rows), 6 if width != 80 else 4)
    for word in ("Phases", "Unmeasured", "Alerts", "Look", "Numbers", "W&B", "Next"):
        assert any(line.startswith(word) for line in lines), word


def test_a_row_says_which_transition_between_which_steps_and_from_which_value_to_which(
    report: AnalysisReport,
):
    for row in model_rows(report):
        entry = next(each for each in report.phases if each.model == row.model)
        if len(entry.steps) < 5:
            assert row.transition in ("exploratory", "none beyond noise")  # of three checkpoints no pace
        else:
            assert row.transition.startswith("exploratory")
        assert row.half.startswith("(") == (row.transition != "none beyond noise")
        for levels, falls in ((row.selectivity, True), (row.entropy, False)):
            first, last = map(float, levels.split(" -> "))
            assert (last < first) == falls


def test_a_store_in_which_nothing_is_measured_says_so():
    report = AnalysisReport.from_dict({"phases": [{"suite": "s", "model": "m", "seed": 0}]})
    lines = closing(report, 100)
    assert any(line.split()[:3] == ["m", "not", "measured"] for line in lines)
    assert ("Phases", "No checkpoint is measured.") in findings(report)
    assert findings(AnalysisReport())[0] == ("Phases", "No checkpoint is measured.")
    assert any(line.startswith("Look") for line in closing(AnalysisReport(), 100))


def test_analyse_prints_the_sentences_in_full_and_a_table_of_what_moves_instead_of_paragraphs(
    here: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
):
    write_store(here / "tracker-store", SMALL[:2], SMALL_STEPS, holes=False)
    assert run(["analyse"]) == 0
    said = capsys.readouterr().out
    report = AnalysisReport.from_dict(json.loads((here / "tracker-store/analysis.json").read_text()))
    assert report.phases[0].sentence in said
    assert "Around the transition" in " ".join(report.summary)
    assert "Around the transition" not in said
    assert "what else moves" in said
    loss = report.lead_lag[0].covariates["loss"]
    row = ["loss", f"{loss.start:.3g}", "->", f"{loss.finish:.3g}"]
    assert row in [line.split()[:4] for line in said.splitlines()]
    assert said.count("Temporal order does not imply causation.") == 1


def test_an_unwritten_name_of_a_model_is_text_and_not_markup():
    shape = Shape("[b]m[/b]", 2, 4, 48, 56_000)
    report = AnalysisReport.from_dict({"phases": [{"suite": "s", "model": shape.model, "seed": 0}]})
    assert any(shape.model in line for line in closing(report, 100))
