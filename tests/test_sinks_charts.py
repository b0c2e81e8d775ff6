"""Custom charts of W&B: made once by the real client, over tables that every run really carries."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from loopback_wandb import ENTITY, LoopbackWandb, ServedRun
from sink_material import (
    HEADS as HEADS_OF_A_LAYER,
)
from sink_material import (
    LAYERS,
    no_wandb_of_the_user,  # noqa: F401  # a fixture that every test here uses
    only_run,
    store_one,
    wandb_server,  # noqa: F401  # the fixture `server`
)
from synthetic_store import SMALL, SMALL_STEPS, synthetic_analysis, write_store

from tracker.cli import run
from tracker.store import open_store
from tracker.wandb_sink.charts import HEADS, PHASES, Chart
from tracker.wandb_sink.workspace import build_workspace

pytestmark = pytest.mark.filterwarnings(
    "ignore:Pydantic V1 style:DeprecationWarning"
)  # wandb-workspaces' own
REQUEST = ["stream", "store=store", "workspace=true", "sink.histograms=false", "sink.artifact=false"]
FIELD = re.compile(r"\$\{field:(\w+)\}")


@pytest.fixture
def analysed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An analysed store of two small models in the current folder."""
    monkeypatch.chdir(tmp_path)
    folder = write_store(tmp_path / "store", SMALL[:2], SMALL_STEPS[::3], holes=False)
    (folder / "analysis.json").write_text(json.dumps(synthetic_analysis(SMALL[:2])))
    return folder


def rows_of(run: ServedRun, chart: Chart) -> list[dict[str, Any]]:
    """The rows of a chart's table, as the server got them."""
    kept = json.loads(run.files[run.summary[chart.table]["path"]])
    return [dict(zip(kept["columns"], row, strict=True)) for row in kept["data"]]


def panels(spec: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Section and configuration of every custom chart of a workspace."""
    sections = spec["section"]["panelBankConfig"]["sections"]
    return [(s["name"], p["config"]) for s in sections for p in s["panels"] if p["viewType"] == "Vega2"]


@pytest.mark.slow
def test_charts_are_made_once_and_open_their_sections(
    analysed: Path, server: LoopbackWandb, capsys: pytest.CaptureFixture[str]
):
    assert run(REQUEST) == 0
    assert run(REQUEST) == 0
    assert server.asked["CreateCustomChart"] == 2
    assert "chart" not in capsys.readouterr().out
    (view,) = server.views.values()
    found = panels(view["spec"])
    assert [(section, config["panelDefId"]) for section, config in found] == [
        ("Findings", f"{ENTITY}/{PHASES.name}"),
        ("Heads by layer", f"{ENTITY}/{HEADS.name}"),
        ("Heads by layer", f"{ENTITY}/{HEADS.name}"),
    ]
    for _, config in found:
        spec = server.charts[config["panelDefId"]]["spec"]
        assert spec["data"] == {"name": "wandb"}
        fields = set(FIELD.findall(json.dumps(spec)))
        assert fields <= set(config["fieldSettings"])
        (query,) = config["userQuery"]["queryFields"]
        (table,) = [each["args"][0]["value"] for each in query["fields"] if each["name"] == "summaryTable"]
        for each in server.runs.values():
            chart = PHASES if table == PHASES.table else HEADS
            assert set(config["fieldSettings"].values()) <= set(rows_of(each, chart)[0])
    assert {each["access"] for each in server.charts.values()} == {"PRIVATE"}


@pytest.mark.slow
def test_the_tables_hold_the_moves_and_the_heads_of_the_last_checkpoint(
    analysed: Path, server: LoopbackWandb
):
    assert run(REQUEST) == 0
    heads = open_store(analysed).heads().filter(step=SMALL_STEPS[::3][-1])
    for each in server.runs.values():
        model = each.name.split()[0]
        rows = rows_of(each, HEADS)
        mine = heads.filter(model=model).sort("layer", "head")
        assert [(row["layer"], row["head"]) for row in rows] == list(mine.select("layer", "head").iter_rows())
        assert [row["spectral_entropy"] for row in rows] == pytest.approx(mine["spectral_entropy"].to_list())
        moves = rows_of(each, PHASES)
        assert [row["move"] for row in moves] == ["exploratory", "specialisation"]
        for row in moves:
            assert row["run"] == each.name
            dates = [row[name] for name in ("earliest", "onset", "half", "end", "latest")]
            assert dates == sorted(dates)
            assert dates[0] >= 1


def test_a_value_that_does_not_exist_is_empty(
    tmp_path: Path, server: LoopbackWandb, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    store_one(tmp_path / "store", 8)
    assert run(REQUEST) == 0
    rows = rows_of(only_run(server), HEADS)
    assert len(rows) == LAYERS * HEADS_OF_A_LAYER
    assert rows[5]["previous_token_score"] is None
    assert PHASES.table not in only_run(server).summary, "not analysed"


def test_who_wants_no_maps_gets_no_table_of_heads(
    tmp_path: Path, server: LoopbackWandb, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    store_one(tmp_path / "store", 8)
    assert run([*REQUEST, "sink.maps=false"]) == 0
    assert HEADS.table not in only_run(server).summary


@pytest.mark.slow
def test_a_server_that_refuses_the_tables_gets_every_row(analysed: Path, server: LoopbackWandb):
    server.artifacts.refuse = True
    assert run(REQUEST) == 0
    assert sum(len(each.lines) for each in server.runs.values()) == 2 * len(SMALL_STEPS[::3])
    assert all(each.complete for each in server.runs.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("why", "charts"),
    [("permission denied for entity someone", 0), ("a chart named so exists already", 3)],
)
def test_a_server_that_makes_no_chart_costs_nothing_else(
    analysed: Path, server: LoopbackWandb, capsys: pytest.CaptureFixture[str], why: str, charts: int
):
    server.no_charts = why
    assert run(REQUEST) == 0
    said = capsys.readouterr().out.splitlines()
    (view,) = server.views.values()
    assert len(panels(view["spec"])) == charts
    assert sum(len(each.lines) for each in server.runs.values()) == 2 * len(SMALL_STEPS[::3])
    refusals = [line for line in said if "was not made" in line]
    if charts:
        assert refusals == []
        return
    names = (PHASES.name, HEADS.name)
    assert len(refusals) == 2
    for name, line in zip(names, refusals, strict=True):
        assert line.startswith(f"W&B chart {name} was not made: ")
        assert why in line
    server.no_charts = ""
    assert run(REQUEST) == 0
    (view,) = server.views.values()
    assert len(panels(view["spec"])) == 3


def drawn(chart: Chart, rows: list[dict[str, Any]], value: str = "spectral_entropy") -> dict[str, Any]:
    """The chart as W&B fills it in."""
    text = FIELD.sub(lambda name: value if name[1] == "value" else name[1], json.dumps(chart.spec))
    spec = json.loads(re.sub(r"\$\{string:\w+\}", value, text))
    return spec | {"data": {"name": "wandb", "values": rows}}


HEAD_ROWS = [
    {"run": name, "params": size, "step": 8, "layer": layer, "head": head, "spectral_entropy": value}
    for name, size in (("a seed 0", 10), ("b seed 0", 20))
    for layer, head, value in ((0, 0, 1.0), (0, 1, 2.0), (1, 0, None), (1, 1, 3.0))
]
PHASE_ROWS = [
    {"run": "a seed 0", "params": 10, "move": "exploratory", "pace": "abrupt", "earliest": 2, "onset": 3.5,
     "half": 8.0, "end": 20.0, "latest": 65},
    dict.fromkeys(("move", "pace", "earliest", "onset", "half", "end", "latest"))
    | {"run": "b seed 0", "params": 20},
]  # fmt: skip
BOTH = pytest.mark.parametrize(("chart", "rows"), [(PHASES, PHASE_ROWS), (HEADS, HEAD_ROWS)])


@BOTH
def test_the_specification_is_valid_vega_lite(chart: Chart, rows: list[dict[str, Any]]):
    altair = pytest.importorskip("altair")
    validate = pytest.importorskip("jsonschema").validate
    (schema,) = Path(altair.__file__).parent.rglob("vega-lite-schema.json")
    validate(drawn(chart, rows), json.loads(schema.read_text(encoding="utf-8")))


@BOTH
def test_vega_lite_draws_it(chart: Chart, rows: list[dict[str, Any]], capfd: pytest.CaptureFixture[str]):
    picture = pytest.importorskip("vl_convert").vegalite_to_svg(drawn(chart, rows))
    assert "ERROR" not in "".join(capfd.readouterr())
    assert "a seed 0" in picture
    assert "b seed 0" in picture
    expected = "#d98a00" if chart is PHASES else "#9a9a9a"
    assert expected in picture


def test_a_workspace_without_charts_has_none():
    spec: Any = build_workspace("someone", "tracker", ())._to_model()
    assert panels(spec.model_dump(by_alias=True, exclude_none=True)["spec"]) == []
