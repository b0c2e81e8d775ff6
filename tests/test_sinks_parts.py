import json
import stat
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import yaml
from sink_material import no_wandb_of_the_user, store_one  # noqa: F401  # a fixture that every test here uses
from wandb import Settings
from wandb.errors import UsageError

from tracker.errors import RequestError
from tracker.records import Recorded
from tracker.store import SCHEMAS, Store
from tracker.wandb_sink.access import has_key, resolve_mode, without_secrets
from tracker.wandb_sink.arrivals import Arrivals
from tracker.wandb_sink.identity import RunIdentity
from tracker.wandb_sink.ledger import OFFLINE, Ledger, ledger_path
from tracker.wandb_sink.maps import MAPS, head_map
from tracker.wandb_sink.options import SinkOptions
from tracker.wandb_sink.rows import HISTOGRAMS, STEP_PLUS_ONE, TOKENS, read_row
from tracker.wandb_sink.words import MOST_HOLES, summary_of

IDENTITY = RunIdentity("pythia", "70m", 0, "probe", "conventions")
CONF = Path(__file__).parent.parent / "conf" / "sink"
HOST = "https://wandb.example.org"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (SinkOptions(name="wandbb"), r"sink\.name=wandbb: invalid value; expected one of wandb, none"),
        (SinkOptions(mode="dry"), r"sink\.mode=dry: invalid value; expected one of auto, online, offline"),
        (SinkOptions(project="a/b"), r"sink\.project=a/b: has characters that W&B refuses; allowed: 1 to"),
        (SinkOptions(project=""), r"sink\.project=: is empty or has blanks around it; allowed: 1 to 128"),
        (SinkOptions(project=" a"), r"sink\.project= a: is empty or has blanks around it"),
        (SinkOptions(project="a" * 129), r"sink\.project=a{129}: has 129 characters; allowed: 1 to 128"),
        (SinkOptions(project="a\nb"), r"sink\.project=a\nb: has characters that cannot be printed"),
        (SinkOptions(project=".."), r"sink\.project=\.\.: is not a name; allowed: 1 to 128"),
        (SinkOptions(entity="a?b"), r"sink\.entity=a\?b: has characters that W&B refuses"),
        (SinkOptions(order_wait=-1), r"sink\.order_wait=-1: must be a number of seconds, 0 or more"),
        (SinkOptions(init_timeout=0), r"sink\.init_timeout=0: must be a positive number of seconds"),
        (SinkOptions(finish_timeout=float("inf")), r"sink\.finish_timeout=inf: must be a positive number"),
    ],
)
def test_wrong_options_say_what_is_allowed(options: SinkOptions, message: str):
    with pytest.raises(RequestError, match=message):
        options.validate()


@pytest.mark.parametrize("character", "/\\#?%:")
def test_the_characters_we_refuse_are_those_that_wandb_refuses(character: str):
    with pytest.raises(UsageError):
        Settings(project=f"a{character}b")
    with pytest.raises(RequestError):
        SinkOptions(project=f"a{character}b").validate()


def test_the_configuration_has_the_fields_and_defaults_of_the_options():
    configured = yaml.safe_load((CONF / "wandb.yaml").read_text())
    assert SinkOptions(**configured).validate() == SinkOptions()
    assert list(configured) == [field.name for field in fields(SinkOptions)]
    assert not SinkOptions(**yaml.safe_load((CONF / "none.yaml").read_text())).enabled


def test_auto_is_online_only_with_a_key_and_follows_the_environment(monkeypatch: pytest.MonkeyPatch):
    assert resolve_mode(SinkOptions(), HOST) == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert resolve_mode(SinkOptions(), HOST) == "online"
    for word, mode in (("offline", "offline"), ("dryrun", "offline"), ("disabled", "disabled"),
                       ("online", "online"), ("nonsense", "online")):  # fmt: skip
        monkeypatch.setenv("WANDB_MODE", word)
        assert resolve_mode(SinkOptions(), HOST) == mode
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert resolve_mode(SinkOptions(mode="offline"), HOST) == "offline"
    assert resolve_mode(SinkOptions(name="none", mode="online"), HOST) == "disabled"


def test_a_netrc_counts_only_for_its_host(home: Path):
    path = home / "netrc"
    path.write_text("machine wandb.example.org login user password key\ndefault login a password b\n")
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    assert has_key(HOST)
    assert not has_key("https://api.wandb.ai")
    path.write_text("machine")
    assert not has_key(HOST)


def test_the_netrc_of_the_home_folder_is_found(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NETRC")
    path = home / "_netrc"
    path.write_text("machine wandb.example.org login user password key\n")
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    assert has_key(HOST)


def test_errors_do_not_quote_the_key(monkeypatch: pytest.MonkeyPatch):
    assert without_secrets("bad key abc") == "bad key abc"
    monkeypatch.setenv("WANDB_API_KEY", "abc")
    assert without_secrets("bad key abc") == "bad key ***"


def test_a_run_id_depends_on_all_five_and_on_nothing_else():
    names = {"suite": "a", "model": "b", "seed": 1, "probe": "c", "conventions": "d"}
    identity = RunIdentity(**names)
    assert identity.id == RunIdentity(**names).id == "99ecbb82ba21e274"
    others = {RunIdentity(**(names | {name: 7 if name == "seed" else "z"})).id for name in names}
    assert len(others | {identity.id}) == 6


def test_a_row_carries_what_exists_and_leaves_out_what_does_not(tmp_path: Path):
    row = read_row(Store(tmp_path).place(store_one(tmp_path, 0, tokens=False)))
    assert row.scalars[STEP_PLUS_ONE] == 1
    assert TOKENS not in row.scalars
    assert "prefix_matching_score" not in row.scalars
    assert "prefix_matching_score" not in row.maps
    assert None not in row.scalars.values()
    assert "rotary_dims" not in row.facts


def test_what_is_drawn_is_a_column_of_the_heads():
    assert {*MAPS, *HISTOGRAMS} <= set(SCHEMAS["heads"])


@pytest.mark.parametrize("shape", [(1, 1), (6, 4), (64, 128)])
def test_a_map_has_a_cell_for_every_head_and_grey_where_nothing_is(shape: tuple[int, int]):
    values = np.linspace(-1.0, 3.0, shape[0] * shape[1]).reshape(shape)
    values[-1, -1] = np.nan
    picture, caption = head_map("frequency_selectivity", values)
    side = picture.width // shape[1]
    assert picture.size == (shape[1] * side, shape[0] * side)
    assert max(picture.size) <= 512
    assert picture.getpixel((picture.width - 1, picture.height - 1)) == (128, 128, 128)
    if values.size > 1:
        assert picture.getpixel((0, 0)) == (68, 1, 84)  # the darkest colour: too low values are clipped
    assert caption == ("Frequency selectivity: rows are layers (0 on top), columns are heads; "
                       "0 dark to 2 bright, grey where undefined")  # fmt: skip


def recorded(step: int, status: str = "failed", reason: str | None = "why") -> Recorded:
    return Recorded(str(step), status, reason, None, None, None, "pythia", "70m", 0, step, "probe",  # type: ignore[arg-type]
                    "conventions", "org/70m", None)  # fmt: skip


def test_many_holes_are_counted_and_the_first_are_spelled_out():
    holes = [recorded(step) for step in range(MOST_HOLES + 2, 0, -1)] + [recorded(0, "missing", None)]
    words = summary_of(IDENTITY, None, holes, {})
    assert words["holes"].startswith("step 0 missing: no reason recorded; step 1 failed: why; step 2 failed")
    assert words["holes"].endswith("; and 3 more")
    assert (words["checkpoints_failed"], words["checkpoints_missing"]) == (MOST_HOLES + 2, 1)


def test_findings_of_other_conventions_are_not_told():
    phases = [{"suite": "pythia", "model": "70m", "seed": 0, "sentence": "A phase."}]
    mine = {"probe": "probe", "conventions": "conventions", "phases": phases, "thresholds": []}
    assert summary_of(IDENTITY, None, [], mine)["phases"] == "A phase."
    assert "phases" not in summary_of(IDENTITY, None, [], mine | {"conventions": "other"})


def test_arrivals_tell_each_record_once_and_again_where_it_was_replaced(tmp_path: Path):
    arrivals = Arrivals(tmp_path)
    assert arrivals.poll() == []
    Store(tmp_path).write_hole(unit := store_one(tmp_path, 4), "failed", "too late")
    store_one(tmp_path, 1)
    assert [arrival.record.step for arrival in arrivals.poll()] == [1, 4]
    assert arrivals.poll() == []
    Store(tmp_path).place(unit).rename(tmp_path / "away")
    store_one(tmp_path, 4)
    assert [arrival.record.step for arrival in arrivals.poll()] == [4]
    place = Store(tmp_path).place(unit)
    arrivals.forget(place)
    assert [arrival.place for arrival in arrivals.poll()] == [place]


def test_the_ledger_tells_delivered_written_and_unfinished_apart(tmp_path: Path):
    path = ledger_path(tmp_path, SinkOptions(project="p", entity="e"), IDENTITY)
    assert path == tmp_path / "wandb" / "sent" / "e" / "p" / f"{IDENTITY.id}.json"
    ledger = Ledger.load(path, IDENTITY)
    closed = [("run-1", HOST, "a", True), ("offline-run-2", OFFLINE, "b", False), ("run-3", HOST, "c", False)]
    for run_folder, server, row, delivered in closed:
        ledger.begin(run_folder)
        ledger.hand([row])
        ledger.close(server, ["held"] if delivered else [], delivered=delivered, wandb_folder=tmp_path)
    ledger.begin("offline-run-4")
    ledger.hand(["d"])
    reread = Ledger.load(path, IDENTITY)
    assert reread == ledger
    assert reread.sent(HOST) == {"a", "held"}
    assert reread.sent("https://another.example.org") == set()
    assert reread.sent(OFFLINE) == {"a", "held", "b", "c"}
    assert (reread.unsure, reread.open, reread.handed) == (["c"], "offline-run-4", ["d"])
    assert json.loads(path.read_text())["run"]["model"] == "70m"
    assert list(path.parent.glob("*.partial")) == []
    reread.drop_unfinished(tmp_path)
    assert "d" not in reread.sent(OFFLINE)


def test_only_offline_folders_that_were_not_delivered_are_removed(tmp_path: Path):
    for name in ("run-1", "offline-run-2", "offline-run-3", "kept"):
        (tmp_path / name).mkdir()
    (tmp_path / "offline-run-3" / "run-x.wandb.synced").touch()
    (tmp_path / "run-1" / "run-x.wandb").touch()
    unsure = {}
    for name in ("run-1", "offline-run-2", "offline-run-3", "../kept", "offline-run-none"):
        ledger = Ledger(tmp_path / "ledger.json", IDENTITY, open=name, handed=["a"])
        ledger.drop_unfinished(tmp_path)
        assert (ledger.open, ledger.handed) == (None, [])
        unsure[name] = ledger.unsure
    assert {path.name for path in tmp_path.iterdir()} == {"run-1", "offline-run-3", "kept"}
    assert (tmp_path / "run-1" / "run-x.wandb.synced").exists(), "wandb sync would deliver what had arrived"
    assert unsure == {"run-1": ["a"], "offline-run-2": [], "offline-run-3": ["a"], "../kept": ["a"],
                      "offline-run-none": []}  # fmt: skip


def test_only_files_that_a_server_has_all_of_are_marked_as_delivered(tmp_path: Path):
    for name in ("offline-run-1", "offline-run-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run-x.wandb").touch()
    written = {"offline-run-1": ["a", "b"], "offline-run-2": ["b", "c"]}
    ledger = Ledger(tmp_path / "ledger.json", IDENTITY, confirmed={HOST: ["a", "b"]}, written=written)
    ledger.supersede_written(HOST, tmp_path)
    assert list(ledger.written) == ["offline-run-2"]
    assert [path.parent.name for path in tmp_path.rglob("*.synced")] == ["offline-run-1"]
