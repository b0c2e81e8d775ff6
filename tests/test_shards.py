"""Shards: disjoint, complete, the same in every plan, and even in what they cost."""

from collections import Counter

import pytest

from tracker import facts
from tracker.checkpoints import published
from tracker.config import Steps
from tracker.planning.schedule import select
from tracker.planning.shards import rung, shard_of
from tracker.records import Checkpoint


def checkpoint(step: int, model: str = "m", seed: int = 0) -> Checkpoint:
    return Checkpoint("suite", model, seed, step, "folder", "/x", f"step{step}")


def heaviest(chosen: list[Checkpoint], count: int) -> float:
    """Cost of the costliest shard over the mean, a checkpoint's cost being its model's parameters."""
    table = facts.table("pythia_suite")
    size = dict(zip(table["size"], table["params_total"], strict=True))
    costs = Counter[int]()
    for each in chosen:
        costs[shard_of(each, count)] += size[each.model]
    return max(costs.values()) / (costs.total() / count)


def test_the_usual_schedules_stand_on_consecutive_rungs():
    pythia = [0, *(2**power for power in range(10)), *range(1000, 144_000, 1000)]
    assert [rung(step) for step in pythia] == list(range(154))
    assert [rung(step) for step in range(600, 1000, 100)] == [16, 17, 18, 19]
    assert [rung(step) for step in range(250, 2250, 250)] == [11, 11, 13, 11, 15, 13, 17, 12]


@pytest.mark.parametrize(("count", "most"), [(2, 1.02), (4, 1.03), (8, 1.05), (16, 1.10), (100, 1.75)])
def test_every_shard_of_pythia_costs_about_the_same(count: int, most: float):
    sizes = facts.table("pythia_suite")["size"].to_list()
    found = heaviest(published("pythia", sizes), count)
    assert found <= most, f"the costliest of {count} shards costs {found:.3f} of the mean"


@pytest.mark.parametrize("name", ["all", "log"])
def test_no_shard_of_one_model_has_much_more_than_another(name: str):
    for model in ("14m", "1b", "12b"):
        chosen = select(published("pythia", [model]), Steps(name))
        counts = Counter(shard_of(each, 8) for each in chosen)
        assert max(counts.values()) - len(chosen) / 8 <= 2


def test_a_checkpoints_shard_follows_from_its_name_alone():
    # Pinned: jobs of an array may run different versions of a suite, and must agree on who does what.
    assert [shard_of(checkpoint(step), 16) for step in (0, 1, 512, 1000, 143000)] == [11, 5, 14, 8, 4]
    assert len({shard_of(checkpoint(1000, seed=seed), 16) for seed in range(10)}) > 4
