"""Roles of heads: found where they are known, not claimed of chance; and heads switched off for real."""

from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from tests.test_encodings_model import EVERY, ids, made, strong
from tracker.analysis.roles import (
    INDUCTION,
    NO_ROLE,
    PREVIOUS_TOKEN,
    ROLES,
    Measured,
    chance,
    claimed,
    head_roles,
    named_heads,
    typical_scale,
)
from tracker.analysis.text.roles import born
from tracker.api import track
from tracker.errors import CheckpointError
from tracker.measurement.probe import load_tokenizer
from tracker.metrics import local_share, prefix_matching_score, previous_token_score, sink_share
from tracker.models import load_model
from tracker.models.ablation import losses, output_projection, without_heads
from tracker.models.attention_modules import self_attention_modules
from tracker.models.pruning import (
    _tried,
    groups_of,
    map_similarity,
    other_choices,
    prune,
    pruning_sentences,
)
from tracker.records import Conventions

N = 96
MEASURED = Measured(N, 16)


def causal(n: int = N) -> torch.Tensor:
    return torch.tril(torch.ones(n, n, dtype=torch.float64))


def even(n: int = N) -> torch.Tensor:
    return causal(n) / causal(n).sum(-1, keepdim=True)


def test_chance_is_what_the_metrics_give_even_attention():
    for column, value in (
        ("previous_token_score", previous_token_score(even())),
        ("sink_share", sink_share(even())),
        ("local_share", local_share(even(), 16)),
        ("prefix_matching_score", prefix_matching_score(even(100), 50)),
    ):
        assert chance(column, MEASURED) == pytest.approx(float(value.mean()), rel=1e-6), column


def test_chance_follows_the_span_and_the_block_of_the_conventions():
    other = Measured(n=N, sequences=16, span=4, block=8)
    assert chance("local_share", other) == pytest.approx(float(local_share(even(), 4).mean()), rel=1e-6)
    expected = float(prefix_matching_score(even(16), 8).mean())
    assert chance("prefix_matching_score", other) == pytest.approx(expected, rel=1e-6)


def table(**columns: list[float]) -> pl.DataFrame:
    usual = {role.column: chance(role.column, MEASURED) for role in ROLES}
    count = len(next(iter(columns.values())))
    filled = {name: columns.get(name, [value] * count) for name, value in usual.items()}
    spreads = {f"{name}_std": columns.get(f"{name}_std", [0.02] * count) for name in usual}
    return pl.DataFrame(filled | spreads)


def test_each_role_is_found_and_even_attention_has_none():
    heads = table(
        previous_token_score=[0.9, 0.04, 0.04, 0.04, 0.04, 0.0436],
        sink_share=[0.01, 0.01, 0.9, 0.01, 0.01, 0.0436],
        prefix_matching_score=[0.0, 0.4, 0.0, 0.0, 0.0, 0.0137],
        local_share=[1.0, 0.2, 0.05, 0.9, 0.05, 0.354],
    )
    names, margins = claimed(heads, MEASURED)
    assert names == ["previous-token", "induction", "sink", "local", "global", NO_ROLE]
    assert margins[-1] is None
    assert margins[0] == pytest.approx(
        (0.9 - chance("sink_share", MEASURED)) / (1 - chance("sink_share", MEASURED)), abs=0.03
    )


def test_a_score_that_sequences_disagree_on_claims_nothing():
    for spread, role in ((0.02, "previous-token"), (0.2, NO_ROLE)):
        heads = table(previous_token_score=[0.6], previous_token_score_std=[spread])
        assert claimed(heads, MEASURED)[0] == [role]


def test_one_sequence_is_sure_of_nothing():
    heads = table(previous_token_score=[0.95], previous_token_score_std=[float("nan")])
    assert claimed(heads, Measured(N, 1))[0] == [NO_ROLE]


def test_a_role_that_the_first_checkpoint_has_is_from_the_start_only_at_step_0():
    assert [born([0, 0]), born([512, 512]), born([0, 16])] == ["step 0", "by 512", "(0, 16]"]


def test_random_attention_has_no_role():
    """Softmax of noise, as many heads as a large model has: none is named."""
    noise = torch.randn(400, 8, N, N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    attention = noise.masked_fill(causal() == 0, -torch.inf).softmax(-1)
    columns = {}
    for name, scores in (
        ("previous_token_score", previous_token_score(attention)),
        ("sink_share", sink_share(attention)),
        ("local_share", local_share(attention, 16)),
    ):
        columns |= {name: scores.mean(1).tolist(), f"{name}_std": scores.std(1).tolist()}
    assert set(claimed(table(**columns), Measured(N, 8))[0]) == {NO_ROLE}


def test_the_scale_is_the_period_at_the_median_of_power():
    assert typical_scale([1.0] * 16) == pytest.approx(4)  # half of the power below a quarter cycle a token
    assert typical_scale([1.0] + [0.0] * 15) == pytest.approx(64)
    assert typical_scale(None) is None


def _runs(scores: list[float]) -> tuple[pl.DataFrame, pl.DataFrame]:
    steps = [0, 1, 2, 4][: len(scores)]
    keys = {"suite": "s", "model": "m", "seed": 0, "status": "ok"}
    heads = table(previous_token_score=scores).with_columns(
        step=pl.Series(steps), layer=pl.lit(0), head=pl.lit(0),
        spectrum=pl.lit(None, dtype=pl.List(pl.Float64)),
        band_power_low=pl.lit(0.5), band_power_mid=pl.lit(0.3), band_power_high=pl.lit(0.2),
        **{name: pl.lit(value) for name, value in keys.items()},
    )  # fmt: skip
    checkpoints = pl.DataFrame({"step": steps}).with_columns(
        n_tokens=pl.lit(N), n_sequences=pl.lit(16), **{name: pl.lit(value) for name, value in keys.items()}
    )
    return heads, checkpoints


@pytest.mark.parametrize(("span", "block", "role"), [(None, None, "local"), (48, 8, NO_ROLE)])
def test_roles_of_a_store_are_judged_by_the_span_and_the_block_that_it_records(span, block, role):
    """Scores near what even attention gives over 48 keys, and in a block of 8: roles by the defaults."""
    heads, checkpoints = _runs([0.0])
    heads = heads.with_columns(
        local_share=pl.lit(0.70), local_share_std=pl.lit(0.01), prefix_matching_score=pl.lit(0.09)
    )
    recorded = checkpoints.with_columns(
        local_span=pl.lit(span, pl.Int64), prefix_block=pl.lit(block, pl.Int64)
    )
    (entry,) = head_roles(heads, recorded)
    assert entry.heads[0].role == role
    (older,) = head_roles(heads, checkpoints)
    assert older.heads[0].role == "local"
    own = Conventions(span=48, block=8)
    labelled = checkpoints.with_columns(conventions=pl.lit(own.label))
    assert head_roles(heads, labelled, own)[0].heads[0].role == NO_ROLE
    assert head_roles(heads, labelled, Conventions(span=4))[0].heads[0].role == "local"


def test_a_named_head_and_a_claimed_role_share_one_threshold():
    for role in (INDUCTION, PREVIOUS_TOKEN):
        expected = chance(role.column, MEASURED)
        limit = expected + role.least * (1 - expected)
        for score, has_it in ((limit + 0.01, True), (limit - 0.01, False)):
            heads = table(**{role.column: [score], f"{role.column}_std": [0.0]})
            placed = heads.with_columns(layer=pl.lit(0), head=pl.lit(0))
            assert bool(named_heads(placed, MEASURED).height) == has_it
            assert (claimed(heads, MEASURED)[0] == [role.name]) == has_it


@pytest.mark.parametrize(
    ("scores", "birth"),
    [
        ([0.0, 0.9, 0.1, 0.9], (2, 4)),
        ([0.0, 0.1, 0.9, 0.9], (1, 2)),
        ([0.9] * 4, (0, 0)),
        ([0.9, 0, 0, 0], None),
    ],
)
def test_birth_is_when_a_head_takes_its_role_for_good(scores, birth):
    (entry,) = head_roles(*_runs(scores))
    assert entry.heads[0].birth == birth
    assert entry.counts["previous-token"] == tuple(int(score > 0.5) for score in scores)
    assert entry.heads[0].band == "low"


def test_stories260k_has_two_previous_token_heads_and_no_induction_head(real: Path):
    measured = track(load_model(real / "stories260k"), tokenizer=load_tokenizer(real / "stories260k"))
    (entry,) = head_roles(measured.heads, measured.checkpoint)
    found = [(h.layer, h.head) for h in entry.heads if h.role == "previous-token"]
    assert found == [(1, 3), (3, 6)]
    assert not any(head.role == "induction" for head in entry.heads)
    assert "previous-token 2 (1, 3), (3, 6)" in entry.sentence


@pytest.mark.parametrize("name", EVERY)
def test_a_head_is_switched_off_as_if_its_values_were_zero(name):
    """Against a model whose projection has zeros where the head's output enters."""
    model, tokens = strong(name), ids()
    whole = losses(model, tokens)
    with without_heads(model, {1: [2]}):
        without = losses(model, tokens)
    assert torch.equal(losses(model, tokens), whole)  # and on again
    projection: Any = output_projection(self_attention_modules(model)[1], 1)
    with torch.no_grad():
        weight = projection.weight if name != "gpt2" else projection.weight.T
        weight[:, 16:24] = 0
    torch.testing.assert_close(losses(model, tokens), without)
    assert (without - whole).abs().max() > 1e-3


def test_an_architecture_without_a_known_projection_is_refused():
    with pytest.raises(CheckpointError, match="layer 3: Linear has no output projection named dense"):
        output_projection(torch.nn.Linear(2, 2), 3)


def test_groups_are_alike_in_every_pair():
    similarity = np.array([[1, 0.95, 0.5], [0.95, 1, 0.92], [0.5, 0.92, 1]])
    assert groups_of(similarity) == [(0, 1)]
    assert groups_of(np.eye(3)) == []
    assert groups_of(np.eye(1)) == []


def test_a_copied_head_is_found_and_its_loss_is_told():
    """Head 1 copies head 0 and hands nothing on: it can go, and other heads cannot."""
    model, tokens = strong("rotary"), ids(3, 10)
    layer: Any = self_attention_modules(model)[1]
    with torch.no_grad():
        for parameter in (layer.query_key_value.weight, layer.query_key_value.bias):
            parts = parameter.view(4, 3, 8, -1)
            parts[1, :2] = parts[0, :2]
        layer.dense.weight[:, 8:16] = 0
        layer.dense.weight[:, 16:] *= 8
        for _ in range(30):  # its own words: whatever it does without hurts
            tokens = torch.cat([tokens, model(tokens).logits[:, -1:].argmax(-1)], 1)
    tokens = tokens[:, 10:]
    assert map_similarity(model, tokens)[1][0, 1] == pytest.approx(1)
    found = [each for each in prune(model, tokens) if each.layer == 1 and each.group == (0, 1)]
    assert len(found) == 1
    assert found[0].kept == 0
    assert found[0].rise == pytest.approx(0, abs=1e-9)
    assert found[0].control is not None
    assert found[0].control > 0.01
    assert found[0].redundant
    assert "layer 1 heads 0, 1" in pruning_sentences("m", found)[0]


def test_other_choices_are_all_there_are_or_twelve_drawn_ones():
    assert other_choices(3, (0, 1)) == [(2,)]
    assert other_choices(3, (0, 1, 2)) == []
    few = other_choices(5, (0, 1, 2))
    assert len(few) == 10 - 3
    group = tuple(range(16))
    drawn = other_choices(32, group, 5)  # of 565 million, which no list could hold
    assert len(set(drawn)) == 12
    assert all(len(each) == 15 and not set(each) <= set(group) for each in drawn)
    assert drawn == other_choices(32, group, 5)


def test_redundant_is_what_costs_less_in_every_sequence(monkeypatch: pytest.MonkeyPatch):
    """Sequences differ more than the two losses do within each: the difference is sure all the same."""
    ours, theirs = np.array([0.1, 1.1, 2.1, 3.1]), np.array([0.2, 1.21, 2.2, 3.19])
    off: list[set[int]] = [set()]

    @contextmanager
    def without(_model, heads):
        off[0] = set(heads[0])
        yield
        off[0] = set()

    def told(_model, _ids):
        return torch.from_numpy(ours if off[0] == {1} else theirs if off[0] else np.zeros(4))

    monkeypatch.setattr("tracker.models.pruning.without_heads", without)
    monkeypatch.setattr("tracker.models.pruning.losses", told)
    model: Any = None
    alike = np.array([[1, 0.95, 0], [0.95, 1, 0], [0, 0, 1]])
    found = _tried(model, torch.zeros(4, 4), 0, (0, 1), alike, torch.zeros(4, dtype=torch.float64))
    assert found.redundant
    assert found.rise + (found.half or 0) > (found.control or 0)


def test_one_sequence_judges_no_pruning():
    found = prune(made("rotary"), ids(1), alike=0.6)
    assert found
    for each in found:
        assert each.half is None
        assert each.redundant is None
        assert "nothing to judge it by" in pruning_sentences("m", [each])[0]


def test_pruning_leaves_the_model_as_it_was():
    model = strong("rotary").train()
    model.set_attn_implementation("sdpa")
    prune(model, ids(2))
    assert model.training
    assert model.config._attn_implementation == "sdpa"
