"""A custom metric stands in every table and view; what is wrong with it is reported."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import polars as pl
import pytest
import torch
import wandb_file
from live_material import PROBE, nano_model
from sink_material import no_wandb_of_the_user  # noqa: F401  # a fixture that tests here use
from suite_material import make_suite, start_sweep

import tracker
from tracker.errors import RequestError
from tracker.metrics.custom import trial_rows
from tracker.metrics.registry import (
    BUILT_IN,
    FILE,
    TAKEN,
    forget,
    head_columns,
    is_custom,
    load_metrics,
    process_registry,
    registered_identities,
)
from tracker.records import Conventions
from tracker.store import SCHEMAS, open_store
from tracker.views import dashboard_data, write_dashboard
from tracker.wandb_sink import SinkOptions, publish

OWN = '''
"""A metric of my own."""

import tracker


@tracker.metric(title="Largest <share>", unit="share", low=0, high=1, source="own")
def largest_share(rows):
    """Attention on the key that gets the most."""
    return rows.amax(-1)
'''


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "my_metrics.py"
    path.write_text(OWN)
    return path


def stored(folder: Path, steps: tuple[int, ...] = (0, 1)) -> None:
    with tracker.watch(nano_model(), PROBE, store=folder, name="mine", every=1, share=None) as watch:
        for step in steps:
            watch(step)
    assert watch.account.failed == 0, watch.account.sentences


def test_it_gets_columns_and_their_spread_equal_to_the_function(own: Path):
    load_metrics([own])
    model = nano_model().eval()
    measured = tracker.track(model, PROBE)
    probabilities = model(torch.from_numpy(PROBE), output_attentions=True, use_cache=False).attentions
    if not probabilities or probabilities[0] is None:
        model.set_attn_implementation("eager")
        probabilities = model(torch.from_numpy(PROBE), output_attentions=True).attentions
    wanted = torch.stack(probabilities, 1).amax(-1).mean(-1).double().detach().numpy()  # (S, L, H)
    heads = measured.heads.sort("layer", "head")
    assert heads["largest_share"].to_numpy() == pytest.approx(wanted.mean(0).ravel(), rel=1e-5)
    assert heads["largest_share_std"].to_numpy() == pytest.approx(wanted.std(0, ddof=1).ravel(), rel=1e-4)
    received = torch.stack(probabilities, 1).mean(-2).amax(-1).double().detach().numpy()
    assert heads["averaged_largest_share"].to_numpy() == pytest.approx(received.mean(0).ravel(), rel=1e-5)
    assert measured.sequences["largest_share"].to_numpy() == pytest.approx(wanted.mean((1, 2)), rel=1e-5)
    row = measured.summary.row(0, named=True)
    assert row["largest_share"] == pytest.approx(wanted.mean(), rel=1e-5)
    assert row["largest_share_std"] == pytest.approx(wanted.mean(0).std(ddof=1), rel=1e-4)
    assert {"largest_share_q25", "averaged_largest_share_q75"} <= set(row)
    assert row["reason"] is None


def test_it_stands_in_the_store_the_dashboard_and_wandb(own: Path, tmp_path: Path):
    load_metrics([own])
    stored(tmp_path / "store")
    results = open_store(tmp_path / "store")
    values = results.checkpoints().sort("step")["largest_share"].to_list()
    data = dashboard_data(results, None)
    (entry,) = [each for each in data["metrics"] if each["name"] == "largest_share"]
    assert (entry["title"], entry["unit"], entry["group"]) == ("Largest <share>", "share", "Custom metrics")
    assert entry["meaning"] == "Attention on the key that gets the most."
    assert "largest_share" in data["map_metrics"]
    assert "largest_share" in data["maps"]["scales"]
    (run,) = data["runs"]
    assert run["series"]["largest_share"]["mean"] == pytest.approx(values, rel=1e-3)
    page = write_dashboard(results, None, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Largest <share>" not in page
    publish(tmp_path / "store", SinkOptions(mode="offline", histograms=False, maps=False))
    (path,) = wandb_file.wandb_files(tmp_path / "store")
    rows = wandb_file.history(path)
    assert [row["largest_share"] for row in rows] == values
    assert "std/averaged_largest_share" in rows[0]


def test_another_process_knows_it_from_the_store_alone(own: Path, tmp_path: Path):
    load_metrics([own])
    stored(tmp_path / "store", (0,))
    code = (
        "import sys, tracker; from tracker.views import dashboard_data; "
        "data = dashboard_data(tracker.open_store(sys.argv[1]), None); "
        "print([each['title'] for each in data['metrics'] if each['group'].startswith('Custom')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "store")], text=True, capture_output=True, check=True
    )
    assert done.stdout.strip() == "['Largest <share>', 'Largest <share> (averaged)']"


def test_two_stores_that_describe_a_name_differently_keep_their_own_titles(tmp_path: Path):
    for title in ("First", "Second"):
        tracker.metric(lambda rows: rows.amax(-1), name="largest", title=title, unit=title.lower())
        stored(tmp_path / title, (0,))
        forget("largest")
    first, second = (open_store(tmp_path / title) for title in ("First", "Second"))
    assert process_registry() == BUILT_IN
    for title, results in (("First", first), ("Second", second), ("First", first)):
        assert results.registry.title_of("averaged_largest") == f"{title} (averaged)"
        (entry,) = [each for each in dashboard_data(results, None)["metrics"] if each["name"] == "largest"]
        assert (entry["title"], entry["unit"]) == (title, title.lower())
    assert "largest" not in head_columns()
    assert process_registry() == BUILT_IN


def test_a_store_that_lost_its_descriptions_still_shows_the_values(own: Path, tmp_path: Path):
    load_metrics([own])
    stored(tmp_path / "store", (0,))
    forget("largest_share")
    (tmp_path / "store" / FILE).unlink()
    metrics = dashboard_data(open_store(tmp_path / "store"), None)["metrics"]
    found = [each["title"] for each in metrics if is_custom(each["name"])]
    assert found == ["Largest share", "Largest share (averaged)"]


def test_results_with_and_without_it_never_mix(own: Path, tmp_path: Path):
    assert Conventions().label == "paper-c74c0b8d"  # what it was before there were own metrics
    stored(tmp_path / "store", (0,))
    without = tracker.track(nano_model(), PROBE).summary["conventions"].item()
    load_metrics([own])
    with_it = tracker.track(nano_model(), PROBE).summary["conventions"].item()
    own.write_text(OWN.replace("rows.amax(-1)", "rows.amax(-1).square()"))
    load_metrics([own])
    changed = tracker.track(nano_model(), PROBE).summary["conventions"].item()
    assert len({without, with_it, changed}) == 3
    assert tracker.track(nano_model(), PROBE, metrics=()).summary["conventions"].item() == without
    with tracker.watch(nano_model(), PROBE, store=tmp_path / "store", name="other", share=None) as watch:
        watch(0)
    with pytest.raises(RequestError, match="holds results of several conventions, which are never mixed"):
        open_store(tmp_path / "store")
    assert "largest_share" not in open_store(tmp_path / "store", conventions=without).heads().columns
    assert set(json.loads((tmp_path / "store" / FILE).read_text())) == {changed}
    # A store without it is read as ever where it is registered.
    assert dashboard_data(open_store(tmp_path / "store", conventions=without), None)["runs"]


def largest(k: int):
    return lambda rows: rows.topk(k).values.sum(-1)


class Largest:
    def __init__(self, k: int) -> None:
        self.k, self.other = k, object()

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.topk(self.k).values.sum(-1)

    def method(self, rows: torch.Tensor) -> torch.Tensor:
        return self(rows)


def take(rows: torch.Tensor, k: int) -> torch.Tensor:
    return rows.topk(k).values.sum(-1)


BOUND = {
    "closure": largest,
    "partial": lambda k: partial(take, k=k),
    "object": Largest,
    "method": lambda k: Largest(k).method,
    "default": lambda k: lambda rows, k=k: rows.topk(k).values.sum(-1),
}


@pytest.mark.parametrize("kind", BOUND)
def test_values_that_a_function_has_bound_tell_versions_apart(kind: str):
    identities = []
    for k in (2, 3, 2):
        tracker.metric(BOUND[kind](k), name="largest")
        identities += registered_identities()
    assert identities[0] == identities[2] != identities[1]


def test_identity_is_the_same_in_every_process():
    """A function without a source file, and an object, which show themselves by their address."""
    program = (
        "import tracker\nfrom functools import partial\n"
        "from tracker.metrics.registry import registered_identities\n"
        "class Own:\n    def __call__(self, rows): return (lambda r: r.amax(-1))(rows)\n"
        "def take(rows, of): return of(rows)\n"
        "tracker.metric(Own(), name='one')\ntracker.metric(partial(take, of=Own()), name='two')\n"
        "tracker.metric(lambda rows: (lambda r: r.amax(-1))(rows), name='three')\n"
        "print(registered_identities())"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", padding + program], text=True, capture_output=True, check=True
        ).stdout
        for padding in ("", "kept = [object() for _ in range(99999)]\n")
    }
    assert len(printed) == 1


def test_one_that_breaks_later_costs_its_own_columns_alone(tmp_path: Path):
    plain = tracker.track(nano_model(), PROBE)

    @tracker.metric(averaged=False)
    def picky(rows: torch.Tensor) -> torch.Tensor:
        """Falls over rows of more keys than it was tried on."""
        if rows.shape[-2] > 8:
            raise ArithmeticError("too many rows")
        return rows.sum(-1)

    @tracker.metric
    def fine(rows: torch.Tensor) -> torch.Tensor:
        return rows[..., 0]

    measured = tracker.track(nano_model(), PROBE)
    assert measured.summary["reason"].item() == (
        "metric picky failed, its columns are empty: ArithmeticError: too many rows"
    )
    assert measured.heads["picky"].null_count() == measured.heads.height
    assert measured.heads["fine"].null_count() == 0
    kept = [name for name in plain.heads.columns if name != "conventions"]
    assert measured.heads.select(kept).equals(plain.heads.select(kept), null_equal=True)
    assert measured.summary["status"].item() == "ok"


def undefined_first(rows: torch.Tensor) -> torch.Tensor:
    """NaN for rows that see a single key."""
    return torch.where((rows > 0).sum(-1) > 1, rows.amax(-1), torch.nan)


def test_rows_without_a_value_are_left_out_of_the_mean():
    tracker.metric(undefined_first)
    model = nano_model().eval()
    heads = tracker.track(model, PROBE).heads.sort("layer", "head")
    model.set_attn_implementation("eager")
    probabilities = torch.stack(model(torch.from_numpy(PROBE), output_attentions=True).attentions, 1)
    wanted = probabilities[..., 1:, :].amax(-1).mean((0, -1)).double().detach().numpy()
    assert heads["undefined_first"].to_numpy() == pytest.approx(wanted.ravel(), rel=1e-5)


COUNTER = iter(range(10**9))


WRONG = [
    (lambda rows: 1 / 0, r"bad fails the trial of running at 8 keys: ZeroDivisionError: division"),
    (lambda rows: rows.sum(), r"trial of shape at 8 keys: it gives \(\) for rows of shape \(2, 3, 8,"),
    (lambda rows: [1.0], r"trial of shape at 8 keys: it gives list for rows"),
    (lambda rows: rows.max(-1), r"not one value a row, \(2, 3, 8\); take its .values"),
    (lambda rows: rows.sum(-1).float(), r"trial of dtype at 8 keys: float64 gives torch.float32"),
    (lambda rows: -rows.sum(-1).log() / 0, r"trial of finite|trial of range"),
    (lambda rows: rows.sum(-1) * 3, r"trial of range at 8 keys: 3 is not in 0 to 1"),
    (lambda rows: rows.sum(-1) / rows.numel(), r"trial of batch at 8 keys: a row alone gives another"),
    (lambda rows: rows.mul_(2).sum(-1), r"trial of argument at 8 keys: it changes the rows"),
    (lambda rows: rows.sum(-1) / (2 + next(COUNTER)), r"trial of again at 8 keys: the same rows give"),
    (lambda rows: (rows.sum(-1) - 0.5) % 1e-7 * 1e6, r"trial of (precision|batch|range)"),
]


@pytest.mark.parametrize(("function", "message"), WRONG)
def test_what_is_wrong_with_it_is_reported_on_registration(function, message: str):
    with pytest.raises(RequestError, match=message):
        tracker.metric(function, name="bad", low=0, high=1)
    assert registered_identities() == ()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("loss", "metric=loss: a column of that name exists already"),
        ("layer", "metric=layer: a column of that name exists already"),
        ("Mine", "metric=Mine: invalid value; expected a name of small letters"),
        ("mine_std", "metric=mine_std: invalid value"),
        ("averaged_mine", "metric=averaged_mine: invalid value"),
    ],
)
def test_names_are_checked(name: str, message: str):
    with pytest.raises(RequestError, match=message):
        tracker.metric(lambda rows: rows.amax(-1), name=name)


def test_fields_of_the_description_are_checked():
    with pytest.raises(RequestError, match=r"tracker.metric=titel: invalid value; expected fields of name"):
        tracker.metric(lambda rows: rows.amax(-1), name="mine", titel="Mine")
    with pytest.raises(RequestError, match="metric mine: low=1 is not below high=0"):
        tracker.metric(lambda rows: rows.amax(-1), name="mine", low=1, high=0)


def test_no_metric_can_take_a_column_that_the_store_has():
    unmarked = {
        name.removeprefix("averaged_").removesuffix("_std").removesuffix("_q25").removesuffix("_q75")
        for schema in SCHEMAS.values()
        for name in schema
    }
    assert unmarked == TAKEN


def test_a_good_one_is_told_what_held():
    held = tracker.try_metric(undefined_first, low=0, high=1)
    assert set(held) == {"shape", "dtype", "finite", "range", "batch", "precision", "argument", "again"}
    assert held["range"] == "0 to 1"


def test_trial_rows_are_attention():
    rows = trial_rows(64)
    assert torch.allclose(rows.sum(-1), torch.ones(2, 3, 8, dtype=torch.float64))
    assert (rows[..., 0, 1:] == 0).all()
    assert rows.isfinite().all()


def test_a_unit_of_a_metric_that_is_not_here_says_so(own: Path):
    load_metrics([own])
    conventions = Conventions(metrics=registered_identities())
    forget("largest_share")
    from tracker.metrics.fused.signals import SignalPlan

    with pytest.raises(RequestError, match=r"metric largest_share-\w{8}: not registered in this"):
        SignalPlan.of(conventions, 64).custom  # noqa: B018


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "spectrum.metrics=.*my_metrics.py: invalid value; expected Python files that exist"),
        ("x = 1", "my_metrics.py: registers no metric; decorate one with @tracker.metric"),
        ("1 / 0", "my_metrics.py: ZeroDivisionError: division by zero"),
    ],
)
def test_files_are_checked(own: Path, content: str | None, message: str):
    own.unlink() if content is None else own.write_text(content)
    with pytest.raises(RequestError, match=message):
        load_metrics([own])


@pytest.mark.parametrize(
    "engine",
    [("engine=inline",), pytest.param(("engine.workers=2", "engine.threads=1"), marks=pytest.mark.slow)],
)
def test_a_sweep_measures_it_in_every_worker(own: Path, tmp_path: Path, engine: tuple[str, ...]):
    make_suite(tmp_path, [0, 1])
    checkpoints = tmp_path / "hub" / "lab" / "pythia-some"
    (checkpoints / "main").rename(tmp_path / "main")
    request = ("suite=folder", f"suite.path={checkpoints}", f"spectrum.metrics=[{own.name}]", *engine)
    process = start_sweep(tmp_path, "http://127.0.0.1:9", *request, repo="none")
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 0, said
    table = open_store(tmp_path / "tracker-store").checkpoints()
    assert table.filter(pl.col("largest_share").is_not_null()).height == 2
