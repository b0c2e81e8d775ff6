import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from synthetic_store import SMALL, SMALL_STEPS, write_store
from test_models_capture import neox

import tracker
import tracker.api
from tracker.errors import CheckpointError, RequestError
from tracker.measurement.probe import load_tokenizer
from tracker.measurement.process import keep_freed_memory
from tracker.models import load_model


def test_three_lines_on_the_real_model(real: Path):
    model, tokenizer = load_model(real / "stories260k"), load_tokenizer(real / "stories260k")
    measured = tracker.track(model, tokenizer=tokenizer)
    leading = (
        measured.heads.sort("previous_token_score", descending=True).head(2).select("layer", "head").rows()
    )
    assert set(leading) == {(1, 3), (3, 6)}
    assert measured.heads["prefix_matching_score"].max() < 0.1
    named = measured.named_heads()
    assert named.select("name", "layer", "head").rows() == [
        ("previous token", 3, 6),
        ("previous token", 1, 3),
    ]
    assert measured.figure().axes
    shown = measured._repr_html_()
    assert "Previous-token heads (from 0.52): layer 3 head 6 (0.72), layer 1 head 3 (0.67)." in shown
    assert "No induction head: the largest prefix-matching score is 0.014." in shown
    assert "data:image/png;base64," in shown


def test_the_interface_is_what_dir_names(tmp_path: Path):
    assert dir(tracker) == sorted([*tracker.__all__, "__version__"])
    assert all(hasattr(tracker, name) for name in dir(tracker))
    assert re.match(r"\d", tracker.__version__)


def test_a_measurement_is_six_lines_and_a_store_a_paragraph(tmp_path: Path):
    lines = repr(tracker.track(neox(), [[1, 2] * 24] * 3)).splitlines()
    assert len(lines) == 6
    assert lines[0] == "GPTNeoXForCausalLM: 3 layers of 4 heads, 3 sequences of 48 tokens"
    assert "spectral entropy" in lines[1]
    assert "No induction head" in lines[3]
    assert ".heads (12 rows)" in lines[4]
    write_store(tmp_path, SMALL[:2], SMALL_STEPS[:3], holes=False)
    shown = repr(tracker.open_store(tmp_path))
    assert "\n" not in shown
    assert f"2 models ({SMALL[0].model}, {SMALL[1].model}), 1 seed, steps 0 to 2; probe " in shown
    next(tmp_path.rglob("checkpoint.parquet")).write_bytes(b"PAR1")
    with pytest.warns(UserWarning, match="left out"):
        assert "1 damaged" in repr(tracker.open_store(tmp_path))


def test_a_tokenizer_may_be_named_by_its_folder(real: Path):
    model = load_model(real / "stories260k")
    by_name = tracker.track(model, tokenizer=str(real / "stories260k"), number=2)
    loaded = tracker.track(model, tokenizer=load_tokenizer(real / "stories260k"), number=2)
    assert by_name.heads.equals(loaded.heads)
    with pytest.raises(CheckpointError, match="no-such-folder: no tokenizer in this folder"):
        tracker.track(model, tokenizer="no-such-folder")


# attention at hand


def attention_of(model: Any, ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
    model.set_attn_implementation("eager")
    with torch.no_grad():
        return model.eval()(ids, output_attentions=True).attentions


class Cache:
    """Keys as TransformerLens's ActivationCache takes them."""

    def __init__(self, layers: Sequence[torch.Tensor]) -> None:
        self.cache_dict = {f"blocks.{layer}.attn.hook_pattern": each for layer, each in enumerate(layers)}

    def __getitem__(self, key: tuple[str, int]) -> torch.Tensor:
        name, layer = key
        return self.cache_dict[f"blocks.{layer}.attn.hook_{name}"]


GIVEN: dict[str, Callable[[Sequence[torch.Tensor]], Any]] = {
    "tuple": tuple,
    "array": lambda layers: torch.stack(list(layers)).numpy(),
    "cache": Cache,
}


@pytest.mark.parametrize("kind", GIVEN)
def test_attention_at_hand_gives_what_its_model_gives(kind: str):
    model, ids = neox(), torch.randint(0, 64, (3, 48), generator=torch.Generator().manual_seed(0))
    whole = tracker.track(model, ids)
    given = tracker.measure_attention(GIVEN[kind](attention_of(model, ids)), name="mine", step=7)
    model_only = ("prefix_matching", "scale_sensitivity")
    for name, kind_of in whole.heads.schema.items():
        if kind_of.is_float() and not name.removeprefix("averaged_").startswith(model_only):
            ours, theirs = (each.heads[name].fill_null(np.nan).to_numpy() for each in (given, whole))
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7, err_msg=name)
    row = given.summary.row(0, named=True)
    assert (row["model"], row["step"], row["n_tokens"], row["loss"]) == ("mine", 7, 48, None)
    assert row["reason"].startswith("attention without its model")
    redundancy = (each.layers["head_redundancy"].to_numpy() for each in (given, whole))
    np.testing.assert_allclose(*redundancy, rtol=1e-5)
    assert given.figure().axes
    assert "No induction head" not in repr(given)


def test_attention_in_half_precision_and_of_one_sequence():
    layers = attention_of(neox(), torch.arange(48)[None])
    exact = tracker.measure_attention(layers)
    coarse = tracker.measure_attention([each[0].to(torch.bfloat16) for each in layers])
    names = ["spectral_entropy", "frequency_selectivity"]
    np.testing.assert_allclose(coarse.heads[names].to_numpy(), exact.heads[names].to_numpy(), rtol=2e-2)


UNIFORM = np.tril(np.ones((48, 48))) / np.arange(1, 49)[:, None]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ([], "patterns: no layer in it; wanted one array per layer"),
        ({}, "patterns: no layer in it"),
        (3, "patterns: int; wanted one array per layer"),
        ([UNIFORM], r"patterns: layer 0 is float64 of shape \(48, 48\)"),
        ([np.ones((1, 2, 48, 40))], r"layer 0 is float64 of shape \(1, 2, 48, 40\)"),
        ([np.ones((1, 2, 48, 48), int)], "layer 0 is int64"),
        ([["a"]], "layer 0 is no array"),
        ([UNIFORM[None, None], UNIFORM[None, None].repeat(2, 0)], "layers have different shapes"),
        ([2 * UNIFORM[None, None]], "layer 0 head 0: attention does not sum to 1 over the keys"),
        ([np.full((1, 1, 48, 48), np.nan)], "layer 0 head 0: attention is NaN or infinite"),
    ],
)
def test_attention_that_cannot_be_measured_is_named(patterns: Any, message: str):
    with pytest.raises((RequestError, CheckpointError), match=message):
        tracker.measure_attention(patterns)


def test_the_model_is_left_as_it_was():
    model = neox().train()
    model.set_attn_implementation("sdpa")
    before = [p.clone() for p in model.parameters()]
    tracker.track(model, torch.randint(0, 64, (2, 48)))
    assert model.training
    assert model.config._attn_implementation == "sdpa"
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_tables_are_polars_and_hold_what_was_asked():
    measured = tracker.track(neox(), np.arange(2 * 48).reshape(2, 48) % 64, align="gather")
    assert all(isinstance(t, pl.DataFrame) for t in (measured.heads, measured.layers, measured.sequences))
    assert measured.summary["n_tokens"].item() == 48
    assert (
        measured.summary["conventions"].item()
        != tracker.track(neox(), [[1] * 48]).summary["conventions"].item()
    )


@pytest.mark.parametrize(
    ("tokens", "options", "message"),
    [
        (None, {}, "a probe of text needs a tokenizer"),
        ([[0.5] * 48], {}, r"tokens: float64 of shape \(1, 48\); wanted whole numbers"),
        ([1] * 48, {}, r"tokens: int64 of shape \(48,\)"),
        ([[64] * 48], {}, "tokens: ids are 64 to 64, the model's vocabulary is 0 to 63"),
        ([[3] * 47 + [-1]], {}, "tokens: ids are -1 to 3, the model's vocabulary is 0 to 63"),
        (np.zeros((0, 48), int), {}, r"tokens: int64 of shape \(0, 48\); wanted whole numbers"),
        ([[1] * 48, [1] * 47], {}, "tokens: setting an array element .*; wanted whole numbers, shape"),
        ([[1] * 48], {"target_error": -1}, "probe.target_error=-1: invalid value"),
        ([[1] * 65], {}, "tokens: 65 a sequence, the model has 64 positions"),
        ([[1] * 48], {"alphas": (0.3,)}, "spectrum.alphas=0.3: invalid value; expected one of 0.5, 0.25"),
        ([[1] * 48], {"algn": "gather"}, "algn: unknown option; choose from align, alphas"),
    ],
)
def test_bad_input_is_named(tokens: object, options: dict, message: str):
    with pytest.raises((RequestError, CheckpointError), match=message):
        tracker.track(neox(), tokens, **options)


@pytest.mark.parametrize("wrap", [torch.nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
def test_a_model_is_taken_out_of_what_wraps_it(wrap):
    model = neox()
    assert tracker.track(wrap(model), [[1] * 48]).heads.equals(tracker.track(model, [[1] * 48]).heads)


@pytest.mark.parametrize("given", ["gpt2", torch.nn.Linear(2, 2), None])
def test_what_is_no_model_is_refused(given):
    with pytest.raises(RequestError, match=f"model: {type(given).__name__} is not a transformers model"):
        tracker.track(given, [[1] * 48])


def test_there_is_nothing_else():
    with pytest.raises(AttributeError, match="module 'tracker' has no attribute 'trak'"):
        tracker.trak  # noqa: B018


def test_a_measurement_shows_itself_and_escapes_names():
    model = neox()
    model.config._name_or_path = "<script>alert(1)</script>&"
    shown = tracker.track(model, [[1] * 48])._repr_html_()
    assert "script&gt;&amp;: 3 layers of 4 heads, 1 sequence of 48 tokens" in shown
    assert "<script" not in shown


@contextmanager
def autocast() -> Iterator[None]:
    with torch.autocast("cpu", torch.bfloat16):
        yield


@contextmanager
def other_dtype() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def other_device() -> Iterator[None]:
    with torch.device("meta"):
        yield


@pytest.mark.parametrize("surroundings", [autocast, other_dtype, other_device])
def test_what_a_process_has_set_for_itself_changes_no_number(surroundings):
    model, ids = neox(), np.arange(2 * 48).reshape(2, 48) % 64
    alone = tracker.track(model, ids)
    with surroundings():
        inside = tracker.track(model, ids)
    assert inside.heads.equals(alone.heads)
    assert inside.summary["loss"].equals(alone.summary["loss"])


def test_the_allocator_of_a_users_process_stays_as_it_is():
    """glibc's options hold for every thread of the process, and cannot be taken back."""
    before = keep_freed_memory.cache_info()
    tracker.track(neox(), [[1] * 48])
    assert keep_freed_memory.cache_info() == before
