"""Hidden states measured in the sweep's own forward pass, against ``output_hidden_states`` and numpy."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from command_line import here as here
from test_measure import tokens_for, unit_for
from test_models_families import GROUPED, HEADS, LAYERS, USUAL
from transformers import AutoConfig, GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedModel

from tracker.cli import run
from tracker.measurement.measure import measure
from tracker.models import load_model
from tracker.models.architecture import auto_class
from tracker.models.attention_modules import block_of, self_attention_names
from tracker.models.streaming import stream_model
from tracker.records import Measurement
from tracker.store import open_store, read_table, record_folders
from tracker.store.schema import OPTION_SCHEMAS

FAMILIES: dict[str, dict[str, Any]] = {
    "gpt_neox": {}, "llama": GROUPED, "gpt2": {"n_positions": 48}, "olmo2": GROUPED, "bloom": {},
    "gptj": {"n_positions": 48, "rotary_dim": 4}, "bert": {},
}  # fmt: skip
COLUMNS = ("state_effective_rank", "state_outlier_ratio", "state_first_norm")
NUMBER, N = 9, 40


def built(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **(USUAL | FAMILIES[family]))
    return auto_class(config).from_config(config, attn_implementation="eager").eval()


def states_of(model: PreTrainedModel, ids: np.ndarray) -> list[np.ndarray]:
    """Behind every layer, (S, n, D): the model's own list, and the last block's output before the final norm
    (``output_hidden_states`` has it behind)."""
    last: list[torch.Tensor] = []
    block = model.get_submodule(block_of(self_attention_names(model)[-1]))
    hook = block.register_forward_hook(
        lambda module, given, out: last.append(out if isinstance(out, torch.Tensor) else out[0])
    )
    with torch.inference_mode():
        said = model.base_model(torch.from_numpy(ids), output_hidden_states=True, use_cache=False)
    hook.remove()
    return [each.double().numpy() for each in (*said.hidden_states[1:LAYERS], last[0])]


def reference(states: np.ndarray) -> tuple[float, float, float]:
    singular = np.linalg.svd(states.reshape(-1, states.shape[-1]), compute_uv=False)
    shares = singular / singular.sum()
    sizes = np.abs(states).reshape(len(states), -1)
    norms = np.linalg.norm(states, axis=-1)
    return (
        float(np.exp(-(shares * np.log(shares)).sum())),
        float((sizes.max(1) / np.median(sizes, axis=1)).mean()),
        float((norms[:, 0] / norms[:, 1:].mean(1)).mean()),
    )


def measured(model: PreTrainedModel, *, states: bool) -> Measurement:
    return measure(unit_for(N, NUMBER), model, tokens_for(N, NUMBER), states=states)


@pytest.mark.parametrize("family", FAMILIES)
def test_figures_are_those_of_the_models_own_states(family: str):
    model = built(family)
    wanted = [reference(each) for each in states_of(model, tokens_for(N, NUMBER).ids)]
    found = measured(model, states=True)
    assert found.layers.height == len(wanted) == LAYERS
    for row, values in zip(found.layers.iter_rows(named=True), wanted, strict=True):
        assert [row[name] for name in COLUMNS] == pytest.approx(values, rel=1e-5)
    by_layer = found.heads.group_by("layer", maintain_order=True).agg(pl.mean("sink_share"))
    assert found.layers["layer_sink_share"].to_list() == pytest.approx(by_layer["sink_share"].to_list())
    assert found.heads.height == LAYERS * HEADS


@pytest.mark.parametrize("threads", [1, 3])
def test_no_other_column_changes_by_a_bit_and_no_hook_stays(threads: int):
    model, before = built("gpt_neox"), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        without, with_states, again = (measured(model, states=each) for each in (False, True, False))
    finally:
        torch.set_num_threads(before)
    for table in ("heads", "layers", "sequences", "checkpoint"):
        plain, full, last = (getattr(each, table) for each in (without, with_states, again))
        # Correlations are sums of products whose last bit depends on where memory lies.
        exact = [name for name in plain.columns if "correlation" not in name]
        exact = [name for name in exact if name not in ("seconds", "peak_bytes")]
        assert plain.select(exact).equals(full.select(exact))
        assert plain.select(exact).equals(last.select(exact))
        assert set(full.columns) - set(plain.columns) == set(OPTION_SCHEMAS["states"][table])
        assert set(last.columns) == set(plain.columns)
    assert not any(module._forward_hooks for module in model.modules())


def test_as_many_sequences_count_as_are_measured():
    """In several threads and batches states come in the order of the sequences."""
    model, before = built("llama"), torch.get_num_threads()
    alone = measured(model, states=True)
    torch.set_num_threads(4)
    try:
        shared = measured(model, states=True)
    finally:
        torch.set_num_threads(before)
    for name in COLUMNS:
        assert shared.layers[name].to_list() == pytest.approx(alone.layers[name].to_list(), rel=1e-6)


def test_a_model_that_is_streamed_has_the_same_states(tmp_path: Path):
    model = built("llama")
    model.save_pretrained(tmp_path)
    whole, streamed = (
        measured(load_model(tmp_path), states=True),
        measured(stream_model(tmp_path), states=True),
    )
    assert whole.layers.select(COLUMNS).equals(streamed.layers.select(COLUMNS))


def test_massive_activations_are_found():
    model = built("gpt2")
    with torch.no_grad():
        model.get_parameter("transformer.h.1.mlp.c_proj.bias")[3] = 500.0
    ratios = measured(model, states=True).layers["state_outlier_ratio"].to_list()
    assert ratios[0] < 30
    assert min(ratios[1:]) > 100


def test_a_sweep_adds_states_to_what_was_measured_without(here, capsys: pytest.CaptureFixture[str]):
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=32,
    )  # fmt: skip
    GPTNeoXForCausalLM(config).save_pretrained(here / "checkpoints" / "step0")
    np.save(here / "ids.npy", np.random.default_rng(0).integers(0, 64, (3, 32)))
    request = ["sweep", "suite=folder", "suite.path=checkpoints", "suite.model=small", "probe.ids=ids.npy",
               "probe.n=32", "probe.sequences=3", "sink=none", "engine=inline"]  # fmt: skip
    assert run(request) == 0
    place = next(record_folders(here / "tracker-store"))
    assert "state_first_norm" not in read_table(place, "layers").columns
    assert run(["weights", *request[1:4]]) == run([*request, "spectrum.states=true"]) == 0
    capsys.readouterr()
    assert run([*request, "spectrum.states=true"]) == 0
    assert "0 to measure" in capsys.readouterr().out
    layers = open_store(here / "tracker-store").layers()
    assert (
        layers.select(*COLUMNS, "stable_rank_q").null_count().sum_horizontal().item() == 0
    )  # and keeps weights
    assert len(list(record_folders(here / "tracker-store"))) == 1
