"""``tracker compare``: models side by side, against the paper, and two stores."""

import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from tests.synthetic_store import SMALL, write_store
from tracker.analysis.comparison import Column, Sample, archetype, difference
from tracker.analysis.comparison_report import ComparedAt, Tables, choose_steps
from tracker.analysis.comparison_report import compare_models as report_models
from tracker.analysis.comparison_timing import model_transitions
from tracker.analysis.paper_ranges import among_paper, paper_range, place_among
from tracker.analysis.paper_tables import against_paper, in_words
from tracker.analysis.synthetic import SyntheticRun, log_steps, noisy_samples, stored_tables
from tracker.analysis.text.comparison import paper_sentences, range_sentences, timing_sentences
from tracker.analysis.trajectories import trajectories
from tracker.cli import run
from tracker.commands.comparison import compare_models, compare_stores
from tracker.config import Compare
from tracker.console.comparison_tables import comparison_tables
from tracker.console.paper_tables import paper_tables
from tracker.errors import RequestError
from tracker.store import open_store
from tracker.views import compare_figure

STEPS = (0, 64, 512, 1000, 4000)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("compare"), SMALL, STEPS, seeds=2, holes=False)


def test_models_stand_side_by_side_with_intervals(store):
    comparison = compare_models(open_store(store), Compare())
    found, report = comparison.models, comparison.to_dict()
    assert [(column.model, column.step, column.seeds) for column in found] == [
        ("0.05m", 4000, (0, 1)), ("0.2m", 4000, (0, 1)), ("0.8m", 4000, (0, 1)),
    ]  # fmt: skip
    entropy = found[0].samples["spectral_entropy"]
    assert entropy.half is not None
    assert entropy.spread is not None
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert {each["kind"].split(",")[0] for each in report["archetypes"]} <= {"uniform", "specialised"}
    assert any("half of the least in the paper's table 3" in each for each in report["sentences"])
    assert "The paper's tables name none of these models." in report["sentences"]
    assert report["sentences"][0].startswith("Transitions: 0.05m half way in (")
    console = Console(width=160, record=True)
    console.print(*comparison_tables(found))
    assert "Frequency selectivity" in console.export_text()
    assert len(compare_figure(report).axes) == 1


def test_transitions_stand_side_by_side_with_their_order():
    steps, runs, rng = log_steps(16), {}, np.random.default_rng(0)
    for model, late in {"small": 8, "large": 4, "still": None}.items():
        rise = 0 * steps if late is None else 1 / (1 + np.exp(-4 * (np.log2(steps + 1.0) - late)))
        curves = {"spectral_entropy": 2 + rise, "frequency_selectivity": 0.7 - 0.5 * rise}
        runs[model, 0] = SyntheticRun(steps, noisy_samples(curves, 8, rng, error=0.01), ())
    tables = stored_tables(runs, {"small": 10, "large": 20, "still": 30})
    small, large, still = model_transitions(trajectories(*tables))
    assert small.structure is not None
    assert (small.structure.half.step_low, small.structure.half.step_high) in {(128, 256), (256, 512)}
    assert set(small.moves) == {"spectral_entropy", "frequency_selectivity"}
    assert large.lag is not None
    assert large.lag.verdict == "before"
    assert large.lag.interval is not None
    assert large.lag.interval[0] <= -4 <= large.lag.interval[1]
    assert (still.structure, still.moves, still.lag) == (None, {}, None)
    sentence = timing_sentences([small, large, still])[0]
    assert " octaves earlier than that of small (spectral entropy rises 2 -> 3" in sentence
    assert sentence.endswith("; none beyond noise in still.")


def test_equal_tokens_and_equal_steps(store):
    found = compare_models(open_store(store), Compare(at="tokens", tokens=600 * 2048)).models
    assert {column.step for column in found} == {512}
    found = compare_models(open_store(store), Compare(at="step", step=64)).models
    assert {column.step for column in found} == {64}
    with pytest.raises(RequestError, match=r"^compare.step=7: not measured in 0.05m; .*; nearest: 0, 64"):
        compare_models(open_store(store), Compare(at="step", step=7))
    with pytest.raises(RequestError, match=r"^compare.tokens=-1: 0.05m has no checkpoint of so few tokens$"):
        compare_models(open_store(store), Compare(at="tokens", tokens=-1))


def test_one_model_stands_beside_the_paper_alone(tmp_path):
    report = compare_models(open_store(write_store(tmp_path, SMALL[:1], STEPS, holes=False)), Compare())
    assert {each.model for each in report.placed} == {"0.05m"}
    assert any(each.startswith("One model is measured; measure another") for each in report.sentences)
    assert any("0.05m among the paper's models of 410M and more" in each for each in report.sentences)


def test_a_store_without_a_measurement_says_so(store):
    found = open_store(store)
    tables = Tables("empty", found.checkpoints().clear(), found.sequences().clear())
    with pytest.raises(RequestError, match=r"^empty: nothing measured to compare; run `tracker sweep` first"):
        report_models(tables, ComparedAt())


def test_the_papers_models_of_410m_and_more_span_a_range():
    """Numbers of tables 6 and 3 by hand; pythia-2.8b and 12b stand in both and count once."""
    entropy = paper_range("spectral_entropy")
    values = [2.631, 2.655, 3.786, 2.764, 2.783, 2.492, 2.370, 2.244, 2.443, 2.495]
    assert (entropy.models, entropy.least, entropy.largest) == (10, 2.244, 3.786)
    assert entropy.middle == pytest.approx(tuple(np.quantile(values, (0.25, 0.75))))
    assert entropy.small == (2.279, 3.018)
    assert paper_range("window_entropy_16").small is None
    places = [place_among(value, entropy) for value in (2.6, 2.9, 2.0, 4.0)]
    assert places == ["middle half", "range", "below", "above"]


def test_a_model_that_the_paper_does_not_name_is_placed_on_both_signals():
    samples = {
        "averaged_spectral_entropy": Sample(2.7, 0.1, spread=0.68),
        "spectral_entropy": Sample(3.65, spread=0.25),
    }
    columns = [Column("folder", name, (0,), 0, float("nan"), samples) for name in ("mine", "pythia-70m")]
    placed = among_paper(columns, named=["pythia-70m"])
    assert [(each.model, each.metric, each.place) for each in placed] == [
        ("mine", "averaged_spectral_entropy", "middle half"),
        ("mine", "averaged_spectral_entropy_std", "range"),
        ("mine", "spectral_entropy", "range"),
        ("mine", "spectral_entropy_std", "below"),
    ]
    assert range_sentences(placed) == [
        "mine among the paper's models of 410M and more (tables 1, 2, 3 and 6): averaged 1 of 2 metrics in "
        "their middle half, 1 more in their range, 0 outside; rows 0 of 2 metrics in their middle half, 1 "
        "more in their range, 1 outside (spectral_entropy_std)."
    ]
    assert archetype(columns[0]).entropy_over_heads == 0.68


def test_a_narrow_terminal_shows_every_model_beside_the_paper(store):
    comparison = compare_models(open_store(store), Compare())
    console = Console(width=80, record=True)
    for table in paper_tables(comparison.placed, console.width):
        console.print(table)
    told = console.export_text()
    assert all(f"{each.model}\n" in told for each in comparison.models)
    assert all(f"{each.ours:.3g}" in told for each in comparison.placed)


def test_models_without_a_shared_step_say_so():
    from tests.test_analysis_report import nano_tables
    from tracker.analysis import trajectories

    runs = trajectories(*nano_tables())
    with pytest.raises(
        RequestError, match=r"^compare.at=step: the models share no measured step; measure one"
    ):
        choose_steps([replace(runs[0], steps=runs[0].steps + 100_001), runs[1]], ComparedAt("step"))


def test_paired_differences_are_surer_than_unpaired_ones():
    rng = np.random.default_rng(0)
    hard = rng.normal(size=32)
    one, two = (Sample(0.0, draws=hard + 0.1 * rng.normal(size=32)) for _ in range(2))
    few = Sample(0.0, draws=hard[:16])
    _, paired = difference(one, two)
    _, unpaired = difference(one, few)
    assert paired is not None
    assert unpaired is not None
    assert paired < unpaired / 4
    assert difference(one, replace(two, draws=None))[1] is None


@pytest.mark.parametrize(
    ("ours", "half", "theirs", "words"),
    [
        (1.0, 0.2, 1.1, "agrees within its interval"), (1.0, 0.01, 1.02, "near (-2.0%)"),
        (1.5, None, 1.0, "50% larger"),
        (0.5, None, 1.0, "50% smaller"), (3.0, None, 1.0, "3.0 times as large"),
        (0.1, None, 0.0, "0.1 instead of 0"),
    ],
)  # fmt: skip
def test_deviations_in_words(ours, half, theirs, words):
    assert in_words(ours, half, theirs) == words


def test_models_of_the_paper_are_set_against_its_tables():
    samples = {"averaged_scale_sensitivity_0.5": Sample(0.07, 0.001)}
    rows = against_paper([Column("pythia", "EleutherAI/pythia-70m", (0,), 143000, float("nan"), samples)])
    assert [(row.table, row.paper) for row in rows] == [("paper_table6_scaling", 0.152)]
    assert "arXiv 2410.18067v4 Table 6" in rows[0].source
    told = paper_sentences(rows)
    assert told[0].endswith("scale sensitivity at 0.5x (averaged) 0.07 against 0.152: 54% smaller.")
    assert "tables 5 and 6 differ on the same final 6.9b" in told[1]


def test_two_stores_are_compared_checkpoint_by_checkpoint(store, tmp_path):
    same = compare_stores(open_store(store), open_store(store))
    assert all(row.same for row in same.checkpoints)
    assert "spectral entropy: the same at all 30 checkpoints." in same.sentences
    other = write_store(tmp_path / "other", [replace(SMALL[0], d_model=50)], STEPS, holes=False)
    apart = compare_stores(open_store(store), open_store(other))
    assert {(row.model, row.seed) for row in apart.checkpoints} == {("0.05m", 0)}
    assert any("differs at 5 of 5 checkpoints" in sentence for sentence in apart.sentences)
    none = write_store(tmp_path / "none", [replace(SMALL[0], model="else")], STEPS, holes=False)
    with pytest.raises(RequestError, match=r"^compare.other: the two stores share no measured checkpoint"):
        compare_stores(open_store(store), open_store(none))


def test_the_command_writes_its_table_text_and_figures(store, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["tracker"])

    def compared(*arguments: str) -> int:
        return run(["compare", f"store={store}", *arguments])

    assert compared(f"figures={tmp_path / 'figures'}") == 0
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == [
        "archetypes.pdf", "archetypes.png", "archetypes.svg",
    ]  # fmt: skip
    assert json.loads((store / "compare.json").read_text())["at"] == "end"
    assert "Frequency selectivity" in capsys.readouterr().out
    assert compared(f"compare.other={store}") == 2
    assert "is this store itself; choose another folder" in capsys.readouterr().err
    assert compared("compare.at=loss") == 2
    assert "compare.at=loss: invalid value; expected one of end, step, tokens" in capsys.readouterr().err
