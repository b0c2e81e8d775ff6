import json
import stat
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import yaml
from sink_material import (
    no_wandb_of_the_user,  # noqa: F401  # a fixture that every test here uses
    store_one,
    unit_of,
)
from wandb import Settings
from wandb.errors import UsageError

from tracker.analysis import analyse
from tracker.analysis.synthetic import SyntheticRun, log_steps, noisy_samples, stored_tables, training_curves
from tracker.errors import RequestError
from tracker.records import Recorded
from tracker.store import SCHEMAS, Store
from tracker.wandb_sink.connection import OFFLINE, has_key, readable, resolve_mode
from tracker.wandb_sink.findings import MOST_HOLES, Findings, summarise_rows
from tracker.wandb_sink.identity import RunIdentity
from tracker.wandb_sink.ledger import UNCONFIRMED, Ledger
from tracker.wandb_sink.options import SinkOptions
from tracker.wandb_sink.rows import HISTOGRAMS, MAPS, STEP_PLUS_ONE, TOKENS, head_map, read_row
from tracker.wandb_sink.stored import StoredRecords

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


def test_a_netrc_counts_only_for_its_host(home: Path, monkeypatch: pytest.MonkeyPatch):
    path = home / "netrc"
    path.write_text("machine wandb.example.org login user password key\ndefault login a password b\n")
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    assert has_key(HOST)
    assert not has_key("https://api.wandb.ai")
    monkeypatch.delenv("NETRC")
    assert not has_key(HOST)
    path.rename(home / "_netrc")
    assert has_key(HOST), "the netrc of the home folder was not found"
    (home / "_netrc").write_text("machine")
    assert not has_key(HOST)


def test_errors_do_not_quote_the_key(monkeypatch: pytest.MonkeyPatch):
    assert readable(ValueError("bad  key\nabc")) == "bad key abc"
    assert readable(ValueError()) == "ValueError"
    monkeypatch.setenv("WANDB_API_KEY", "abc")
    assert readable(ValueError("bad key abc")) == "bad key ***"


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
    holes = [recorded(0, "missing", None)] + [recorded(step) for step in range(1, MOST_HOLES + 3)]
    summary = summarise_rows(None, holes)
    assert str(summary["holes"]).startswith("step 0 missing: no reason recorded; step 1 failed: why; step 2")
    assert str(summary["holes"]).endswith("; and 3 more")
    assert (summary["checkpoints_failed"], summary["checkpoints_missing"]) == (MOST_HOLES + 2, 1)


def test_findings_say_where_phases_begin_and_not_those_of_other_conventions():
    phases = [{"label": "initial", "first_step": 0}, {"label": "exploratory", "first_step": 128},
              {"label": None, "first_step": 512}]  # fmt: skip
    entries = [{"suite": "pythia", "model": "70m", "seed": 0, "sentence": "A phase.", "phases": phases}]
    analysis = {"probe": "probe", "conventions": "conventions", "phases": entries, "thresholds": []}
    assert Findings(analysis).summary(IDENTITY) == {
        "phases": "A phase.", "phase/initial_first_step": 0, "phase/exploratory_first_step": 128,
    }  # fmt: skip
    assert Findings(analysis | {"conventions": "other"}).summary(IDENTITY) == {}


def test_findings_date_the_transition_and_say_what_comes_back():
    steps = log_steps(16)
    samples = noisy_samples(training_curves(steps), 8, np.random.default_rng(0), error=0.01)
    report = analyse(*stored_tables({("70m", 0): SyntheticRun(steps, samples, ())}, {"70m": 19_000_000}))
    stored = json.loads(json.dumps(report.to_dict()))
    run = RunIdentity("synthetic", "70m", 0, report.probe, report.conventions)
    found = Findings(stored).summary(run)
    (entry,) = report.transitions
    main = entry.structure.main
    assert main is not None
    assert (found["transition/onset_step"], found["transition/half_step"], found["transition/end_step"]) == (
        main.onset.step_high, main.half.step_high, main.end.step_high,
    )  # fmt: skip
    assert found["transition/turn_step"] == 1000
    assert found["transition/recovered"] == pytest.approx(entry.structure.turns[0].recovered)
    levels = [found[f"transition/frequency_selectivity_{end}"] for end in ("from", "to")]
    assert levels == sorted(levels, reverse=True)
    assert not [name for name in Findings(stored | {"transitions": [{"suite": "synthetic"}, 3]}).summary(run)
                if name.startswith("transition/")]  # fmt: skip


def test_a_poll_finds_each_record_once_and_again_where_it_was_replaced(tmp_path: Path):
    stored = StoredRecords(tmp_path)
    assert stored.poll() == set()
    Store(tmp_path).write_hole(unit := unit_of(4), "failed", "torn")
    store_one(tmp_path, 1)
    (identity,) = stored.poll()
    assert [each.record.step for each in stored.measured(identity)] == [1]
    assert [record.step for record in stored.holes(identity)] == [4]
    assert stored.poll() == set()
    place = Store(tmp_path).place(unit)
    place.rename(tmp_path / "away")
    store_one(tmp_path, 4)
    assert stored.poll() == {identity}
    assert [each.record.step for each in stored.measured(identity)] == [1, 4]
    assert stored.holes(identity) == []
    stored.forget(place)
    assert stored.poll() == {identity}


def ledger_of(folder: Path) -> Ledger:
    return Ledger.load(folder, SinkOptions(project="p", entity="e"), IDENTITY)


def test_the_ledger_separates_confirmed_written_and_unconfirmed_rows(tmp_path: Path):
    ledger = ledger_of(tmp_path)
    assert ledger.path == tmp_path / "wandb" / "sent" / "e" / "p" / f"{IDENTITY.id}.json"
    for run_folder, row in (("run-1", "a"), ("offline-run-2", "b"), ("run-3", "c"), ("offline-run-4", "d")):
        ledger.begin(run_folder)
        ledger.hand_over(row)
        assert row in ledger.sent(HOST) & ledger.sent(OFFLINE)
        if run_folder == "run-3":
            ledger.abandon()
        elif run_folder != "offline-run-4":
            ledger.close(OFFLINE if run_folder == "offline-run-2" else HOST)
    reread = ledger_of(tmp_path)
    assert reread == ledger
    assert json.loads(reread.path.read_text())["run"]["model"] == "70m"
    reread.abandon()  # the publisher died
    assert reread.rows == {HOST: ["a"], "offline-run-2": ["b"], UNCONFIRMED: ["c"]}
    assert reread.sent(HOST) == {"a"}
    assert reread.sent("https://another.example.org") == set()
    assert reread.sent(OFFLINE) == {"a", "b", "c"}
    reread.confirm(HOST, ["b", "c"])
    assert ledger_of(tmp_path).rows == {HOST: ["a", "b", "c"]}


def test_a_ledger_of_an_earlier_version_is_read(tmp_path: Path):
    path = ledger_of(tmp_path).path
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({
        "run": {}, "confirmed": {HOST: ["a"]}, "written": {"offline-run-2": ["b"]}, "unsure": ["c"],
        "open": "run-3", "handed": ["d"], "summary": {HOST: "s"}, "alerts": {HOST: ["x"]}, "artifact": {},
    }))  # fmt: skip
    ledger = ledger_of(tmp_path)
    ledger.abandon()
    assert ledger.rows == {HOST: ["a"], "offline-run-2": ["b"], UNCONFIRMED: ["c", "d"]}
    assert (ledger.summary, ledger.sent_alerts(HOST)) == ({HOST: "s"}, {"x"})


def test_only_offline_folders_that_were_not_delivered_are_removed(tmp_path: Path):
    wandb_folder = tmp_path / "wandb"
    for name in ("run-1", "offline-run-2", "offline-run-3", "kept"):
        (wandb_folder / name).mkdir(parents=True)
    (wandb_folder / "offline-run-3" / "run-x.wandb.synced").touch()
    (wandb_folder / "run-1" / "run-x.wandb").touch()
    unconfirmed = {}
    for name in ("run-1", "offline-run-2", "offline-run-3", "../kept", "offline-run-none"):
        ledger = Ledger(wandb_folder, tmp_path / "ledger.json", IDENTITY, rows={name: ["a"]}, open=name)
        ledger.abandon()
        unconfirmed[name] = ledger.rows.get(UNCONFIRMED, [])
    assert {path.name for path in wandb_folder.iterdir()} == {"run-1", "offline-run-3", "kept"}
    assert (wandb_folder / "run-1" / "run-x.wandb.synced").exists(), "wandb sync would deliver it again"
    assert unconfirmed == {"run-1": ["a"], "offline-run-2": [], "offline-run-3": ["a"], "../kept": ["a"],
                           "offline-run-none": []}  # fmt: skip


def test_only_files_that_a_server_has_all_of_are_marked_as_delivered(tmp_path: Path):
    for name in ("offline-run-1", "offline-run-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run-x.wandb").touch()
    rows = {"offline-run-1": ["a", "b"], "offline-run-2": ["b", "c"]}
    ledger = Ledger(tmp_path, tmp_path / "ledger.json", IDENTITY, rows=rows)
    ledger.confirm(HOST, ["a", "b"])
    assert ledger.rows == {HOST: ["a", "b"], "offline-run-2": ["b", "c"]}
    assert [path.parent.name for path in tmp_path.rglob("*.synced")] == ["offline-run-1"]
