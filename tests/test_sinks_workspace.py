import json
import re
from pathlib import Path
from typing import Any

import pytest
from loopback_wandb import ENTITY, LoopbackWandb
from sink_material import (
    no_wandb_of_the_user,  # noqa: F401  # a fixture that every test here uses
    store_one,
    wandb_server,  # noqa: F401  # the fixture `server`
)

import tracker.views
from tracker.cli import run
from tracker.errors import TrackerError
from tracker.metrics.registry import checkpoint_columns
from tracker.store import Store
from tracker.wandb_sink import SinkOptions, publish, require_server, save_workspace
from tracker.wandb_sink.findings import first_step_of, transition
from tracker.wandb_sink.rows import HISTOGRAMS, MAPS, STEP_PLUS_ONE, TOKENS, read_row
from tracker.wandb_sink.workspace import NAME, build_workspace

pytestmark = pytest.mark.filterwarnings(
    "ignore:Pydantic V1 style:DeprecationWarning"
)  # wandb-workspaces' own


def sections(spec: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    return {each["name"]: each["panels"] for each in spec["section"]["panelBankConfig"]["sections"]}


def built() -> dict[str, Any]:
    model: Any = build_workspace("someone", "tracker")._to_model()  # wandb-workspaces has no public way
    return model.model_dump(by_alias=True, exclude_none=True)["spec"]


def test_curves_lie_over_log_steps_and_runs_of_one_size_are_one_line():
    found = sections(built())
    lines = [panel for panels in found.values() for panel in panels
             if panel["viewType"] == "Run History Line Plot"]  # fmt: skip
    assert len(lines) > 15
    for line in lines:
        assert line["config"]["xAxis"] in (STEP_PLUS_ONE, TOKENS)
        assert (line["config"]["xLogScale"], line["config"]["groupBy"]) == (True, "n_params.value")
    (runs,) = built()["section"]["runSets"]
    assert runs["grouping"] == [{"section": "config", "name": "n_params.value"}]
    assert built()["section"]["settings"]["xAxis"] == STEP_PLUS_ONE


def test_sections_are_named_and_ordered_as_on_the_dashboard_s_page():
    page = (Path(tracker.views.__file__).parent / "page" / "dashboard.html").read_text(encoding="utf-8")
    titles = re.findall(r"<h2[^>]*>([^<]*)</h2>", page)
    names = list(dict.fromkeys(name.split(":")[0] for name in sections(built())))
    assert names == [title for title in titles if title in names]
    assert {"Findings", "Over training", "Heads by layer", "Model size"} <= set(names)


def test_every_panel_draws_what_the_rows_carry(tmp_path: Path):
    row = read_row(Store(tmp_path).place(store_one(tmp_path, 1)))
    summary = {*row.scalars, transition("half_step"), *map(first_step_of, ("exploratory", "specialisation"))}
    drawable = {*checkpoint_columns(own=False), *(f"std/{metric}" for metric in HISTOGRAMS)}
    for panels in sections(built()).values():
        for panel in panels:
            config = panel["config"]
            assert set(config.get("metrics", ())) <= drawable
            assert set(config.get("mediaKeys", ())) <= {f"maps/{metric}" for metric in MAPS}
            if panel["viewType"] == "Scatter Plot":
                name = config["yAxis"].removeprefix("summary:")
                assert name in summary | drawable
                assert config["xAxis"] == "config:n_params.value"
    maps = {key for panels in sections(built()).values() for panel in panels
            for key in panel["config"].get("mediaKeys", ())}  # fmt: skip
    assert maps == {f"maps/{metric}" for metric in MAPS}


def test_the_command_saves_the_workspace_and_the_next_time_renews_it(
    tmp_path: Path, server: LoopbackWandb, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    store_one(tmp_path / "store", 0)
    request = ["stream", "store=store", "workspace=true", "sink.maps=false", "sink.project=mine"]
    assert run(request) == 0
    said = capsys.readouterr().out
    assert f"W&B workspace: {server.url}/{ENTITY}/mine?nw=" in said
    assert run(request) == 0
    assert capsys.readouterr().out.splitlines()[-1] == said.splitlines()[-1]
    (view,) = server.views.values()
    assert (view["entityName"], view["projectName"], view["displayName"]) == (ENTITY, "mine", NAME)
    assert list(sections(view["spec"])) == list(sections(built()))


def test_a_workspace_without_a_server_is_refused_before_anything_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    store_one(tmp_path / "store", 0)
    assert run(["stream", "store=store", "workspace=true"]) == 2
    assert "workspace=true: a workspace lives on the W&B server" in capsys.readouterr().err
    assert not (tmp_path / "store" / "wandb").exists()
    assert run(["stream", "store=store", "workspace=perhaps"]) == 2
    assert capsys.readouterr().err == "tracker: workspace=perhaps: invalid value; expected true, false\n"


def test_a_server_that_refuses_the_workspace_is_named_with_its_reason(tmp_path: Path, server: LoopbackWandb):
    store_one(tmp_path, 0)
    require_server(SinkOptions())
    publish(tmp_path, SinkOptions(maps=False))
    server.deny = True
    with pytest.raises(
        TrackerError, match=r"the W&B workspace was not saved: .*401.*; the rows are sent, and"
    ):
        save_workspace(tmp_path, SinkOptions())


def test_a_lost_note_of_the_workspace_makes_another(tmp_path: Path, server: LoopbackWandb):
    save_workspace(tmp_path, SinkOptions())
    (note,) = tmp_path.rglob("workspace.json")
    assert set(json.loads(note.read_text())) == {"name", "id", "charts"}
    note.write_text("{")
    save_workspace(tmp_path, SinkOptions())
    assert len(server.views) == 2
