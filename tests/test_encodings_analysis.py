"""Position encodings side by side: planted differences are found, chance is not, and the page shows both."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from playwright.sync_api import Browser

from tests.synthetic_store import SMALL, Shape, write_store
from tests.views_browser import Visit, browsing, chromium, visiting
from tracker.analysis.encodings import (
    METRICS,
    OWN_BODY,
    compare_encodings,
    differences,
    encoding_groups,
)
from tracker.analysis.schema import Phase, RunPhases
from tracker.analysis.trajectories import Trajectory
from tracker.cli import run as run_cli
from tracker.console.comparison_tables import shown_steps
from tracker.nano.encoding import OWN_BODY as TRAINED_WITH_OWN_BODY
from tracker.store import open_store
from tracker.views.dashboard import write_dashboard

STEPS = np.array([0, 1, 2, 4, 8, 16])
FACTS = {"n_layers": 4, "n_heads": 4, "d_model": 64, "params_non_embedding": 200_000}
ENCODINGS = {
    ("s", "m"): "rotary",
    ("s", "m-alibi"): "alibi",
    ("s", "m-none"): "none",
    ("s", "m-bloom"): "alibi",
}


def run(model: str, seed: int, shift: float, noise: float = 0.01, **facts: int) -> Trajectory:
    """Runs of one seed share their scatter, as those of one start and one order of batches do."""
    shared = np.random.default_rng(seed).normal(0, 0.3, len(STEPS))
    own = np.random.default_rng([seed, len(model)]).normal(0, noise, (len(METRICS), len(STEPS)))
    values = {name: 2 + shared + own[i] for i, name in enumerate(METRICS)}
    values["spectral_entropy"] = values["spectral_entropy"] + shift * STEPS / STEPS[-1]
    return Trajectory("s", model, seed, STEPS, STEPS * 10.0, values, {}, FACTS | facts, ())


def suite(shift: float, seeds: int = 4, noise: float = 0.01) -> list[Trajectory]:
    shifts = {"m": 0.0, "m-alibi": shift, "m-none": 0.0, "m-bloom": shift}
    return [run(model, seed, by, noise) for model, by in shifts.items() for seed in range(seeds)]


def test_models_of_one_shape_stand_together_with_rotary_first_and_other_bodies_last():
    runs = [*suite(0.0), run("l", 0, 0.0, d_model=128)]
    (group,) = encoding_groups(runs, ENCODINGS | {("s", "l"): "rotary"})
    assert [each.model for each in group] == ["m", "m-alibi", "m-none", "m-bloom"]
    assert [each.own_body for each in group] == [False, False, False, True]
    assert encoding_groups(runs[:4], ENCODINGS) == []
    assert set(OWN_BODY) == set(TRAINED_WITH_OWN_BODY)


def test_a_planted_difference_is_found_within_seeds_though_seeds_scatter_more():
    (group,) = encoding_groups(suite(0.5), ENCODINGS)
    found = differences(group)
    matter = {(each.model, each.metric) for each in found if each.matters}
    assert matter == {("m-alibi", "spectral_entropy"), ("m-bloom", "spectral_entropy")}
    alibi = next(each for each in found if (each.model, each.metric) == ("m-alibi", "spectral_entropy"))
    assert alibi.half is not None
    assert abs(alibi.difference - 0.5) < alibi.half
    assert group[1].values("spectral_entropy")[:, -1].std() > 2 * alibi.half


def test_of_no_difference_few_are_claimed():
    """Families of 18 comparisons of nothing: at 5 % for all of them, about one in 20 may claim any."""
    claimed = 0
    for first in range(0, 200, 4):
        runs = [
            run(model, seed, 0.0, noise=1.0)
            for model in ("m", "m-alibi", "m-none", "m-bloom") for seed in range(first, first + 4)
        ]  # fmt: skip
        (group,) = encoding_groups(runs, ENCODINGS)
        claimed += any(each.matters for each in differences(group))
    assert claimed <= 7


def test_one_seed_claims_nothing_and_says_so():
    entry = compare_encodings(suite(5.0, seeds=1), ENCODINGS, [])[0]
    assert not any(each.matters for each in entry.differences)
    assert "one seed cannot separate a difference from chance" in entry.sentences[0]


def test_a_model_that_cannot_be_compared_is_named():
    """One seed in common, or none: not the same as no difference."""
    runs = [each for each in suite(0.0) if (each.model, each.seed) not in {("m-alibi", s) for s in (1, 2, 3)}]
    runs = [replace(each, seed=each.seed + 9) if each.model == "m-none" else each for each in runs]
    told = compare_encodings(runs, ENCODINGS, [])[0].sentences[0]
    assert told.count("not tested, fewer than two seeds of the reference") == 2
    assert "m-alibi: not tested" in told
    assert "m-none: not tested" in told


def test_nothing_is_said_of_before_training_where_step_0_is_not_measured():
    runs = [
        replace(each, steps=each.steps[2:], metrics={name: v[2:] for name, v in each.metrics.items()})
        for each in suite(0.5)
    ]
    for measured, said in ((runs, False), (suite(0.5), True)):
        (entry,) = compare_encodings(measured, ENCODINGS, [])
        assert any("before training" in sentence for sentence in entry.sentences) == said


def test_the_end_is_the_last_step_that_all_share():
    """A run that was trained on, alone, has another end."""
    runs = suite(0.5)
    runs = [
        each if each.model == "m" else
        replace(each, steps=each.steps[:-1], metrics={name: v[:-1] for name, v in each.metrics.items()})
        for each in runs
    ]  # fmt: skip
    sentences = compare_encodings(runs, ENCODINGS, [])[0].sentences
    assert any("Spectral entropy: from" in each and "at step 8;" in each for each in sentences)


def test_shares_and_bases_of_rotary_stand_together_and_are_told_apart():
    names = ("m", "m-rotary100", "m-rotary100base500")
    runs = [run(model, seed, 0.5) for model in names for seed in range(2)]
    encodings = {("s", each.model): "rotary" for each in runs}
    (entry,) = compare_encodings(runs, encodings, [])
    assert tuple(each.model for each in entry.models) == names
    (told,) = (each for each in entry.sentences if each.startswith("Spectral entropy: from"))
    assert told.count("(m-rotary100") + told.count("(m)") == 4
    assert compare_encodings([replace(each, model=each.model[:3]) for each in runs[:2]], encodings, []) == []


def test_bodies_of_their_own_alone_are_compared_without_a_word_on_encodings():
    runs = [run(model, seed, 0.5) for model in ("m-gpt2", "m-bloom") for seed in range(2)]
    (entry,) = compare_encodings(runs, {("s", "m-gpt2"): "gpt2", ("s", "m-bloom"): "bloom"}, [])
    assert entry.sentences[-1].startswith("m-bloom and m-gpt2: bodies of their own")


@pytest.mark.parametrize(
    ("with_it", "told"),
    [
        ({"m", "m-alibi"}, "rotary is not needed for it: alibi shows it too"),
        ({"m"}, "only rotary shows it"),
        ({"m-none"}, "rotary does not show it in most of its seeds; no positional encoding shows it"),
        (set(), "no encoding shows it"),
    ],
)
def test_the_answer_is_told_whichever_way_it_comes_out(with_it, told):
    runs = suite(0.5)
    phases = [
        RunPhases("s", each.model, each.seed, phases=(Phase("exploratory", 0, 1),) * (each.model in with_it))
        for each in runs
    ]
    (entry,) = compare_encodings(runs, ENCODINGS, phases)
    assert any("exploratory" in sentence and told in sentence for sentence in entry.sentences)
    assert any("Spectral entropy: from" in sentence for sentence in entry.sentences)


def test_steps_of_the_table_are_spread_over_training():
    assert shown_steps([0, 1, 2]) == [0, 1, 2]
    assert shown_steps([0, *(2**k for k in range(10)), 600, 800, 1000]) == [0, 4, 16, 64, 256, 1000]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plausible store of three encodings, three seeds each: ALiBi's planted phase is the same."""
    folder = tmp_path_factory.mktemp("encodings") / "store"
    size = SMALL[1]
    names = {"0.2m": "rotary", "0.2m-alibi": "alibi", "0.2m-none": "none"}
    shapes = [Shape(name, size.layers, size.heads, size.d_model, size.non_embedding) for name in names]
    write_store(folder, shapes, (0, 4, 16, 64, 256, 512, 1000, 4000), seeds=3, holes=False)
    for path in folder.glob("checkpoints/**/checkpoint.parquet"):
        table = pl.read_parquet(path)
        encoding = names[table["model"][0]]
        table.with_columns(position_encoding=pl.lit(encoding)).write_parquet(path)
        (path.parent / "SHA256SUMS").unlink()
    return folder


def test_compare_prints_the_table_and_writes_what_it_found(store: Path, capfd: pytest.CaptureFixture[str]):
    assert run_cli(["compare", "compare.by=encoding", f"store={store}"]) == 0
    told = capfd.readouterr().out
    assert "0.2m (rotary)" in told
    assert "Spectral entropy" in told
    report = json.loads((store / "compare.json").read_text())
    (entry,) = report["encodings"]
    assert [each["model"] for each in entry["models"]] == ["0.2m", "0.2m-alibi", "0.2m-none"]
    checkpoints = open_store(store).checkpoints().filter(model="0.2m-alibi")
    last = checkpoints.filter(step=checkpoints["step"].max())["spectral_entropy"]
    assert entry["models"][1]["metrics"]["spectral_entropy"]["mean"][-1] == pytest.approx(last.mean())


def test_models_of_one_size_are_no_sizes(store: Path):
    from tracker.analysis import analyse

    results = open_store(store)
    report = analyse(results.checkpoints(), results.sequences())
    assert len(report.encodings) == 1
    assert {model for each in report.thresholds for model in each.models} <= {"0.2m"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nano", "encodings=[polar]"], "encodings=polar: invalid value; expected one of rotary"),
        (["nano", "encodings=[]"], "encodings=[]: nothing to train"),
        (["nano", "encodings=[alibi,alibi]"], "one is named twice"),
        (["sweep", "suite=pythia", "encodings=[alibi]"], "only suite=nano is trained here"),
        (["compare", "compare.by=colour"], "compare.by=colour: invalid value; expected one of model"),
    ],
)
def test_a_wrong_request_is_one_line_and_leaves_nothing(arguments, told, tmp_path: Path, capfd):
    assert run_cli([*arguments, f"store={tmp_path / 'new'}"]) == 2
    error = capfd.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_store_of_one_encoding_is_refused_with_what_to_do(tmp_path: Path, capfd):
    write_store(tmp_path / "one", SMALL[:1], steps=(0, 1, 2), holes=False)
    assert run_cli(["compare", "compare.by=encoding", f"store={tmp_path / 'one'}"]) == 2
    assert "no two models of one suite and shape differ" in capfd.readouterr().err


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@browsing
def test_the_page_shows_encodings_and_roles(browser: Browser, store: Path):
    from tracker.analysis import analyse
    from tracker.analysis.roles import COLUMNS, head_roles

    results = open_store(store)
    found = analyse(results.checkpoints(), results.sequences())
    roles = head_roles(results.heads(COLUMNS), results.checkpoints())
    report = replace(found, roles=tuple(roles)).to_dict()
    path = write_dashboard(results, report, store / "page.html")
    with visiting(browser) as visit:
        _looked_at(visit, path, report)


def _looked_at(visit: Visit, path: Path, report: dict) -> None:
    visit.open(path)
    (entry,) = report["encodings"]
    curves = [trace for trace in visit.plotted("encodings-plot") if trace.get("name")]
    assert [trace["name"] for trace in curves] == ["rotary", "alibi", "none"]
    assert curves[1]["y"] == pytest.approx(
        entry["models"][1]["metrics"]["spectral_entropy"]["mean"], rel=1e-3
    )
    assert visit.page.locator("#encodings-table tbody tr").count() == 3
    assert visit.page.locator("#encodings-said li").count() == len(entry["sentences"])
    assert visit.page.locator("#encodings-said").evaluate("each => each.scrollWidth <= each.clientWidth")
    visit.page.select_option("#em", "frequency_selectivity")
    visit.link("em=frequency_selectivity")
    visit.until("#encodings-title", "Frequency selectivity of 3 position encodings, mean over seeds")
    key = visit.chosen("#role-run")
    told = next(each for each in report["roles"] if f"{each['suite']}/{each['model']}/{each['seed']}" == key)
    visit.until("#roles-sentence", told["sentence"])
    drawn = {trace["name"]: trace["y"] for trace in visit.plotted("roles-plot")}
    assert drawn == {name: counts for name, counts in told["counts"].items() if any(counts)}
    named = [head for head in told["heads"] if head["birth"]]
    assert visit.page.locator("#roles-table tbody tr").count() == len(named)
    assert not visit.complaints
    assert not visit.outside()
