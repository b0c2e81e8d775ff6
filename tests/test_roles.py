"""Roles of heads: found where they are known, not claimed of chance."""

from pathlib import Path

import polars as pl
import pytest
import torch

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
from tracker.measurement.probe import load_tokenizer
from tracker.metrics import local_share, prefix_matching_score, previous_token_score, sink_share
from tracker.models import load_model
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
    assert "2 previous-token (1, 3), (3, 6)" in entry.sentence
