"""``tracker weights`` and ``spectrum.weights``: what comes into a store, and that nothing else changes."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from command_line import here as here
from saved_models import load
from suite_material import tables
from transformers import CodeGenConfig, CodeGenForCausalLM, GPTNeoXConfig, GPTNeoXForCausalLM

from tracker.cli import run
from tracker.errors import RequestError
from tracker.measurement.weights import WeightMeter
from tracker.metrics.registry import option_columns
from tracker.store import Ledger, open_store, read_table, record_folders
from tracker.wandb_sink.rows import read_row

STEPS = (0, 10, 20)
PROBE = ("probe.ids=ids.npy", "probe.n=32", "probe.sequences=3")
FOLDER = ("suite=folder", "suite.path=checkpoints", "suite.model=small")
WEIGHTS = option_columns("weights")


@pytest.fixture
def suite(here: Path) -> Path:
    """Three checkpoints of a random GPT-NeoX without a tokenizer, and token ids."""
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=32,
    )  # fmt: skip
    model = GPTNeoXForCausalLM(config)
    for step in STEPS:
        model.save_pretrained(here / "checkpoints" / f"step{step}")
        with torch.no_grad():
            for weights in model.parameters():
                weights.add_(torch.randn_like(weights) * 0.05)
    np.save(here / "ids.npy", np.random.default_rng(0).integers(0, 64, (3, 32)))
    return here


def sweep(*more: str) -> int:
    return run(["sweep", *FOLDER, *PROBE, "sink=none", "engine=inline", *more])


def weights(*more: str) -> int:
    return run(["weights", *FOLDER, *more])


def direct(folder: Path, step: int) -> pl.DataFrame:
    return WeightMeter().measure(folder / "checkpoints" / f"step{step}").checkpoint


def assert_measured(folder: Path, store: str = "tracker-store") -> None:
    """The store has the weights of every checkpoint."""
    rows = open_store(folder / store).checkpoints().sort("step")
    assert rows["step"].to_list() == list(STEPS)
    for step, row in zip(STEPS, rows.iter_slices(1), strict=True):
        wanted = direct(folder, step)
        assert row.select(wanted.columns).equals(wanted)
        assert row["stable_rank_mlp_gate"].item() is None
        assert row["stable_rank_qk"].item() > 1


def test_without_a_record_the_weights_get_one_of_their_own(suite: Path, capsys: pytest.CaptureFixture[str]):
    assert weights() == 0
    said = capsys.readouterr().out
    assert "folder, weights of 3 checkpoints: 3 measured now, 0 before, 0 not measured" in said
    assert "small seed 0, step 0 -> 20" in said
    assert_measured(suite)
    results = open_store(suite / "tracker-store")
    assert set(results.checkpoints()["probe"]) == {"weights"}
    assert results.layers().height == 3 * 2
    heads = results.heads()
    assert heads.height == 3 * 8
    assert heads["spectral_entropy"].null_count() == heads.height
    assert heads["rotary_profile_q"].list.len().to_list() == [1] * 24  # 25 % of 8 dimensions: one pair
    assert heads["rotary_place_q"].null_count() == 24
    assert weights() == 0
    assert "0 measured now, 3 before" in capsys.readouterr().out
    assert run(["analyse"]) == run(["dashboard"]) == run(["roles"]) == run(["stream", "sink=none"]) == 0


def test_columns_come_into_records_and_nothing_else_changes(suite: Path):
    assert sweep() == 0
    before = tables(suite / "tracker-store")
    assert not any(
        set(WEIGHTS) & set(read_table(place, "checkpoint").columns)
        for place in record_folders(suite / "tracker-store")
    )
    assert weights() == 0
    assert_measured(suite)
    after = tables(suite / "tracker-store")
    for table, frame in before.items():
        plain = [name for name in frame.columns if frame[name].null_count() < frame.height]
        assert after[table].select(plain).equals(frame.select(plain)), table
    assert len(list(record_folders(suite / "tracker-store"))) == 3
    row = read_row(next(record_folders(suite / "tracker-store")))
    assert row.scalars["stable_rank_q"] == direct(suite, 0)["stable_rank_q"].item()
    assert run(["analyse"]) == run(["dashboard"]) == 0


def test_records_of_every_probe_get_them(suite: Path):
    assert sweep() == sweep("probe.sequences=2") == 0
    assert weights() == 0
    assert all("weights" in each.options for each in Ledger(suite / "tracker-store").refreshed().values())
    assert len(Ledger(suite / "tracker-store").refreshed()) == 6


def test_what_was_measured_before_attention_is_kept(suite: Path):
    assert weights() == 0
    assert sweep() == 0
    assert_measured(suite)
    results = open_store(suite / "tracker-store")
    assert set(results.checkpoints()["probe"]) != {"weights"}
    assert results.heads()["spectral_entropy"].null_count() == 0
    assert sweep("remeasure=all") == 0
    assert_measured(suite)


def test_a_sweep_measures_the_same(suite: Path):
    assert sweep("spectrum.weights=true") == 0
    assert_measured(suite)
    assert sweep("store=other") == 0
    one, other = tables(suite / "tracker-store"), tables(suite / "other")
    for table, frame in other.items():
        plain = [name for name in frame.columns if name not in WEIGHTS and "rotary" not in name]
        plain = [name for name in plain if frame[name].null_count() < frame.height]
        assert one[table].select(plain).equals(frame.select(plain)), table
    assert sweep("store=other", "spectrum.weights=true") == 0  # of records that are there
    assert_measured(suite, "other")


def test_a_sweep_makes_no_records_of_weights_alone(suite: Path):
    (suite / "checkpoints" / "step10" / "model.safetensors").write_bytes(b"\x00" * 100)
    assert sweep("spectrum.weights=true") == 1
    records = Ledger(suite / "tracker-store").refreshed().values()
    assert sorted((each.step, each.status) for each in records) == [(0, "ok"), (10, "failed"), (20, "ok")]


def test_weights_that_changed_since_are_not_mixed_in(suite: Path, capsys: pytest.CaptureFixture[str]):
    assert sweep() == 0
    place = suite / "checkpoints" / "step10"
    model = GPTNeoXForCausalLM.from_pretrained(place)
    with torch.no_grad():
        model.get_parameter("gpt_neox.layers.0.attention.dense.weight").mul_(2)
    model.save_pretrained(place)
    assert load(place)
    assert weights() == 1
    said = capsys.readouterr().out
    assert "small seed 0 step 10: its source now holds" in said
    assert "remeasure=moved spectrum.weights=true" in said
    rows = open_store(suite / "tracker-store").checkpoints().sort("step")
    assert rows["stable_rank_q"].is_null().to_list() == [False, True, False]
    assert sweep("remeasure=moved", "spectrum.weights=true") == 0
    assert_measured(suite)


def test_a_checkpoint_that_cannot_be_read_costs_itself_alone(suite: Path, capsys: pytest.CaptureFixture[str]):
    (suite / "checkpoints" / "step10" / "model.safetensors").write_bytes(b"\x00" * 100)
    assert weights() == 1
    said = capsys.readouterr().out
    assert "2 measured now, 0 before, 1 not measured" in said
    assert "step10" in said
    assert open_store(suite / "tracker-store").checkpoints()["step"].to_list() == [0, 20]


def test_a_family_whose_layout_is_not_known_is_no_failure(here: Path, capsys: pytest.CaptureFixture[str]):
    config = CodeGenConfig(
        vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=32, rotary_dim=4, pad_token_id=None,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    CodeGenForCausalLM(config).save_pretrained(here / "checkpoints" / "step0")
    np.save(here / "ids.npy", np.random.default_rng(0).integers(0, 64, (3, 32)))
    line = "weights: the layout of CodeGenForCausalLM's attention is not known"
    assert weights() == 0
    assert capsys.readouterr().out.count(line) == 1
    assert sweep() == sweep("store=other", "spectrum.weights=true") == 0
    for store in ("tracker-store", "other"):
        results = open_store(here / store)
        assert results.checkpoints()["reason"].to_list() == [line]
        assert results.heads()["stable_rank_qk"].to_list() == [None] * 8
        assert results.layers()["stable_rank_mlp_in"].null_count() == 0
    capsys.readouterr()
    assert weights() == 0
    assert "0 measured now, 1 before" in capsys.readouterr().out


def test_a_wrong_request_is_one_line(here: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["weights", "suite=folder", "suite.path=nowhere"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (here / "tracker-store").exists()


def test_two_probes_need_a_choice_but_weights_alone_are_no_probe(suite: Path):
    assert weights() == sweep() == 0
    assert open_store(suite / "tracker-store", probe="weights").checkpoints().height == 3
    assert sweep("probe.sequences=2") == 0
    with pytest.raises(RequestError, match="several probes"):
        open_store(suite / "tracker-store")
