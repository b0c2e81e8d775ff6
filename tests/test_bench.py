"""The benchmark itself, on a tiny model: its contenders find the same numbers, its tables have their rows."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bench import __main__ as command
from bench.agreement import disagreements, in_standard_errors
from bench.contenders import Columns, Script, Tracker
from bench.overhead import MustRun
from bench.race import Lane, race
from bench.shapes import SHAPES, random_ids, random_model
from bench.vectorised import layer_columns
from rich.console import Console

from tracker.metrics.registry import head_columns


@pytest.fixture(scope="module")
def tracked() -> Columns:
    return Tracker(SHAPES["tiny"]).columns()[0]


def test_the_obvious_script_finds_what_tracker_finds(tracked: Columns):
    script, _ = Script(SHAPES["tiny"]).columns()
    apart = disagreements(tracked, script)
    assert {name: value for name, value in apart.items() if value > 1} == {}
    # At 96 tokens there are five levels, hence six of the twelve scales that have a column.
    scales = {name for name in head_columns(own=False) if name.rsplit("_", 1)[-1] in map(str, range(6, 12))}
    absent = scales | {"learned_sink_share"}  # of models that have such sinks
    assert set(apart) == set(head_columns(own=False)) - absent | {"head_redundancy"}
    spread = np.ptp(script["spectral_entropy"])
    assert spread > 0.01, "heads that do not differ would hide a mistaken order"


def test_the_vectorised_metrics_find_what_tracker_finds(tracked: Columns):
    from bench.obvious_script import keep_attention

    attention = keep_attention(random_model(SHAPES["tiny"]), *random_ids(SHAPES["tiny"]))
    layers = [layer_columns(layer) for layer in attention.full]
    found = {name: np.stack([layer[name] for layer in layers]) for name in layers[0]}
    apart = disagreements(tracked, found)
    assert {name: value for name, value in apart.items() if value > 1} == {}
    assert len(apart) == len(found) >= 19


def test_disagreement_is_seen():
    ours = {"a": np.array([1.0, 2.0]), "b": np.array([np.nan]), "c": np.zeros(1)}
    theirs = {"a": np.array([1.0, 2.001]), "b": np.array([1.0]), "d": np.zeros(1)}
    found = disagreements(ours, theirs)
    assert found.keys() == {"a", "b"}
    assert found["a"] == pytest.approx(5, rel=1e-3)
    assert found["b"] == np.inf


def test_errors_are_counted_in_standard_errors():
    error = {"a": np.array([0.1, 0.0]), "reconstruction_error": np.ones(2)}
    zero = {"a": np.zeros(2), "reconstruction_error": np.zeros(2)}
    moved = {"a": np.array([0.3, 9.0]), "reconstruction_error": np.ones(2)}
    assert in_standard_errors(moved, zero, error) == pytest.approx({"a": 3.0})


def test_every_table_has_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(command, "SWEPT", {"n": (64, 96), "layers": (1, 2)})
    printed = io.StringIO()
    monkeypatch.setattr(command, "shapes", lambda: [("tiny", SHAPES["tiny"])])
    options = ["--shape", "tiny", "--rounds", "1", "--local", "--markdown"]
    command.main([*options, "--json", str(tmp_path / "found.json")], Console(file=printed, width=200))
    found = json.loads((tmp_path / "found.json").read_text())["tables"]
    rows = {row["contender"]: row for row in found["contenders"]}
    assert list(rows) == [
        "bare forward", "tracker, no scale variants", "tracker", "tracker, 128 queries", "obvious script",
    ]  # fmt: skip
    assert rows["bare forward"]["times bare"] == 1
    assert rows["tracker"]["times bare"] > 1
    assert rows["obvious script"]["times tracker"] > 1
    assert found["queries"][0]["largest error, standard errors"] == 0, "96 rows are fewer than 128"
    assert [row["varied"] for row in found["sweep"]] == ["n = 64", "n = 96", "layers = 1", "layers = 2"]
    assert all(row["times bare"] > 1 for row in found["sweep"])
    overheads = found["overhead over what must be run"]
    assert overheads[0]["shape"] == "tiny, n 96, 8 sequences"
    assert all(row["bare s"] < row["must be run s"] < row["tracker s"] for row in overheads)
    assert "obvious script" in printed.getvalue()


def test_what_must_be_run_is_every_token_and_the_head_where_the_loss_is_scored():
    runner, read, scored = MustRun(SHAPES["tiny"]), [], []
    runner.prepare()
    runner.model.base_model.register_forward_pre_hook(
        lambda _, args, given: read.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    runner.model.get_output_embeddings().register_forward_pre_hook(
        lambda _, given: scored.append(len(given[0]))
    )
    runner.work()
    assert read == [(8, 96), (8, 48), (8, 24), (4, 100)]
    assert sum(scored) == 8 * 95, "a head smaller than the body: all positions"


@pytest.mark.slow
def test_a_child_that_cannot_run_says_why_and_the_others_go_on():
    names = ("TransformerLens", "obvious script", "tracker", "bare forward")
    pythons = {"TransformerLens": None, "obvious script": "no-such-python", "tracker": "false"}
    lanes = race(names, SHAPES["tiny"], rounds=1, threads=1, pythons=pythons)
    assert lanes["TransformerLens"].not_run == "no interpreter that has it was given"
    assert str(lanes["obvious script"].not_run).startswith("no-such-python does not start")
    assert lanes["tracker"].not_run == "it ended with exit code 1"
    bare: Lane = lanes["bare forward"]
    assert bare.not_run is None
    assert len(bare.seconds) == 1
    assert bare.peak is not None


def test_peak_memory_is_that_of_the_call():
    # In a process of its own, as the benchmark measures: libraries of other tests give memory back meanwhile.
    call = (
        "import numpy as np; from bench.memory import peak_beyond; "
        "print(*peak_beyond(lambda: np.ones(40 << 20, np.uint8).size, 'cpu'))"
    )
    here = Path(__file__).parent
    peak, size = subprocess.check_output([sys.executable, "-c", call], cwd=here, text=True).split()
    assert int(size) == 40 << 20
    if peak != "None":
        assert 39 << 20 < int(peak) < 60 << 20
